"""Events, logs, blame, differences, times and hashes."""

from __future__ import annotations

import pytest
from history_world import World, as_kv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configsvc.apply.commands import Effects
from configsvc.mvcc.messages import Event
from configsvc.storage.history import questions, scans
from configsvc.storage.history.errors import NotFlushedError
from configsvc.storage.history.store import History
from configsvc.types import KeySpan, span_of

EVERYTHING = KeySpan(b"", None)


def events_of(world: World, span: KeySpan, low: int, high: int) -> list[tuple[int, list[Event]]]:
    """What a watcher of ``span`` must see, by the model."""
    groups: dict[int, list[Event]] = {}
    for row in world.rows:
        if low <= row.revision <= high and span.holds(row.key):
            before = world.live(row.revision - 1).get(row.key)
            prev = None if before is None else as_kv(before)
            groups.setdefault(row.revision, []).append(Event(row, prev))
    return sorted(groups.items())


def half_folded(history: History, effects: list[Effects]) -> None:
    """Write so that one half of the rows is in the key index, and the other is not yet."""
    middle = len(effects) // 2
    history.write(effects[:middle])
    history.checkpoint()
    history.write(effects[middle:])


def busy_world() -> World:
    world = World()
    for number in range(30):
        world.put(b"/app/%d" % (number % 4), b"v%d" % number)
        if number % 5 == 0:
            world.delete(b"/app/0", b"/app/1")
        if number % 7 == 0:
            world.commit([("put", b"/db/x", b"%d" % number, 0), ("put", b"/db/y", b"", 0)])
            world.commit([])  # changes nothing, has a leaf
        world.bookkeeping()
    return world


SPANS = [
    span_of(b"/app/1", b""),
    span_of(b"/app/", b"/app0"),
    span_of(b"/db/", b"/db0"),
    EVERYTHING,
    span_of(b"/nothing", b""),
]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("plan", [0, 1_000])
def test_events_agree_with_the_model(
    history: History, reader, span, plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "HISTORY_PLAN_ROWS_MAX", plan)  # either way to the rows
    world = busy_world()
    half_folded(history, world.effects)
    for low, high in ((0, world.revision), (5, 17), (world.revision, world.revision + 9), (9, 3)):
        page = reader.events(span, low, high, 10_000)
        assert page.groups == events_of(world, span, low, high)
        assert page.through == max(min(high, world.revision), low - 1)


def test_pages_of_events_join_without_gap_or_overlap(history: History, reader) -> None:
    world = busy_world()
    half_folded(history, world.effects)
    groups, at = [], 1
    while at <= world.revision:
        page = reader.events(EVERYTHING, at, world.revision, 3)
        assert len(page.groups) <= 3
        assert page.through >= at
        groups += page.groups
        at = page.through + 1
    assert groups == events_of(world, EVERYTHING, 0, world.revision)


def test_a_page_of_events_is_bounded_in_bytes(
    history: History, reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "HISTORY_EVENTS_BYTES_MAX", 1_000)
    world = World()
    for _ in range(10):
        world.put(b"k", bytes(600))
    half_folded(history, world.effects)
    page = reader.events(None, 1, 11, 100, with_previous=False)
    assert [revision for revision, _ in page.groups] == [2, 3]
    assert page.through == 3
    assert all(event.prev is None for _, events in page.groups for event in events)


def test_a_key_changed_twice_in_one_revision_keeps_the_value_before_it(history, reader) -> None:
    world = World()
    world.put(b"k", b"old")
    world.commit([("put", b"k", b"one", 0), ("delete", b"k", b"", 0), ("put", b"k", b"two", 0)])
    world.put(b"k", b"new")
    half_folded(history, world.effects)
    page = reader.events(span_of(b"k", b""), 3, 4, 10)
    ((_, first), (_, second)) = page.groups
    assert [event.prev.value for event in first] == [b"old"] * 3
    assert [event.prev.value for event in second] == [b"two"]


