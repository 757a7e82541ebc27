"""Results into encoded etcd responses.

Responses are put together by concatenation: a header field, then the rest. ``Headers`` knows the
parts of a header that never change on a member.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from configsvc.apply.commands import Granted
from configsvc.codec.varint import SMALL, bytes_field, int_field, signed_varint, varint
from configsvc.errors import ensure
from configsvc.mvcc.messages import (
    DeleteResult,
    Event,
    KeyValue,
    OpResult,
    PutResult,
    RangeResult,
    TxnResult,
)
from configsvc.proto import kv_pb2


class Headers:
    """Response headers of one member (wire/behaviour.md H1–H8)."""

    __slots__ = ("_fixed", "_near", "_page", "_term")

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self._fixed = int_field(1, cluster_id) + int_field(2, member_id)
        self._term = 0
        self._page = 0  # revisions that differ in their last 14 bits only share all but two bytes
        self._near = (b"", b"")  # what goes before and behind those two; valid if _page is not 0

    def field(self, revision: int, term: int) -> bytes:
        """The header as field 1 of a response; revision 0 is left out (H6)."""
        page = revision >> 14
        if not page:
            body = self._fixed + int_field(3, revision) + int_field(4, term)
            return b"\x0a" + varint(len(body)) + body
        if page != self._page or term != self._term:
            self._turn(page, term)
        before, behind = self._near
        return before + bytes((revision & 0x7F | 0x80, revision >> 7 & 0x7F | 0x80)) + behind

    def _turn(self, page: int, term: int) -> None:
        before = self._fixed + b"\x18"
        behind = varint(page) + int_field(4, term)
        self._page, self._term = page, term
        self._near = (b"\x0a" + varint(len(before) + 2 + len(behind)) + before, behind)


def key_value(kv: KeyValue) -> bytes:
    """``mvccpb.KeyValue``."""
    key, value, create, mod, version, lease = kv
    parts = [b"\x0a", varint(len(key)), key]
    if create:
        parts += (b"\x10", varint(create))
    if mod:
        parts += (b"\x18", varint(mod))
    if version:
        parts += (b"\x20", varint(version))
    if value:
        parts += (b"\x2a", varint(len(value)), value)
    if lease:
        parts += (b"\x30", signed_varint(lease))
    return b"".join(parts)


def range_body(result: RangeResult) -> bytes:
    """A RangeResponse without its header."""
    if len(result.kvs) == 1:  # most ranges
        return bytes_field(2, key_value(result.kvs[0])) + range_end(result)
    return key_values(result.kvs) + range_end(result)


KVS: Final = b"\x12"  # tag of a RangeResponse's key values
PREV_KVS: Final = b"\x1a"  # tag of a DeleteRangeResponse's


def key_values(kvs: Iterable[KeyValue], *, keys_only: bool = False, tag: bytes = KVS) -> bytes:
    """A repeated field of key values, or a part of it.

    The same bytes as ``key_value`` makes, in half the time: neighbours often share revisions, and
    most lengths are small. ``keys_only``: without values and leases (R8).
    """
    parts: list[bytes] = []
    add = parts.append
    known_create = known_mod = -1
    revisions = b""
    for key, value, create, mod, version, lease in kvs:
        if mod != known_mod or create != known_create:
            known_create, known_mod = create, mod
            revisions = b"\x10" + varint(create) if create else b""
            if mod:
                revisions += b"\x18" + varint(mod)
        if keys_only:
            value, lease = b"", 0
        size, behind = len(key), len(value)
        head = b"\x0a" + (SMALL[size] if size < 128 else varint(size)) + key + revisions
        if version:
            head += b"\x20" + (SMALL[version] if version < 128 else varint(version))
        if value:
            head += b"\x2a" + (SMALL[behind] if behind < 128 else varint(behind))
        tail = b"\x30" + signed_varint(lease) if lease else b""
        size = len(head) + behind + len(tail)
        add(tag + (SMALL[size] if size < 128 else varint(size)) + head)
        add(value)
        if tail:
            add(tail)
    return b"".join(parts)


def range_end(result: RangeResult) -> bytes:
    """What follows the key values."""
    return range_tail(more=result.more, count=result.count)


def range_tail(*, more: bool, count: int) -> bytes:
    """Likewise, of an answer whose key values are in pieces."""
    flag = b"\x18\x01" if more else b""
    return flag + b"\x20" + varint(count) if count else flag


def put_body(result: PutResult) -> bytes:
    return bytes_field(2, key_value(result.prev)) if result.prev is not None else b""


def delete_body(result: DeleteResult) -> bytes:
    return int_field(2, result.deleted) + key_values(result.prevs, tag=PREV_KVS)


def txn_body(result: TxnResult) -> bytes:
    """A TxnResponse without its header."""
    return txn_head(result) + b"".join([response(r, result.revision) for r in result.responses])


def txn_head(result: TxnResult) -> bytes:
    """What comes before the responses."""
    return b"\x10\x01" if result.succeeded else b""


def response(result: OpResult, revision: int) -> bytes:
    """One of the responses; ``revision`` is the transaction's."""
    if type(result) is PutResult:
        body = put_body(result)
    elif type(result) is RangeResult:
        body = range_body(result)
    elif type(result) is DeleteResult:
        body = delete_body(result)
    else:
        ensure(type(result) is TxnResult, "deferred reads are filled in before encoding")
        body = txn_body(result)  # type: ignore[arg-type]
    return response_head(result, revision, len(body)) + body


