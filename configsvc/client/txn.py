"""Transactions, built step by step: all comparisons hold, or the other branch runs.

``Txn().when(version(b"k") == 0).then(put(b"k", b"v")).otherwise(range_(b"k"))``. The comparisons
are made by ``==``, ``!=``, ``<`` and ``>`` on what ``version``, ``created``, ``modified``,
``value`` and ``lease`` return; an absent key has zero in each of them.
"""

from __future__ import annotations

from typing import Any

from configsvc.client.operations import Operation
from configsvc.client.retry import Effect
from configsvc.errors import InvariantViolationError
from configsvc.proto import rpc_pb2 as rpc

_PATH = "/etcdserverpb.KV/Txn"


class Compared:
    """One property of a key, or of every key in a range, waiting to be compared."""

    __hash__ = None  # type: ignore[assignment]  # == builds a comparison

    def __init__(
        self, target: rpc.Compare.CompareTarget, field: str, key: bytes, range_end: bytes
    ) -> None:
        self._target = target
        self._field = field
        self._key = key
        self._range_end = range_end

    def _make(self, result: rpc.Compare.CompareResult, operand: object) -> rpc.Compare:
        fields: dict[str, Any] = {self._field: operand}
        return rpc.Compare(
            result=result,
            target=self._target,
            key=self._key,
            range_end=self._range_end,
            **fields,
        )

    def __eq__(self, operand: object) -> rpc.Compare:  # type: ignore[override]
        return self._make(rpc.Compare.EQUAL, operand)

    def __ne__(self, operand: object) -> rpc.Compare:  # type: ignore[override]
        return self._make(rpc.Compare.NOT_EQUAL, operand)

    def __lt__(self, operand: object) -> rpc.Compare:
        return self._make(rpc.Compare.LESS, operand)

    def __gt__(self, operand: object) -> rpc.Compare:
        return self._make(rpc.Compare.GREATER, operand)


def version(key: bytes, range_end: bytes = b"") -> Compared:
    """How many times the key was put since it was created; 0: it does not exist."""
    return Compared(rpc.Compare.VERSION, "version", key, range_end)


def created(key: bytes, range_end: bytes = b"") -> Compared:
    """The revision that created the key."""
    return Compared(rpc.Compare.CREATE, "create_revision", key, range_end)


def modified(key: bytes, range_end: bytes = b"") -> Compared:
    """The revision of the key's last change."""
    return Compared(rpc.Compare.MOD, "mod_revision", key, range_end)


def value(key: bytes, range_end: bytes = b"") -> Compared:
    """The value; a comparison with the value of an absent key never holds."""
    return Compared(rpc.Compare.VALUE, "value", key, range_end)


def lease(key: bytes, range_end: bytes = b"") -> Compared:
    """The lease id."""
    return Compared(rpc.Compare.LEASE, "lease", key, range_end)


def _op(operation: Operation[Any]) -> rpc.RequestOp:
    request = operation.request
    if isinstance(request, rpc.RangeRequest):
        return rpc.RequestOp(request_range=request)
    if isinstance(request, rpc.PutRequest):
        return rpc.RequestOp(request_put=request)
    if isinstance(request, rpc.DeleteRangeRequest):
        return rpc.RequestOp(request_delete_range=request)
    if isinstance(request, rpc.TxnRequest):
        return rpc.RequestOp(request_txn=request)
    raise InvariantViolationError("a transaction holds KV operations only")


class Txn:
    """A transaction under construction."""

    def __init__(self) -> None:
        self._request = rpc.TxnRequest()
        self._effect = Effect.READ

    def when(self, *comparisons: rpc.Compare) -> Txn:
        """Add comparisons; all of them must hold."""
        self._request.compare.extend(comparisons)
        return self

    def then(self, *operations: Operation[Any]) -> Txn:
        """Add what happens if they hold."""
        self._request.success.extend(self._ops(operations))
        return self

    def otherwise(self, *operations: Operation[Any]) -> Txn:
        """Add what happens if they do not."""
        self._request.failure.extend(self._ops(operations))
        return self

    def _ops(self, operations: tuple[Operation[Any], ...]) -> list[rpc.RequestOp]:
        if any(operation.effect is not Effect.READ for operation in operations):
            self._effect = Effect.ONCE
        return [_op(operation) for operation in operations]

    def operation(self) -> Operation[rpc.TxnResponse]:
        """The finished transaction; also usable inside another one."""
        request = rpc.TxnRequest()
        request.CopyFrom(self._request)
        return Operation(_PATH, request, rpc.TxnResponse, self._effect)
