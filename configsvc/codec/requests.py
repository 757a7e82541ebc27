"""etcd requests (protobuf) into our own operations, and back where a command is built from one.

The only rules here are those of form: canonical spans and out-of-enum numbers kept as they are for
the checks of ``mvcc``. An operation of a transaction whose oneof is unset becomes ``None``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError as ProtobufDecodeError

from configsvc.errors import EmptyKeyError, InvalidArgumentError
from configsvc.mvcc.messages import Compare, DeleteOp, PutOp, RangeOp, TxnOp
from configsvc.proto import rpc_pb2
from configsvc.types import KeySpan, span_of

M = TypeVar("M")
_new = tuple.__new__  # skips the Python frame of a named tuple's constructor

_OPERAND = ("version", "create_revision", "mod_revision", "value", "lease")
NESTING_MAX = 32  # deeper transactions than the walker admits are cut off while decoding


def parse(cls: Callable[..., M], raw: bytes) -> M:
    """Decode a request.

    Raises:
        InvalidArgumentError: the bytes are not that message; the text quotes nothing.
    """
    try:
        return cls.FromString(raw)  # type: ignore[attr-defined,no-any-return]
    except ProtobufDecodeError:
        raise InvalidArgumentError("request does not decode") from None


def _span(m: Any) -> KeySpan:
    """Canonical span; an absent key is no span, also where a zero byte would open it."""
    if not m.key:
        raise EmptyKeyError
    return span_of(m.key, m.range_end)


def range_op(m: Any) -> RangeOp:
    return RangeOp(
        _span(m),
        m.limit,
        m.revision,
        m.sort_order,
        m.sort_target,
        m.serializable,
        m.keys_only,
        m.count_only,
        m.min_mod_revision,
        m.max_mod_revision,
        m.min_create_revision,
        m.max_create_revision,
    )


def plain_put(data: bytes, at: int, end: int) -> PutOp | None:
    """The put that ``data[at:end]`` encodes if it is a key and a value and nothing else.

    Most puts are that, and reading it by hand takes two thirds of what protobuf does. None: ask
    protobuf, be it a put with options, one that another encoder wrote, or no put at all.
    """
    if end - at < 6 or data[at] != 0x0A:
        return None
    size = data[at + 1]
    at += 2
    if size >= 0x80:
        high = data[at]
        if not 0 < high < 0x80:
            return None
        size = size & 0x7F | high << 7
        at += 1
    behind = at + size
    if not size or behind + 3 > end or data[behind] != 0x12:
        return None
    key = data[at:behind]
    size = data[behind + 1]
    at = behind + 2
    if size >= 0x80:
        high = data[at]
        if not 0 < high < 0x80:
            return None
        size = size & 0x7F | high << 7
        at += 1
    if not size or at + size != end:
        return None
    return _new(PutOp, (key, data[at:end], 0, False, False, False))


def put_of(raw: bytes) -> PutOp:
    """The put that a client sent.

    Raises:
        InvalidArgumentError: the bytes are not that message.
    """
    op = plain_put(raw, 0, len(raw))
    return put_op(parse(rpc_pb2.PutRequest, raw)) if op is None else op


def put_op(m: Any) -> PutOp:
    return _new(PutOp, (m.key, m.value, m.lease, m.prev_kv, m.ignore_value, m.ignore_lease))


def delete_op(m: Any) -> DeleteOp:
    return DeleteOp(_span(m), m.prev_kv)


def compare(m: Any) -> Compare:
    target = m.target
    if 0 <= target < len(_OPERAND):
        field = _OPERAND[target]
        operand: int | bytes = getattr(m, field) if m.WhichOneof("target_union") == field else 0
        if target == 3 and operand == 0:
            operand = b""
    else:
        operand = 0
    return Compare(_span(m), not m.range_end, m.result, target, operand)


def _request_op(m: Any, depth: int) -> Any:
    kind = m.WhichOneof("request")
    if kind == "request_put":
        return put_op(m.request_put)
    if kind == "request_range":
        return range_op(m.request_range)
    if kind == "request_delete_range":
        return delete_op(m.request_delete_range)
    if kind == "request_txn":
        return txn_op(m.request_txn, depth + 1)
    return None


def txn_op(m: Any, depth: int = 1) -> TxnOp:
    if depth > NESTING_MAX:
        raise InvalidArgumentError("transaction is nested too deeply")
    return TxnOp(
        tuple(compare(x) for x in m.compare),
        tuple(_request_op(x, depth) for x in m.success),
        tuple(_request_op(x, depth) for x in m.failure),
    )
