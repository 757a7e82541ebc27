"""The open log: rotation, superseding, installs, compaction, spares, starts, keys."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.errors import ConfigError, InvariantViolationError
from configsvc.raft.messages import HardState
from configsvc.storage.wal.format import FrameKind, Installed
from configsvc.storage.wal.inspect import iterate_frames, scrub
from configsvc.storage.wal.segments import SPARE_NAME, segment_name, segment_numbers
from configsvc.storage.wal.wal import Wal, WalOptions
from tests.support.simdisk import SimDisk
from tests.support.wal_cases import (
    IDENTITY,
    KEY,
    OTHER_KEY,
    Story,
    entry,
    hard,
    open_image,
    options,
    run_of,
    same_log,
    same_promise,
)


def begun(segment_bytes: int = 16_384) -> Story:
    story = Story(SimDisk(), segment_bytes)
    story.create()
    return story


def test_a_fresh_log_is_empty() -> None:
    _, recovered = open_image(begun().disk.image(), 0)
    assert recovered.entries == []
    assert recovered.hard_state == HardState()
    assert (recovered.first_index, recovered.first_prev_term, recovered.last_index) == (1, 0, 0)
    assert recovered.generation == 0
    assert recovered.installed is None


steps = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "supersede", "vote", "seal", "compact", "reopen",
                         "install", "prepare"]),
        st.integers(0, 6),
        st.integers(1, 3_000),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(steps)
def test_any_story_reads_back_as_the_model(script: list[tuple[str, int, int]]) -> None:
    story = begun()
    term = 1
    for what, number, size in script:
        model = story.acked
        commit = max(model.base, min(model.hard_state.commit, model.last))
        if what == "append":
            state = hard(
                term, model.hard_state.vote if model.hard_state.term == term else 0, commit
            )
            story.append(state, run_of(model.last + 1, number, term, size))
        elif what == "supersede":
            term += 1
            first = max(commit, model.last - number) + 1
            story.append(hard(term, 0, commit), run_of(first, number or 1, term, size))
        elif what == "vote":
            term += 1
            story.append(hard(term, number, commit))
        elif what == "seal":
            story.seal()
        elif what == "compact" and model.entries:
            commit = min(model.last, model.base + number)
            vote = model.hard_state.vote if model.hard_state.term == term else 0
            story.append(hard(term, vote, max(commit, model.hard_state.commit)))
            story.compact(max(commit, story.compacted))
        elif what == "install":
            index = model.last + number + 1
            vote = model.hard_state.vote if model.hard_state.term == term else 0
            generation = model.generation + 1
            story.install(hard(term, vote, index), Installed(index, term, b"c", generation))
            story.compact(index)
        elif what == "prepare":
            story.prepare()
        elif what == "reopen":
            story.reopen(clean=number % 2 == 0)
    _, recovered = open_image(story.disk.image(), max(story.compacted, story.acked.base))
    assert same_log(recovered, story.acked, story.compacted)
    assert same_promise(recovered.hard_state, story.acked.hard_state)
    assert recovered.hard_state.commit <= recovered.last_index


def test_compaction_unlinks_oldest_first_and_keeps_one_spare() -> None:
    story = begun()
    for index in range(1, 13):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    numbers = segment_numbers(story.disk)
    assert len(numbers) > 4
    assert not story.wal.spare_ready
    on_disk = story.wal.bytes_on_disk
    story.compact(8)
    left = segment_numbers(story.disk)
    assert left == numbers[-len(left) :]
    assert left[0] > numbers[0] + 1
    assert SPARE_NAME in story.disk.names()
    assert story.wal.spare_ready
    assert story.wal.bytes_on_disk < on_disk
    assert story.wal.retained_first_index <= 9
    _, recovered = open_image(story.disk.image(), 8)
    assert recovered.first_index == story.wal.retained_first_index
    assert recovered.entries[-1] == entry(12, 1)


def test_compaction_never_takes_what_is_above() -> None:
    story = begun()
    for index in range(1, 9):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    for up_to in range(9):
        story.compact(up_to)
        _, recovered = open_image(story.disk.image(), up_to)
        assert recovered.first_index <= up_to + 1
        assert recovered.entries[-1].index == 8


def test_recycled_segments_never_show_their_earlier_life() -> None:
    """Frames of the earlier life stand behind the end, and are not taken for frames."""
    story = begun()
    for index in range(1, 40):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1, 100))
        story.compact(index - 1)
    assert len(segment_numbers(story.disk)) <= 2
    _, recovered = open_image(story.disk.image(), 38)
    assert recovered.entries[-1] == entry(39, 1, 100)


def test_the_generation_outlives_the_frame_that_named_it() -> None:
    story = begun()
    story.append(hard(1), run_of(1, 3, 1))
    story.install(hard(1, 0, 50), Installed(50, 1, b"conf", 7))
    _, recovered = open_image(story.disk.image(), 50)
    assert recovered.installed == Installed(50, 1, b"conf", 7)
    for index in range(51, 60):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    story.compact(58)
    seen: list[Installed | None] = []

    def applied(installed: Installed | None) -> int:
        seen.append(installed)
        return 58

    _, recovered = open_image(story.disk.image(), applied)
    assert recovered.generation == 7
    assert seen == [recovered.installed] == [Installed(0, 0, b"", 7)]


def test_the_generation_outlives_starts_too() -> None:
    story = begun()
    story.install(hard(1, 0, 50), Installed(50, 1, b"conf", 7))
    story.reopen(clean=False)
    for index in range(51, 60):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    story.compact(58)
    _, recovered = open_image(story.disk.image(), 58)
    assert recovered.generation == 7


def test_compaction_after_a_start_knows_what_the_copied_segment_holds() -> None:
    story = begun(65_536)
    story.append(hard(1), run_of(1, 5, 1))
    story.reopen(clean=False)
    for index in range(6, 30):
        story.append(hard(1, 0, 4), run_of(index, 1, 1))
    assert story.wal.segment_count > 1
    story.compact(4)
    _, recovered = open_image(story.disk.image(), 4)
    assert recovered.entries == run_of(1, 29, 1)


def test_the_commit_hint_never_points_outside_the_log() -> None:
    """A leader commits by the others' disks, so its hint can be ahead of its own log."""
    story = begun()
    story.append(hard(1, 0, 90), run_of(1, 5, 1))
    _, recovered = open_image(story.disk.image(), 0)
    assert recovered.hard_state.commit == 5
    story.install(hard(1, 0, 7), Installed(50, 1, b"conf", 2))
    _, recovered = open_image(story.disk.image(), 50)
    assert recovered.hard_state.commit == 50