def response_head(result: OpResult, revision: int, size: int) -> bytes:
    """What comes before the ``size`` bytes of a response's body.

    Sub-headers carry the revision alone, of a nested transaction not even that (H5).
    """
    kind = _RESPONSES[type(result)]
    if kind == _NESTED:
        header = b"\x0a\x00"
    else:
        header = bytes_field(1, int_field(3, result.revision or revision))
    inner = kind + varint(len(header) + size) + header
    return b"\x1a" + varint(len(inner) + size) + inner


_NESTED: Final = b"\x22"  # tags of a ResponseOp's choices
_RESPONSES: Final[dict[type, bytes]] = {
    RangeResult: b"\x0a",
    PutResult: b"\x12",
    DeleteResult: b"\x1a",
    TxnResult: _NESTED,
}


def lease_grant_body(result: Granted) -> bytes:
    return int_field(2, result.id) + int_field(3, result.ttl)


_DELETE: Final = b"\x08\x01"


def event(e: Event, *, prev_kv: bool) -> bytes:
    """``mvccpb.Event``; a delete's kv has only key and mod revision (W15)."""
    row = e.row
    if row.tombstone:
        kv = key_value(KeyValue(row.key, b"", 0, row.revision, 0, 0))
        body = _DELETE + bytes_field(2, kv)
    else:
        body = bytes_field(
            2,
            key_value(
                KeyValue(
                    row.key, row.value, row.create_revision, row.revision, row.version, row.lease
                )
            ),
        )
    if prev_kv and e.prev is not None:
        body += bytes_field(3, key_value(e.prev))
    return body


def events_field(events: Iterable[Event], *, prev_kv: bool) -> bytes:
    """The repeated ``events`` field of a WatchResponse, shared by all watchers of one kind."""
    return b"".join(bytes_field(11, event(e, prev_kv=prev_kv)) for e in events)


def to_protobuf(kvs: Sequence[KeyValue]) -> list[Any]:
    """Key values as protobuf objects, for answers off the hot path."""
    return [
        kv_pb2.KeyValue(
            key=k.key,
            value=k.value,
            create_revision=k.create_revision,
            mod_revision=k.mod_revision,
            version=k.version,
            lease=k.lease,
        )
        for k in kvs
    ]
