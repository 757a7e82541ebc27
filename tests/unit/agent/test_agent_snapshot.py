"""Snapshots: changes in order, bounds, and what a list tells about lost events."""

from __future__ import annotations

from configagent.snapshot import Change, Entry, Snapshot
from hypothesis import given
from hypothesis import strategies as st

KEYS = ("/a", "/b", "/c")
writes = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=12)


def events(story: list[tuple[str, bool]]) -> list[tuple[int, Change]]:
    """Revision and change; a delete of nothing is left out, as the store does."""
    found: list[tuple[int, Change]] = []
    there: set[str] = set()
    for key, put in story:
        if not put and key not in there:
            continue
        revision = len(found) + 2
        there = there | {key} if put else there - {key}
        entry = Entry(str(revision).encode(), revision) if put else None
        found.append((revision, Change(key, entry)))
    return found


def applied(some: list[tuple[int, Change]], revision: int = 1) -> Snapshot:
    snapshot = Snapshot(revision)
    for at, change in some:
        snapshot = snapshot.after([change], at)
    return snapshot


@given(writes, st.integers(0, 12))
def test_a_stream_that_is_only_behind_has_lost_nothing(
    story: list[tuple[str, bool]], seen: int
) -> None:
    """Every doubt lies ahead of what was seen, so that waiting is right."""
    all_of_them = events(story)
    listed = applied(all_of_them)
    behind = applied(all_of_them[:seen])
    assert all(since > behind.revision for since in behind.doubts(listed).values())
    assert applied(all_of_them).doubts(listed) == {}


@given(writes, st.integers(0, 11))
def test_a_lost_event_that_still_matters_is_a_doubt(
    story: list[tuple[str, bool]], lost: int
) -> None:
    all_of_them = events(story)
    kept = [one for place, one in enumerate(all_of_them) if place != lost]
    listed = applied(all_of_them)
    snapshot = applied(kept)
    wrong = snapshot.differing(listed)
    assert {key for key, _ in snapshot.doubts(listed)} == wrong
    if wrong and all_of_them[-1] in kept:
        assert any(since <= snapshot.revision for since in snapshot.doubts(listed).values())
