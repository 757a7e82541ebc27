"""KV against etcd: ranges, puts, deletes, transactions, compaction, each with its errors."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.support.etcd_cases import Step, call, compare

HUGE = 2**63 - 1
LONG_KEY = "a key has at most 2048 bytes, for every SQL database must index it"
TOTAL = "a transaction has at most 128 operations in total and a depth of 4"
NO_LEASE = "keys_only leaves the lease out, as newer servers do (R8)"

KEYS = (b"", b"\0", b"a", b"b", b"absent", b"p/", b"\xff")
ENDS = (b"", b"\0", b"a", b"c", b"p0", b"\xff\xff")
RANGE_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"limit": 1},
    {"count_only": True},
    {"revision": 3},
)
WHOLE: dict[str, Any] = {"key": b"\0", "range_end": b"\0"}


def filled() -> list[Step]:
    """Keys with different versions, revisions and values; one deleted, one with a lease."""
    puts = [(b"a", b"3"), (b"b", b"1"), (b"c", b"2"), (b"a", b"4"), (b"d", b"x"), (b"p/1", b""),
            (b"p/2", b"v" * 3000), (b"\xff", b"top"), (b"b", b"1"), (b"gone", b"g")]  # fmt: skip
    return [
        call("KV.Range", "empty store", **WHOLE),
        *(call("KV.Put", f"fill {n}", key=k, value=v) for n, (k, v) in enumerate(puts)),
        call("KV.DeleteRange", "fill", key=b"gone"),
        call("Lease.LeaseGrant", "fill", ID=77, TTL=600),
        call("KV.Put", "fill with lease", key=b"p/3", value=b"l", lease=77),
    ]


def ranges() -> list[Step]:
    """No sort target outside the enum: 3.4.23 panics on one, and ours refuses it (R12)."""
    steps = [
        call("KV.Range", key=key, range_end=end, **options)
        for key, end, options in product(KEYS, ENDS, RANGE_OPTIONS)
    ]
    revisions, limits = (-1, 0, 1, 2, 7, HUGE, -HUGE), (-1, 0, 2, 100, HUGE)
    steps += [call("KV.Range", **WHOLE, revision=revision) for revision in revisions]
    steps += [call("KV.Range", **WHOLE, limit=limit) for limit in limits]
    steps.append(call("KV.Range", **WHOLE, serializable=True))
    steps.append(call("KV.Range", "keys_only", key=b"a", range_end=b"e", keys_only=True))
    steps.append(call("KV.Range", "keys_only lease", differs=NO_LEASE, key=b"p/3", keys_only=True))
    for bound in ("min_mod_revision", "max_mod_revision", "min_create_revision",
                  "max_create_revision"):  # fmt: skip
        steps += [call("KV.Range", **WHOLE, **{bound: value}) for value in (-5, 1, 5, HUGE)]
        steps.append(call("KV.Range", **WHOLE, **{bound: 5}, limit=2))
    for target, order, limit in product(range(5), range(3), (0, 1, 3)):
        steps.append(call("KV.Range", **WHOLE, sort_target=target, sort_order=order, limit=limit))
    return steps


def puts() -> list[Step]:
    put: list[dict[str, Any]] = [
        {"key": b""},
        {"key": b"", "value": b"v"},
        {"key": b"new"},
        {"key": b"new", "value": b"1", "prev_kv": True},
        {"key": b"new", "value": b"1", "prev_kv": True},
        {"key": b"fresh", "value": b"1", "prev_kv": True},
        {"key": b"new", "ignore_value": True},
        {"key": b"new", "ignore_value": True, "value": b"x"},
        {"key": b"none", "ignore_value": True},
        {"key": b"new", "ignore_lease": True, "value": b"2"},
        {"key": b"new", "ignore_lease": True, "lease": 5},
        {"key": b"none", "ignore_lease": True},
        {"key": b"new", "lease": 77, "value": b"3"},
        {"key": b"new", "ignore_lease": True, "value": b"4"},
        {"key": b"new", "ignore_lease": True, "ignore_value": True, "prev_kv": True},
        {"key": b"new", "lease": 404},
        {"key": b"new", "lease": -1},
        {"key": b"none", "ignore_value": True, "lease": 404},
        {"key": b"new", "value": b"5"},
        {"key": b"\0"},
        {"key": b"k" * 2048, "value": b"long"},
        {"key": b"large", "value": b"x" * 1_500_000},
        {"key": b"large", "value": b"x" * 1_600_000},
        {"key": b"large", "value": b"x" * 2_000_000},
    ]
    steps = []
    for fields in put:
        steps.append(call("KV.Put", **fields))
        steps.append(call("KV.Range", "after", key=fields["key"] or b"new"))
    steps.append(call("Lease.LeaseTimeToLive", "detached", ID=77, keys=True))
    steps.append(call("KV.DeleteRange", key=b"large"))
    return steps


def deletes() -> list[Step]:
    steps = []
    for key, end, prev in product((b"", b"x1", b"x2", b"none"), (b"", b"\0", b"a", b"x3"),
                                  (False, True)):  # fmt: skip
        steps += [call("KV.Put", f"before delete {x!r}", key=x, value=x) for x in (b"x1", b"x2")]
        steps.append(call("KV.DeleteRange", key=key, range_end=end, prev_kv=prev))
    return [*steps, *filled()[1:-2]]


def compares() -> list[Step]:
    """Each target and result on keys there, absent and many, with values below, at and above."""
    steps = []
    numbers = {"version": (0, 1, 2, 9), "create_revision": (0, 2, HUGE), "mod_revision": (-1, 0, 5),
               "lease": (0, 77)}  # fmt: skip
    targets = {"version": 0, "create_revision": 1, "mod_revision": 2, "lease": 4}
    for target, values in numbers.items():
        for value, result, key in product(values, range(4), (b"a", b"absent")):
            steps.append(_compared(key=key, target=targets[target], result=result,
                                   **{target: value}))  # fmt: skip
    for value, result, key in product((b"", b"3", b"4", b"5"), range(4), (b"a", b"absent")):
        steps.append(_compared(key=key, target=3, result=result, value=value))
    for end, result in product((b"e", b"\0", b"a", b"aa"), range(4)):
        steps.append(_compared(key=b"a", range_end=end, target=0, result=result, version=1))
    steps += [
        _compared(key=b"", target=0),
        _compared(key=b"a", target=0),
        _compared(key=b"a", target=3),
        _compared(key=b"a", target=0, version=1, result=7),
        _compared(key=b"absent", target=3, value=b"x", result=7),
        call("KV.Txn", "two compares", compare=[
            {"key": b"a", "target": 0, "result": 3, "version": 0}, {"key": b"absent", "target": 0},
        ]),
    ]  # fmt: skip
    return steps


def _compared(**compare: Any) -> Step:
    text = ",".join(f"{k}={v!r}" for k, v in compare.items())
    return call("KV.Txn", f"compare {text}", compare=[compare],
                success=[{"request_range": {"key": b"b"}}])  # fmt: skip


def put(key: bytes, value: bytes = b"t", **more: Any) -> dict[str, Any]:
    return {"request_put": {"key": key, "value": value, **more}}


def get(key: bytes, end: bytes = b"", **more: Any) -> dict[str, Any]:
    return {"request_range": {"key": key, "range_end": end, **more}}


def delete(key: bytes, end: bytes = b"", **more: Any) -> dict[str, Any]:
    return {"request_delete_range": {"key": key, "range_end": end, **more}}


def txn(**fields: Any) -> dict[str, Any]:
    return {"request_txn": fields}


HUNDRED = [put(b"m%03d" % n) for n in range(100)]
DEEP = txn(success=[txn(success=[txn(success=[txn(success=[])])])])
FALSE = [{"key": b"absent", "target": 0, "result": 1, "version": 0}]
BRANCHES: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "put": [put(b"t1")],
    "put prev": [put(b"t1", b"again", prev_kv=True)],
    "put put": [put(b"t1"), put(b"t2")],
    "same key twice": [put(b"t1"), put(b"t1", b"2")],
    "put then covered by delete": [put(b"t1"), delete(b"t0", b"t9")],
    "delete then put": [delete(b"t1"), put(b"t1")],
    "delete twice": [delete(b"t1"), delete(b"t0", b"t9")],
    "delete nothing": [delete(b"never")],
    "put get delete": [put(b"t3"), get(b"t3"), delete(b"t4"), get(b"t3")],
    "delete open-ended, put": [put(b"zz"), delete(b"zy", b"\0")],
    "get absent": [get(b"never")],
    "get past": [get(b"a", revision=3)],
    "get future": [get(b"a", revision=10**9)],
    "get negative": [get(b"a", revision=-1)],
    "get very negative": [get(b"a", revision=-2)],
    "get serializable": [get(b"a", serializable=True)],
    "get sorted": [get(b"a", b"e", sort_target=4, sort_order=2, limit=2)],
    "get counted": [get(b"\0", b"\0", count_only=True)],
    "empty key put": [put(b"")],
    "empty key get": [get(b"")],
    "empty key delete": [delete(b"")],
    "no request": [{}],
    "lease unknown": [put(b"t1", lease=404)],
    "lease": [put(b"t1", lease=77)],
    "ignore value": [put(b"t1", b"", ignore_value=True)],
    "ignore value of none": [put(b"nn", b"", ignore_value=True)],
    "ignore value with value": [put(b"t1", b"x", ignore_value=True)],
    "ignore lease of none": [put(b"nn", ignore_lease=True)],
    "nested": [txn(success=[put(b"n1"), get(b"n1")], failure=[put(b"n2")])],
    "nested false": [txn(compare=FALSE, success=[put(b"n1")], failure=[delete(b"n1")])],
    "nested sees before": [put(b"n3"), txn(compare=[{"key": b"n3", "target": 0, "result": 0}],
                                           success=[get(b"n3")], failure=[put(b"n4")])],
    "nested thrice": [txn(success=[txn(success=[txn(success=[put(b"n5")])])])],
    "nested puts its parent's": [put(b"n6"), txn(success=[put(b"n6")])],
    "nested both branches": [txn(success=[put(b"n7")], failure=[put(b"n7")])],
    "nested put, nested delete": [txn(success=[put(b"n8")]), txn(success=[delete(b"n8")])],
    "nested delete, nested put": [txn(success=[delete(b"n8")]), txn(success=[put(b"n8")])],
    "nested empty": [txn()],
    "nested error": [put(b"n9"), txn(success=[put(b"")])],
    "128 puts": [put(b"m%03d" % n) for n in range(128)],
    "129 puts": [put(b"m%03d" % n) for n in range(129)],
    "nested over budget": [txn(success=[put(b"o%d" % n) for n in range(128)])],
    "nested within budget": [txn(success=[put(b"o%d" % n) for n in range(127)])],
}  # fmt: skip


def txns() -> list[Step]:
    steps = []
    for name, ops in BRANCHES.items():
        steps.append(call("KV.Txn", f"then {name}", success=ops))
        steps.append(call("KV.Txn", f"else {name}", compare=FALSE, failure=ops, success=[]))
        steps.append(call("KV.Txn", f"not taken {name}", compare=FALSE, success=ops))
        steps.append(call("KV.Range", f"after {name}", key=b"m", range_end=b"u"))
    many = [{"key": b"a", "target": 0, "result": 3}] * 129
    steps.append(call("KV.Txn", "129 compares", compare=many))
    return steps


def compactions() -> list[Step]:
    return [
        call("KV.Compact", revision=0),
        call("KV.Compact", "again", revision=0),
        *(call("KV.Compact", revision=r) for r in (-1, -HUGE, 10**9, 6, 6, 5)),
        *(call("KV.Range", "compacted", **WHOLE, revision=r) for r in (1, 5, 6, 7, 0, -1)),
        *(call("KV.Txn", f"range at {r}", success=[get(b"a", revision=r)]) for r in (-1, 5, 6)),
        call("KV.Compact", "physical", revision=9, physical=True),
        call("KV.Compact", "physical again", revision=9, physical=True),
        call("KV.Put", "after compaction", key=b"a", value=b"z", prev_kv=True),
        call("KV.Range", "after compaction", **WHOLE),
        # Last, since only etcd's revision grows.
        call("KV.Txn", "100 and 100", differs=TOTAL, success=HUNDRED, failure=HUNDRED),
        call("KV.Txn", "depth 5", differs=TOTAL, success=[DEEP]),
        call("KV.Range", "long key", differs=LONG_KEY, key=b"k" * 2049),
        call("KV.DeleteRange", "long key", differs=LONG_KEY, key=b"k" * 2049),
        call("KV.Put", "long key", differs=LONG_KEY, key=b"k" * 2049),
    ]


SCRIPT = [*filled(), *ranges(), *compares(), *puts(), *deletes(), *txns(), *compactions()]


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_kv_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
