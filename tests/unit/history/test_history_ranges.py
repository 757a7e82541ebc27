"""Reads at old revisions: SQL against the slow model, for every option of a Range."""

from __future__ import annotations

from pathlib import Path

import pytest
from history_world import IDENTITY, World
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.mvcc.messages import RangeOp
from configsvc.storage.history.errors import NotFlushedError
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import KeySpan, span_of

# Few keys, so that they have many versions; hard ones for anything that is not bytewise.
KEYS = st.sampled_from([b"a", b"a\0", b"a%", b"aa", b"b", b"\xff", b"\xff\xff", b"_", b"A"])
VALUES = st.sampled_from([b"", b"x", b"y", b"\0\xff"])
OPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete"]), KEYS, VALUES, st.sampled_from([0, 7, -7])),
    max_size=4,
)
SPANS = st.one_of(
    st.builds(span_of, KEYS, st.one_of(st.just(b""), st.just(b"\0"), KEYS)),
    st.just(KeySpan(b"", None)),
)


@st.composite
def range_ops(draw: st.DrawFn, newest: int) -> RangeOp:
    bound = st.integers(0, newest + 1)
    return RangeOp(
        span=draw(SPANS),
        limit=draw(st.integers(-1, 5)),
        sort_order=draw(st.integers(0, 2)),
        sort_target=draw(st.integers(0, 4)),
        keys_only=draw(st.booleans()),
        count_only=draw(st.integers(0, 4)) == 0,
        min_mod_revision=draw(bound),
        max_mod_revision=draw(bound),
        min_create_revision=draw(bound),
        max_create_revision=draw(bound),
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), commits=st.lists(OPS, min_size=1, max_size=15))
def test_range_agrees_with_the_model(
    data: st.DataObject, commits, template: Path, key_file: KeyFile, tmp_path_factory
) -> None:
    path = tmp_path_factory.mktemp("range") / "history.db"
    path.write_bytes(template.read_bytes())
    path.chmod(0o600)
    world = World()
    history = History.open(path, IDENTITY, key_file, create=False)
    reader = HistoryReader(path, IDENTITY, key_file)
    folds = data.draw(st.sets(st.integers(0, len(commits) - 1)))
    for number, ops in enumerate(commits):
        history.write([world.commit(ops)])
        if number in folds:
            history.checkpoint()
        elif number % 4 == 0:  # the reader's own list of the newest rows goes along
            everything = RangeOp(KeySpan(b"", None), sort_order=1)
            found = reader.range_at(everything, world.revision)
            assert found == world.range(everything, world.revision)
    for _ in range(5):
        revision = data.draw(st.integers(1, world.revision))
        op = data.draw(range_ops(world.revision))
        found, expected = reader.range_at(op, revision), world.range(op, revision)
        if op.sort_target in (0, 3) and op.sort_order != 0:
            assert found == expected
        else:  # ties come in no fixed order, and may fall to either side of the limit
            assert (found.count, found.more, len(found.kvs)) == (
                expected.count,
                expected.more,
                len(expected.kvs),
            )
            field = ("key", "version", "create_revision", "mod_revision", "value")[op.sort_target]
            if not op.keys_only or field != "value":
                order = [getattr(kv, field) for kv in found.kvs]
                assert order == [getattr(kv, field) for kv in expected.kvs]
            everything = world.range(op._replace(limit=0), revision)
            assert set(found.kvs) <= set(everything.kvs)
            assert len(set(found.kvs)) == len(found.kvs)
    reader.close()
    history.abandon()


def test_r4_a_revision_that_is_not_written_yet_is_said_so(history: History, reader) -> None:
    world = World()
    world.put(b"k", b"v")
    history.write(world.effects)
    with pytest.raises(NotFlushedError) as caught:
        reader.range_at(RangeOp(span_of(b"k", b"")), 3)
    assert (caught.value.asked, caught.value.visible) == (3, 2)


def test_the_largest_limit_is_a_limit(history: History, reader) -> None:
    world = World()
    world.put(b"/a", b"1")
    history.write(world.effects)
    found = reader.range_at(RangeOp(span_of(b"/", b"0"), limit=2**63 - 1), world.revision)
    assert [kv.key for kv in found.kvs] == [b"/a"]


def test_r11_without_an_order_the_limit_comes_first(history: History, reader) -> None:
    world = World()
    for key, value in ((b"a", b"9"), (b"b", b"8"), (b"c", b"1")):
        world.put(key, value)
    history.write(world.effects)
    op = RangeOp(KeySpan(b"", None), limit=1, sort_target=4)
    result = reader.range_at(op, world.revision)
    assert [kv.key for kv in result.kvs] == [b"b"]  # a and b are taken, b sorts first
    assert (result.count, result.more) == (3, True)


@pytest.mark.parametrize("folded", [True, False])
def test_a_hot_key_costs_no_more_than_a_quiet_one(history: History, reader, folded: bool) -> None:
    """The key list seeks from key to key; it does not walk the versions in between."""
    world = World()
    world.put(b"hot", b"0")
    for _ in range(3_000):
        world.effects.append(_next_put(world))
    world.put(b"quiet", b"1")
    history.write(world.effects)
    if folded:
        history.checkpoint()
    reader.range_at(RangeOp(KeySpan(b"", None)), world.revision)  # lists what is not folded, once
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with reader.transaction() as (connection, _session):
        connection.connection.set_progress_handler(count, 10)
    reader.range_at(RangeOp(KeySpan(b"", None)), world.revision)
    assert steps < 90  # nine hundred instructions for two keys


def _next_put(world: World):
    """A put of ``hot`` without the model's walk through all its rows."""
    last = world.effects[-1]
    old = last.rows[-1]
    world.index, world.revision = world.index + 1, world.revision + 1
    row = old._replace(revision=world.revision, version=old.version + 1)
    commit = last.commit._replace(
        seq=world.seq, raft_index=world.index, revision=world.revision, time_ns=world.time_ns + 1
    )
    world.time_ns += 1
    world.seq += 1
    return last._replace(index=world.index, revision=world.revision, rows=(row,), commit=commit)


def test_fc9_a_broken_row_is_an_error_and_never_an_empty_value(history: History, reader) -> None:
    world = World()
    world.put(b"k", b"v")
    history.write(world.effects)
    with history._connection.begin():
        history._connection.exec_driver_sql("UPDATE revisions SET value = zeroblob(29)")
    with pytest.raises(SealBroken):
        reader.range_at(RangeOp(span_of(b"k", b"")), 2)
    # Counting reads no value.
    assert reader.range_at(RangeOp(span_of(b"k", b""), count_only=True), 2).count == 1
