"""What the store counts, told from what it was asked to do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from configsvc.mvcc.messages import DeleteOp, PutOp, RangeOp, RequestOp, TxnOp
from configsvc.mvcc.store import Store
from configsvc.mvcc.txn import stage_txn
from configsvc.types import KeySpan

ALL = KeySpan(b"", None)


def put_of(key: bytes) -> PutOp:
    return PutOp(key, b"v", 0, False, False, False)


def figures(store: Store) -> tuple[int, int, int, int]:
    tally = store.tally
    return tally.puts(store.revision), tally.deletes, tally.ranges, tally.txns


STEPS = {
    "plain": (1, 0, 0, 0),
    "staged": (1, 0, 0, 0),
    "delete": (0, 1, 0, 0),
    "range": (0, 0, 1, 0),
    "revoke": (0, 0, 0, 0),  # and what hung on the lease
    "txn of one": (1, 0, 0, 0),
    "txn of three": (1, 1, 1, 1),
    "many": (300, 1, 0, 1),
    "adopt": (0, 0, 0, 0),
}


def take(store: Store, step: str) -> tuple[int, int, int, int]:
    """Do a step; what it should add."""
    puts, deletes, ranges, txns = STEPS[step]
    if step == "plain":
        store.puts([(b"a", b"v")])
    elif step == "staged":
        store.commit(store.stage_put(put_of(b"b"), ()))
    elif step == "delete":
        store.commit(store.stage_delete(DeleteOp(ALL)))
    elif step == "range":
        store.range(RangeOp(ALL))
    elif step == "revoke":
        keys = list(store.iter_keys(ALL))
        store.commit(store.stage_delete_keys(keys))
        deletes, txns = len(keys), int(len(keys) > 1)
    elif step == "adopt":
        store.load((), store.revision + 40, -1)
    else:
        choices: dict[str, tuple[RequestOp, ...]] = {
            "txn of one": (put_of(b"c"),),
            "txn of three": (RangeOp(ALL), DeleteOp(KeySpan(b"a", b"b")), put_of(b"d")),
            "many": (DeleteOp(ALL), *(put_of(b"%d" % n) for n in range(300))),
        }
        store.commit(stage_txn(store, TxnOp((), choices[step], ()), ()))
    return puts, deletes, ranges, txns


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_every_operation_counts_once(steps: list[str]) -> None:
    store = Store()
    expected = (0, 0, 0, 0)
    for step in steps:
        added = take(store, step)
        expected = tuple(map(sum, zip(expected, added, strict=True)))  # type: ignore[assignment]
        assert figures(store) == expected, step