# --- the log of a key -----------------------------------------------------------------------------


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_log_has_every_change_with_its_author(history, reader, span, newest_first) -> None:
    world = busy_world()
    half_folded(history, world.effects)
    page = reader.key_history(span, newest_first=newest_first)
    expected = [row for row in world.rows if span.holds(row.key)]
    assert [entry.row for entry in page.rows] == (expected[::-1] if newest_first else expected)
    assert not page.more
    by_revision = {e.revision: e for e in reversed(world.effects) if e.commit is not None}
    for entry in page.rows:
        effect = by_revision[entry.row.revision]
        assert entry.commit.seq == effect.commit.seq
        assert entry.commit.leaf == effect.leaf
        assert entry.opening == (
            effect.commit.salt,
            effect.commit.reason,
            effect.commit.ticket,
            effect.commit.changes,
        )


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_of_a_log_join(history, reader, newest_first) -> None:
    world = busy_world()
    half_folded(history, world.effects)
    span = span_of(b"/", b"0")
    rows, before, after = [], 0, 0
    while True:
        page = reader.key_history(
            span, limit=4, before=before, after=after, newest_first=newest_first
        )
        rows += [entry.row for entry in page.rows]
        if not page.more:
            break
        edge = page.rows[-1].row.revision
        before, after = (edge, after) if newest_first else (before, edge)
    assert rows == (world.rows[::-1] if newest_first else world.rows)


def test_an_actor_is_named_once_and_found_everywhere(history, reader) -> None:
    world = World()
    world.commit([("put", b"k", b"1", 0)], actor=b"A" * 32)
    world.put(b"k", b"2")  # by another, whose record is gone
    half_folded(history, world.effects)
    newest, oldest = reader.key_history(span_of(b"k", b"")).rows
    assert oldest.actor.record == b"record of " + b"A" * 32
    assert newest.actor is None


def test_an_erased_opening_leaves_the_rest(history, reader) -> None:
    world = World()
    world.put(b"k", b"1")
    half_folded(history, world.effects)
    with history._connection.begin():
        history._connection.exec_driver_sql("DELETE FROM openings")
    (entry,) = reader.key_history(span_of(b"k", b"")).rows
    assert entry.opening is None
    assert entry.row.value == b"1"


def test_blame_names_the_last_change_of_each_living_key(history, reader) -> None:
    world = busy_world()
    half_folded(history, world.effects)
    for revision in (5, 17, 0):
        page = reader.blame(EVERYTHING, revision=revision)
        expected = list(world.live(revision or None).values())
        assert [entry.row for entry in page.rows] == expected
    assert reader.blame(EVERYTHING, limit=2).more
    with pytest.raises(NotFlushedError):
        reader.blame(EVERYTHING, revision=world.revision + 1)


def test_diff_agrees_with_the_model(history, reader) -> None:
    world = busy_world()
    half_folded(history, world.effects)
    for older, newer in ((1, world.revision), (7, 20), (12, 13), (9, 9)):
        before, after = world.live(older), world.live(newer)
        expected = []
        for key in sorted(before.keys() | after.keys()):
            pair = tuple(as_kv(side[key]) if key in side else None for side in (before, after))
            if pair[0] != pair[1]:
                expected.append((key, *pair))
        assert reader.diff(EVERYTHING, older, newer) == expected


def test_at_time_finds_the_newest_revision_not_later(history, reader) -> None:
    world = busy_world()
    assert reader.at_time(10**18) == 1
    half_folded(history, world.effects)
    commits = [effect.commit for effect in world.effects if effect.commit]
    for commit in commits:
        assert reader.at_time(commit.time_ns) == commit.revision
        assert reader.at_time(commit.time_ns + 1) == commit.revision
    assert reader.at_time(commits[0].time_ns - 1) == 1
    assert reader.at_time(2**62) == world.revision


# --- hashes ---------------------------------------------------------------------------------------


