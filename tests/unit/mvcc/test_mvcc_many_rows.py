"""A commit of very many rows does what the same rows do few by few."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.mvcc import store as module
from configsvc.mvcc.messages import DeleteOp, PutOp, RangeOp, TxnOp
from configsvc.mvcc.store import Staged, Store
from configsvc.mvcc.txn import stage_txn
from configsvc.types import KeySpan

LEASES = {7: None, 8: None}
EVERYTHING = KeySpan(b"", None)


def filled(keys: int) -> Store:
    store = Store()
    for number in range(keys):
        op = PutOp(b"/k/%05d" % number, b"v" * (number % 9), 7 if number % 3 else 0)
        store.commit(store.stage_put(op, LEASES))
    return store


def seen(store: Store) -> tuple[Any, ...]:
    window = store.window
    return (
        store.revision,
        list(store.keys),
        store.live,
        store.range(RangeOp(EVERYTHING)),
        (window.total, window.live_bytes),
        store.tail.byte_count,
        store.events_since(2, 10_000),
    )


def twins(monkeypatch: pytest.MonkeyPatch, keys: int, stage: Any) -> None:
    many, few = filled(keys), filled(keys)
    staged: Staged = stage(many)
    assert len(staged.rows) > module._MANY
    moves = many.commit(staged)
    monkeypatch.setattr(module, "_MANY", 1 << 40)
    assert few.commit(staged) == moves
    assert seen(many) == seen(few)
    # The order goes on being one.
    for store in (many, few):
        store.puts([(b"/k/00000", b"again")])
        store.commit(store.stage_delete(DeleteOp(KeySpan(b"/k/00000", b"/k/00002"))))
    assert seen(many) == seen(few)


@pytest.mark.parametrize("keys", [600, 6_000])
def test_a_range_of_keys_goes(monkeypatch: pytest.MonkeyPatch, keys: int) -> None:
    span = KeySpan(b"/k/00100", b"/k/00500")
    twins(monkeypatch, keys, lambda store: store.stage_delete(DeleteOp(span)))


@pytest.mark.parametrize("keys", [600, 6_000])
def test_scattered_keys_go(monkeypatch: pytest.MonkeyPatch, keys: int) -> None:
    def stage(store: Store) -> Staged:
        return store.stage_delete_keys([b"/k/%05d" % n for n in range(0, 600, 2)])

    twins(monkeypatch, keys, stage)


def test_everything_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    twins(monkeypatch, 400, lambda store: store.stage_delete(DeleteOp(EVERYTHING)))


@pytest.mark.parametrize("keys", [600, 6_000])
def test_puts_among_the_deletions(monkeypatch: pytest.MonkeyPatch, keys: int) -> None:
    """New keys, changed ones, and what a nested branch puts again after the deletion."""
    again = TxnOp((), (PutOp(b"/k/00200", b"again", 8), PutOp(b"/k/00100x", b"new")), ())
    op = TxnOp(
        (),
        (
            PutOp(b"/a", b"new"),
            PutOp(b"/k/00001", b"changed", 8),
            DeleteOp(KeySpan(b"/k/00100", b"/k/00500")),
            again,
        ),
        (),
    )
    twins(monkeypatch, keys, lambda store: stage_txn(store, op, LEASES))


def test_the_size_seen_by_clients_is_sampled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = filled(600), filled(600)
    for store, bound in zip(stores, (module._MANY, 1 << 40), strict=True):
        monkeypatch.setattr(module, "_MANY", bound)
        store.commit(store.stage_delete(DeleteOp(EVERYTHING)))
        store.puts([(b"/a", b"1")])
        store.compact(store.revision)
    assert stores[0].db_bytes == stores[1].db_bytes == 64 + 3
