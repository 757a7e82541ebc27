"""What a leader believes about a peer, state by state."""

from __future__ import annotations

import pytest

from configsvc.errors import InvariantViolationError
from configsvc.raft.progress import Inflights, Progress, ProgressState


def progress(match: int, next_index: int, state: ProgressState = ProgressState.PROBE) -> Progress:
    made = Progress(next_index, Inflights(2, 100), is_learner=False)
    made.match, made.state = match, state
    return made


@pytest.mark.parametrize(
    ("state", "match", "next_index", "asked", "hint", "counts", "new_next"),
    [
        pytest.param(ProgressState.REPLICATE, 5, 10, 5, 5, False, 10, id="replicate-stale"),
        pytest.param(ProgressState.REPLICATE, 5, 10, 4, 4, False, 10, id="replicate-staler"),
        pytest.param(ProgressState.REPLICATE, 5, 10, 9, 9, True, 6, id="replicate-falls-to-match"),
        pytest.param(ProgressState.PROBE, 0, 10, 8, 8, False, 10, id="probe-other-question"),
        pytest.param(ProgressState.PROBE, 0, 10, 9, 9, True, 9, id="probe-steps-back"),
        pytest.param(ProgressState.PROBE, 0, 10, 9, 2, True, 3, id="probe-follows-the-hint"),
        pytest.param(ProgressState.PROBE, 4, 10, 9, 2, True, 5, id="probe-never-below-the-match"),
        pytest.param(ProgressState.PROBE, 0, 1, 0, 0, True, 1, id="probe-at-the-start"),
    ],
)
def test_rejections(
    state: ProgressState,
    match: int,
    next_index: int,
    asked: int,
    hint: int,
    counts: bool,
    new_next: int,
) -> None:
    peer = progress(match, next_index, state)
    peer.sent_commit = 50
    assert peer.reject(asked, hint) is counts
    assert peer.next == new_next
    assert peer.sent_commit == (new_next - 1 if counts else 50)


def test_acknowledgements_only_rise() -> None:
    peer = progress(5, 8)
    peer.flow_paused = True
    assert not peer.acknowledge(5)
    assert peer.flow_paused
    assert peer.acknowledge(7)
    assert (peer.match, peer.next, peer.flow_paused) == (7, 8, False)
    assert peer.acknowledge(9)
    assert peer.next == 10


def test_a_window_fills_by_messages() -> None:
    peer = progress(5, 6, ProgressState.REPLICATE)
    paused = []
    for count in (3, 1):
        peer.sent_entries(count, 10)
        paused.append(peer.paused)
    assert paused == [False, True]
    assert (peer.next, len(peer.inflights), peer.inflights.bytes) == (10, 2, 20)
    peer.inflights.free_to(7)  # within the first message: it is not acknowledged whole
    assert len(peer.inflights) == 2
    peer.inflights.free_to(8)
    assert (len(peer.inflights), peer.inflights.bytes, peer.inflights.full) == (1, 10, False)


def test_a_window_fills_by_bytes() -> None:
    window = Inflights(10, 100)
    window.add(1, 99)
    assert not window.full
    window.add(2, 500)
    assert window.full


def test_windows_are_emptied_on_every_change_of_state() -> None:
    peer = progress(5, 6, ProgressState.REPLICATE)
    for change in (peer.become_probe, peer.become_replicate, lambda: peer.become_snapshot(20)):
        peer.state = ProgressState.REPLICATE
        peer.sent_entries(1, 60)
        change()
        assert (len(peer.inflights), peer.inflights.bytes, peer.flow_paused) == (0, 0, False)


def test_after_a_snapshot_the_probe_begins_behind_it() -> None:
    peer = progress(5, 6)
    peer.become_snapshot(20)
    assert (peer.paused, peer.next, peer.sent_commit) == (True, 21, 20)
    with pytest.raises(InvariantViolationError):
        peer.sent_entries(1, 1)
    peer.become_probe()
    assert (peer.paused, peer.next, peer.pending_snapshot) == (False, 21, 0)


@pytest.mark.parametrize(
    ("sent", "next_index", "commit", "can"),
    [(5, 10, 6, True), (6, 10, 6, False), (9, 10, 12, False), (0, 1, 5, False)],
)
def test_can_bump_commit(sent: int, next_index: int, commit: int, can: bool) -> None:
    peer = progress(0, next_index)
    peer.sent_commit = sent
    assert peer.can_bump_commit(commit) is can
