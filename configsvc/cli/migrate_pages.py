"""Reading two clusters side by side in key order, page by page.

Always true: memory holds one page of each side; pages shrink when values are large.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from configsvc import limits
from configsvc.cli.migrate_ends import Span
from configsvc.client import Client, operations
from configsvc.proto import kv_pb2

_FIRST_PAGE: Final = 100


class Pair(NamedTuple):
    """One key and what each side has for it; at least one side has it."""

    key: bytes
    source: kv_pb2.KeyValue | None
    target: kv_pb2.KeyValue | None


def after(key: bytes) -> bytes:
    """The smallest key that is larger."""
    return key + b"\0"


def rest_of(spans: list[Span], done: bytes) -> list[Span]:
    """What lies behind ``done``; empty ``done`` leaves everything."""
    if not done:
        return spans
    start = after(done)
    left = [(max(key, start), end) for key, end in spans]
    return [(key, end) for key, end in left if end == b"\0" or key < end]


def read(client: Client, span: Span, *, revision: int = 0) -> Iterator[kv_pb2.KeyValue]:
    """All keys of a span in order; revision 0 reads each page as new as it is.

    Raises:
        CompactedError: the revision is gone.
    """
    key, end = span
    limit = _FIRST_PAGE
    while True:
        answer = client.do(operations.range_(key, end, limit=limit, revision=revision))
        yield from answer.kvs
        if not answer.more or not answer.kvs:
            return
        key = after(answer.kvs[-1].key)
        size = max(answer.ByteSize(), 1)
        wanted = len(answer.kvs) * limits.MIGRATE_PAGE_BYTES // size
        limit = max(1, min(limits.MIGRATE_PAGE_KEYS_MAX, wanted))


def merge(source: Iterator[kv_pb2.KeyValue], target: Iterator[kv_pb2.KeyValue]) -> Iterator[Pair]:
    """Join two readings by key."""
    ours, theirs = next(source, None), next(target, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours.key < theirs.key):
            assert ours is not None  # noqa: S101 - for the type checker
            yield Pair(ours.key, ours, None)
            ours = next(source, None)
        elif ours is None or theirs.key < ours.key:
            yield Pair(theirs.key, None, theirs)
            theirs = next(target, None)
        else:
            yield Pair(ours.key, ours, theirs)
            ours, theirs = next(source, None), next(target, None)
