"""Watch against etcd: conversations on one stream, message by message."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.support.etcd_cases import Step, call, compare, watch

PROGRESS = "a progress request is answered only once it means something (W24)"
NEGATIVE = "a negative start revision is refused as compacted, as newer servers do (W9)"


def create(key: bytes = b"k", end: bytes = b"", **more: Any) -> tuple[str, dict[str, Any]]:
    return "send", {"create_request": {"key": key, "range_end": end, **more}}


def cancel(number: int) -> tuple[str, dict[str, Any]]:
    return "send", {"cancel_request": {"watch_id": number}}


def put(key: bytes = b"k", value: bytes = b"v", **more: Any) -> tuple[str, str, dict[str, Any]]:
    return "call", "KV.Put", {"key": key, "value": value, **more}


def delete(key: bytes = b"k", end: bytes = b"") -> tuple[str, str, dict[str, Any]]:
    return "call", "KV.DeleteRange", {"key": key, "range_end": end}


TXN = ("call", "KV.Txn", {"success": [
    {"request_put": {"key": b"k", "value": b"1"}}, {"request_put": {"key": b"k2", "value": b"2"}},
    {"request_delete_range": {"key": b"k1"}}, {"request_delete_range": {"key": b"never"}},
]})  # fmt: skip
PROGRESS_REQUEST = ("send", {"progress_request": {}})
RECV, QUIET = ("recv", 1), ("quiet",)


def live() -> list[Step]:
    steps = []
    for prev, filters, end in product((False, True), ((), (0,), (1,), (0, 1), (7,)), (b"", b"l")):
        # What each filter lets through: two puts and two deletes of one key.
        expected = (0 if 0 in filters else 2) + (0 if 1 in filters else 2)
        moves = [put(), delete(), put(), delete()]
        steps.append(
            watch(
                f"live prev={prev} filters={filters} end={end!r}",
                create(end=end, prev_kv=prev, filters=list(filters)),
                RECV,
                *moves,
                ("recv", expected),
                QUIET,
            )
        )
    return steps


def conversations() -> list[Step]:
    return [
        watch("txn in one message", put(b"k1"), create(end=b"l"), RECV, TXN, RECV, QUIET),
        watch("txn with prev", put(b"k1"), create(end=b"l", prev_kv=True), RECV, TXN, RECV),
        watch("one key of a txn", create(b"k2"), RECV, TXN, RECV, QUIET),
        watch("empty key is \\0", create(b""), RECV, put(b"\0"), put(b"k"), RECV, QUIET),
        watch("everything", create(b"\0", b"\0"), RECV, put(b"\0"), RECV, put(b"k"), RECV, QUIET),
        watch("empty range", create(b"k", b"a"), RECV, create(), RECV),
        watch("empty range, same", create(b"k", b"k"), RECV),
        watch("own id", create(watch_id=7), RECV, put(), RECV, cancel(7), RECV, QUIET),
        watch("own id twice", create(watch_id=7), RECV, create(watch_id=7), RECV, put(), RECV),
        watch("negative id", create(watch_id=-9), RECV, put(), RECV, cancel(-9), RECV),
        watch("counting ids", create(), RECV, create(), RECV, create(watch_id=2), RECV, create(),
              RECV, cancel(1), RECV, create(), RECV),
        watch("cancel unknown", create(), RECV, cancel(55), QUIET, put(), RECV),
        watch("cancel twice", create(), RECV, cancel(0), RECV, cancel(0), QUIET, put(), QUIET),
        watch("nothing asked", ("send", {}), QUIET, create(), RECV),
        watch("half close goes on", create(), RECV, ("half_close",), QUIET, put(), RECV),
        watch("same value", put(b"k", b"s"), create(), RECV, put(b"k", b"s"), RECV),
        watch("delete of nothing", create(b"nothing"), RECV, delete(b"nothing"), QUIET),
        watch("lease revoke", ("call", "Lease.LeaseGrant", {"ID": 5, "TTL": 600}),
              put(b"kb", lease=5), put(b"ka", lease=5), create(b"k", b"l", prev_kv=True), RECV,
              ("call", "Lease.LeaseRevoke", {"ID": 5}), RECV, QUIET),
        watch("two watchers", create(b"k"), RECV, create(b"j"), RECV, put(b"k"), RECV, put(b"j"),
              RECV, QUIET),
        watch("progress", create(), RECV, PROGRESS_REQUEST, RECV, put(), RECV, PROGRESS_REQUEST,
              RECV),
        watch("progress without watchers", PROGRESS_REQUEST, QUIET, differs=PROGRESS),
        watch("progress before a future start", create(start_revision=10**6), RECV,
              PROGRESS_REQUEST, QUIET, differs=PROGRESS),
        watch("fragment", create(fragment=True), RECV, put(), RECV),
        watch("progress asked for", create(progress_notify=True), RECV, put(), RECV, QUIET),
    ]  # fmt: skip


def history() -> list[Step]:
    steps: list[Step] = [call("KV.Put", "history", key=b"h", value=b"%d" % n) for n in range(4)]
    steps += [call("KV.DeleteRange", "history", key=b"h"), call("KV.Put", "last", key=b"h")]
    revision = REVISION_AFTER_HISTORY
    for back, prev in product((0, 1, 2, 5), (False, True)):
        steps.append(
            watch(f"from {back} back, prev={prev}",
                  create(b"h", start_revision=revision - back, prev_kv=prev), ("recv", 2), QUIET)
        )  # fmt: skip
    steps += [
        watch("from the next", create(b"h", start_revision=revision + 1), RECV, put(b"h"), RECV),
        watch("from the one after", create(b"h", start_revision=revision + 3), RECV, put(b"h"),
              QUIET, put(b"h"), RECV),
        watch("from far off", create(b"h", start_revision=2**62), RECV, put(b"h"), QUIET),
        watch("deletes of the past", create(b"h", start_revision=1, filters=[0]), ("recv", 2),
              QUIET),
        watch("from before everything", create(b"none", start_revision=1), RECV, QUIET),
    ]  # fmt: skip
    return steps


def compacted() -> list[Step]:
    floor = REVISION_AFTER_HISTORY - 1
    return [
        call("KV.Compact", revision=floor, physical=True),
        *(
            watch(f"compacted start {start}", create(b"h", start_revision=start), ("recv", 2),
                  cancel(0), RECV, QUIET)
            for start in (1, floor - 1)
        ),
        watch("start at the floor", create(b"none", start_revision=floor), RECV, QUIET),
        watch("start above the floor, prev", create(b"h", start_revision=floor + 1, prev_kv=True),
              ("recv", 2)),
        watch("negative start", create(b"h", start_revision=-1), RECV, QUIET, differs=NEGATIVE),
    ]  # fmt: skip


REVISION_AFTER_HISTORY = 7
# History first, so that its revisions are known here.
SCRIPT = [*history(), *live(), *conversations(), *compacted()]


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_watch_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