def test_starts_count_up_and_a_clean_stop_is_known() -> None:
    story = begun()
    story.append(hard(1), run_of(1, 2, 1))
    assert not story.reopen(clean=False).clean_stop
    recovered = story.reopen(clean=True)
    assert recovered.clean_stop
    assert recovered.incarnation == 3
    assert not story.reopen(clean=False).clean_stop


def test_every_start_seals_under_a_new_key_and_salt() -> None:
    story = begun(65_536)
    story.append(hard(1), run_of(1, 2, 1))
    name = segment_name(1)
    before = story.disk.image()[name]
    story.reopen(clean=False)
    after = story.disk.image()[name]
    pages = range(8192, 8192 + 3 * 4096, 4096)
    assert all(before[p + 76 : p + 92] != after[p + 76 : p + 92] for p in pages)


def test_an_entry_larger_than_a_segment_gets_one_of_its_own() -> None:
    story = begun()
    story.append(hard(1), [entry(1, 1), entry(2, 1, 40_000), entry(3, 1)])
    _, recovered = open_image(story.disk.image(), 0)
    assert recovered.entries == [entry(1, 1), entry(2, 1, 40_000), entry(3, 1)]
    story.compact(3)
    assert all(len(c) <= 49_152 for c in story.disk.image().values())


def test_idle_seal_is_written_once() -> None:
    story = begun()
    assert story.wal.seal_idle()
    assert not story.wal.seal_idle()
    story.append(hard(1))
    assert story.wal.seal_idle()
    kinds = [frame.kind for frame in iterate_frames(story.disk, [KEY])]
    assert kinds == [
        FrameKind.START, FrameKind.SEAL, FrameKind.ENTRIES, FrameKind.TWIN, FrameKind.SEAL
    ]  # fmt: skip


def test_frames_for_people() -> None:
    story = begun()
    story.append(hard(1), run_of(1, 2, 1))
    story.install(hard(2, 0, 9), Installed(9, 2, b"c", 2))
    views = list(iterate_frames(story.disk, [KEY]))
    assert views[1].entries == tuple(run_of(1, 2, 1))
    assert [view.installed for view in views if view.installed] == [Installed(9, 2, b"c", 2)]
    assert [view.number for view in views] == list(range(1, len(views) + 1))


@pytest.mark.parametrize(
    ("state", "first", "count", "what"),
    [
        (hard(1), 0, 0, "term never goes back"),
        (hard(2, 0xB2), 0, 0, "one vote per term"),
        (hard(2, 0), 0, 0, "one vote per term"),
        (hard(2, 0xA2), 5, 1, "no gaps"),
        (hard(2, 0xA2), 3, 0, "index comes with records"),
    ],
)
def test_broken_rules_of_ours_stop_the_member(
    state: HardState, first: int, count: int, what: str
) -> None:
    story = begun()
    story.append(hard(2, 0xA2), run_of(1, 3, 2))
    with pytest.raises(InvariantViolationError, match=what):
        story.wal.write_frame(FrameKind.ENTRIES, state, first, count, b"x" * 13 * count)


def test_no_frame_before_the_one_before_is_synced() -> None:
    wal = begun().wal
    wal.write_frame(FrameKind.ENTRIES, hard(1), 0, 0, b"")
    with pytest.raises(InvariantViolationError, match="synced"):
        wal.write_frame(FrameKind.ENTRIES, hard(1), 0, 0, b"")


