"""Any one flipped bit and any one zeroed page: refused, or the very same log. Never wrong data.

The one accepted case (W6) has its own test: the last data frame of a log that was not sealed.
``CRASH_IMAGES=all`` takes every bit (some 800,000 recoveries: give it ``-o timeout=3600``); the
default run samples.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.wal import format as fmt
from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.wal import Recovered
from tests.support.simdisk import Image, SimDisk
from tests.support.wal_cases import Story, hard, open_image, run_of, same_promise

ALL = os.environ.get("CRASH_IMAGES") == "all"
FLIPS = 1_500
DOCUMENTED = {ExitCode.CONFIG, ExitCode.LOG_DAMAGED, ExitCode.HARD_STATE_LOST}


def a_log(*, recycled: bool, sealed: bool = True) -> Image:
    disk = SimDisk()
    story = Story(disk)
    story.create()
    story.append(hard(1, 0xA1))
    story.append(hard(1, 0xA1), run_of(1, 3, 1, size=1500))
    story.append(hard(2, 0, 1), run_of(2, 3, 2, size=700))
    story.install(hard(2, 0xA2, 20), Installed(20, 2, b"conf", 2))
    story.append(hard(2, 0xA2, 20), run_of(21, 3, 2, size=900))
    if recycled:
        story.compact(20)
        story.append(hard(2, 0xA2, 21), run_of(24, 1, 2, size=3000))
        story.append(hard(2, 0xA2, 21), run_of(25, 1, 2, size=3000))
    story.append(hard(3, 0xA1, 22))  # the newest vote; its twin is last
    if sealed:
        story.seal()
    story.wal.close()
    return disk.image()


def same(one: Recovered, other: Recovered) -> bool:
    ours, theirs = one.hard_state, other.hard_state
    return (
        one.entries == other.entries
        and (ours.term, ours.vote) == (theirs.term, theirs.vote)
        and one.first_index == other.first_index
        and one.first_prev_term == other.first_prev_term
        and one.generation == other.generation
    )


def outcome(image: Image, whole: Recovered) -> str:
    recovered = open_or_refuse(image)
    assert recovered is None or same(recovered, whole), "wrong data"
    return "same" if recovered else "refused"


def open_or_refuse(image: Image) -> Recovered | None:
    """None: refused for a documented reason that names the segment."""
    try:
        return open_image(image, 20)[1]
    except FatalError as error:
        if error.code not in DOCUMENTED or "segment-" not in str(error):
            raise
        return None


@pytest.mark.parametrize("recycled", [False, True])
def test_a_flipped_bit_never_yields_wrong_data(recycled: bool) -> None:
    image = a_log(recycled=recycled)
    _, whole = open_image(image, 20)
    names = [n for n in image if n.startswith("segment-")]
    places = [(n, b) for n in names for b in range(len(image[n]) * 8)]
    random = Random(11)
    seen = {"refused": 0, "same": 0}
    for name, bit in places if ALL else random.sample(places, FLIPS):
        content = bytearray(image[name])
        content[bit // 8] ^= 1 << bit % 8
        seen[outcome({**image, name: bytes(content)}, whole)] += 1
    assert min(seen.values()) > 10, seen


@pytest.mark.parametrize("recycled", [False, True])
def test_a_zeroed_page_never_yields_wrong_data(recycled: bool) -> None:
    image = a_log(recycled=recycled)
    _, whole = open_image(image, 20)
    refused = 0
    for name in [n for n in image if n.startswith("segment-")]:
        for at in range(0, len(image[name]), fmt.BLOCK):
            content = image[name][:at] + bytes(fmt.BLOCK) + image[name][at + fmt.BLOCK :]
            refused += outcome({**image, name: content}, whole) == "refused"
    assert refused >= 5


def test_the_newest_vote_survives_any_one_page_even_unsealed() -> None:
    """Frame and twin stand on pages of their own: either is enough (W6)."""
    image = a_log(recycled=False, sealed=False)
    _, whole = open_image(image, 20)
    for name in [n for n in image if n.startswith("segment-")]:
        for at in range(0, len(image[name]), fmt.BLOCK):
            content = image[name][:at] + bytes(fmt.BLOCK) + image[name][at + fmt.BLOCK :]
            recovered = open_or_refuse({**image, name: content})
            assert recovered is None or same_promise(recovered.hard_state, whole.hard_state)


def test_the_accepted_case_is_the_last_frame_before_its_seal() -> None:
    disk = SimDisk()
    story = Story(disk, 65_536)
    story.create()
    story.append(hard(1, 0xA1))
    story.append(hard(1, 0xA1), run_of(1, 1, 1))
    story.append(hard(1, 0xA1), run_of(2, 1, 1))
    name = "segment-0000000000000001.wal"
    at = len(disk.image()[name].rstrip(b"\0")) // fmt.BLOCK * fmt.BLOCK

    def rotten() -> Image:
        image = disk.image()
        return {**image, name: image[name][: at + 80] + b"!" + image[name][at + 81 :]}

    _, recovered = open_image(rotten(), 0)
    assert recovered.entries == run_of(1, 1, 1), "taken for a torn tail, as documented"
    story.seal()
    with pytest.raises(FatalError, match="log damaged"):
        open_image(rotten(), 0)


def test_torn_at_every_sector_is_all_or_nothing() -> None:
    disk = SimDisk()
    story = Story(disk, 65_536)
    story.create()
    story.append(hard(1, 0xA1), run_of(1, 2, 1))
    before = disk.image()
    story.append(hard(2, 0xA1), run_of(3, 4, 2, size=2_000))
    after = disk.image()
    name = "segment-0000000000000001.wal"
    start = next(n for n in range(len(after[name])) if before[name][n] != after[name][n])
    kept = set()
    for cut in range(start // 512 * 512, start + 16_384, 512):
        for first, second in ((before, after), (after, before)):
            content = first[name][:cut] + second[name][cut:]
            _, recovered = open_image({**before, name: content}, 0)
            assert recovered.entries in (run_of(1, 2, 1), run_of(1, 2, 1) + run_of(3, 4, 2, 2_000))
            assert recovered.hard_state.term in (1, 2)
            kept.add((len(recovered.entries), recovered.hard_state.term))
    # Nothing of it, all of it, or only the twin behind it.
    assert kept == {(2, 1), (6, 2), (2, 2)}