def test_hash_kv_is_of_the_clear_bytes_alone(history, reader, template, key_file) -> None:
    """Two members with other seeds and other batches agree; a changed value does not."""
    from history_world import IDENTITY

    from configsvc.storage.history.reader import HistoryReader

    world = busy_world()
    half_folded(history, world.effects)
    path = history.path.with_name("other.db")
    path.write_bytes(template.read_bytes())
    path.chmod(0o600)
    other = History.open(path, IDENTITY, key_file, create=False)
    for effect in world.effects:
        other.write([effect])
    twin = HistoryReader(path, IDENTITY, key_file)
    newest = world.revision
    whole = reader.hash_kv(newest, 0)
    assert twin.hash_kv(newest, 0) == whole == reader.hash_kv(newest, -1)
    assert twin.hash_kv(newest, 9) == reader.hash_kv(newest, 9) != whole
    assert reader.hash_kv(newest - 1, 0) != whole
    twin.close()
    other.abandon()


OPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete"]),
        st.sampled_from([b"a", b"b", b"c"]),
        st.sampled_from([b"", b"1"]),
        st.just(0),
    ),
    min_size=1,
    max_size=3,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(commits=st.lists(OPS, min_size=2, max_size=8), data=st.data())
def test_hash_kv_forgets_what_compaction_drops(
    commits, data, template, key_file, tmp_path_factory
) -> None:
    """What was overwritten at or below the compaction does not count; what lives there does."""
    from history_world import IDENTITY

    from configsvc.storage.history.reader import HistoryReader

    world = World()
    for ops in commits:
        world.commit(ops)
    floor = data.draw(st.integers(1, world.revision))
    path = tmp_path_factory.mktemp("hash") / "history.db"
    path.write_bytes(template.read_bytes())
    path.chmod(0o600)
    history = History.open(path, IDENTITY, key_file, create=False)
    half_folded(history, world.effects)
    reader = HistoryReader(path, IDENTITY, key_file)
    kept = [row for row in world.rows if row.revision > floor or row in world.live(floor).values()]
    below = sorted((row for row in kept if row.revision <= floor), key=lambda row: row.key)
    above = [row for row in kept if row.revision > floor]
    expected = questions._extend(0, [*below, *above])
    assert reader.hash_kv(world.revision, floor) == expected
    reader.close()
    history.abandon()


# --- stream M -------------------------------------------------------------------------------------


def test_commits_leaves_and_entries_are_read_in_slices(history, reader) -> None:
    world = World()
    for number in range(600):
        world.commit([("put", b"k%d" % number, b"v", 0)] if number % 3 else [])
    world.bookkeeping()
    half_folded(history, world.effects)
    commits = [effect.commit for effect in world.effects if effect.commit]
    assert [c.seq for c in reader.commits(10, 20)] == list(range(10, 20))
    assert list(reader.leaves(590, 9_999)) == [(s, b"leaf %d" % s) for s in range(590, 600)]
    entries = list(reader.verify_entries(0, 10_000))
    assert [entry.seq for entry in entries] == [commit.seq for commit in commits]
    rows = {row.revision: row for row in world.rows}
    for entry, commit in zip(entries, commits, strict=True):
        assert entry.changes == commit.changes
        assert entry.opening == (commit.salt, commit.reason, commit.ticket)
        assert [row.revision for row in entry.rows] == ([commit.revision] if commit.seq % 3 else [])
        assert all(row.value == rows[row.revision].value for row in entry.rows)
        assert entry.columns.time_ns == commit.time_ns


def test_a_row_that_no_commit_knows_is_shown_to_the_verifier(history, reader) -> None:
    """Rows go to leaves by revision: one put in by hand turns up with some leaf."""
    world = World()
    for number in range(300):
        world.commit([("put", b"k", b"%d" % number, 0)] if number != 255 else [])
    stray = world.rows[-1]._replace(revision=world.revision + 5)
    late = world.effects[-1]._replace(rows=(*world.effects[-1].rows, stray))
    between = world.rows[100]._replace(sub=7)
    early = world.effects[100]._replace(rows=(*world.effects[100].rows, between))
    history.write([*world.effects[:100], early, *world.effects[101:-1], late])
    entries = list(reader.verify_entries(0, 300))
    assert sum(len(entry.rows) for entry in entries) == len(world.rows) + 2
    assert [row.sub for row in entries[100].rows] == [0, 7]
    assert entries[-1].rows[-1].revision == stray.revision