@pytest.mark.parametrize("segment_bytes", [8_192, 16_385, 128 << 20])
def test_segment_sizes_that_cannot_be(segment_bytes: int) -> None:
    with pytest.raises(InvariantViolationError):
        Wal.create(SimDisk(), IDENTITY, KEY, options=WalOptions(segment_bytes))


def test_a_spare_is_made_in_synced_steps_and_found_again() -> None:
    story = begun(3 << 20)
    assert story.wal.prepare_step()
    assert story.wal.prepare_step()
    assert not story.wal.spare_ready
    assert not story.wal.prepare_step()
    assert story.wal.spare_ready
    assert not story.wal.prepare_step()
    written = len(story.disk.trace)
    story.append(hard(1))
    story.reopen(clean=False)
    big = [op for op in story.disk.trace[written:] if op.kind == "write" and len(op.data) > 100_000]
    assert big == [], "the start used the spare"


def test_rubbish_of_an_interrupted_start_is_removed() -> None:
    image = begun().disk.image() | {"making.tmp": b"x", SPARE_NAME: b"too short"}
    disk, _ = open_image(image, 0)
    assert "making.tmp" not in disk.names()
    assert SPARE_NAME not in disk.names()
    assert len(disk.image()[segment_name(1)]) == 16_384


# --- keys ----------------------------------------------------------------------------------------


def rewrapped() -> Story:
    story = begun()
    for index in range(1, 8):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    story.wal.rewrap(OTHER_KEY)
    return story


def test_after_a_change_of_keys_the_old_one_opens_nothing() -> None:
    story = rewrapped()
    story.append(hard(1, 0, 7), run_of(8, 3, 1, 3_000))
    disk = SimDisk(story.disk.image())
    with pytest.raises(ConfigError, match=OTHER_KEY.key_id):
        Wal.open(disk, KEY, options=options())
    disk.close()
    _, recovered = Wal.open(disk, OTHER_KEY, options=options())
    assert recovered.last_index == 10


def test_a_change_of_keys_in_steps_leaves_room_for_writes_and_compaction() -> None:
    story = begun()
    for index in range(1, 8):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1, 3_000))
    story.prepare()
    started = story.wal.segment_count
    assert started > 2

    def goes_on(step: int) -> None:
        story.append(hard(1, 0, 7), run_of(8 + step, 1, 1, 9_000))
        if step == 0:
            story.compact(5)  # segments whose turn has not come

    story.rewrap(goes_on)
    disk = SimDisk(story.disk.image())
    with pytest.raises(ConfigError, match=OTHER_KEY.key_id):
        Wal.open(disk, KEY, sql_applied=5, options=options())
    disk.close()
    _, recovered = Wal.open(disk, OTHER_KEY, sql_applied=5, options=options())
    assert recovered.last_index == 7 + started


def test_a_change_of_keys_that_failed_is_done_again_from_its_beginning() -> None:
    story = begun()
    for index in range(1, 8):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1, 3_000))
    next(story.wal.rewrapping(OTHER_KEY))  # and no further
    for _ in story.wal.rewrapping(OTHER_KEY, (KEY,)):
        pass
    _, recovered = Wal.open(SimDisk(story.disk.image()), OTHER_KEY, options=options())
    assert recovered.last_index == 7


def test_an_interrupted_change_of_keys_opens_with_both_and_can_be_finished() -> None:
    story = begun()
    for index in range(1, 8):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    begin = story.disk.done
    image = story.disk.image()
    for failing in range(begin, begin + 4 * len(segment_numbers(story.disk))):
        disk = SimDisk(image)
        wal, _ = Wal.open(disk, KEY, options=options())
        disk.fail_at = disk.done + failing - begin
        with pytest.raises(OSError, match="error"):
            wal.rewrap(OTHER_KEY)
        disk.fail_at = None
        left = SimDisk(disk.durable_image())
        wal, recovered = Wal.open(left, OTHER_KEY, older_keys=[KEY], options=options())
        assert recovered.entries == run_of(1, 7, 1)
        wal.rewrap(OTHER_KEY, [KEY])
        wal.close()
        assert Wal.open(left, OTHER_KEY, options=options())[1].entries == run_of(1, 7, 1)


# --- scrub ---------------------------------------------------------------------------------------


def test_scrub_finds_rot_without_a_key() -> None:
    story = begun()
    for index in range(1, 8):
        story.append(hard(1, 0, index - 1), run_of(index, 1, 1))
    image = story.disk.image()
    clean = list(scrub(SimDisk(image)))
    assert [found.segment for found in clean] == segment_numbers(story.disk)[:-1]
    assert all(found.problem == "" and found.frames for found in clean)
    name = segment_name(2)
    for at in (8, 4096 + 8, 8192 + 8, 8192 + 80, 12288 + 70):
        content = bytearray(image[name])
        content[at] ^= 0xFF
        found = {f.segment: f.problem for f in scrub(SimDisk({**image, name: bytes(content)}))}
        assert name in found[2], at
        assert found[1] == ""
