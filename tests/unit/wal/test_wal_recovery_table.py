"""The recovery table: every refusal provoked, naming place and way out, and nothing touched."""

from __future__ import annotations

import errno
from collections.abc import Callable

import google_crc32c
import pytest

from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal import format as fmt
from configsvc.storage.wal.keys import unwrap_key
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.segments import read_header, segment_name, segment_numbers
from configsvc.storage.wal.wal import Wal
from tests.support.simdisk import Image, SimDisk
from tests.support.wal_cases import IDENTITY, KEY, Story, hard, open_image, options, run_of

PAGE = fmt.BLOCK


def three_segments(*, sealed: bool = True) -> Image:
    """Entries 1 to 9 in nine frames over several segments; the newest holds 8, 9 and a seal."""
    disk = SimDisk()
    story = Story(disk, 28_672)  # five pages of frames
    story.create()
    story.append(hard(1, 0xA1))
    for index in range(1, 10):
        story.append(hard(1, 0xA1, index - 1), run_of(index, 1, 1))
    if sealed:
        story.seal()
    story.wal.close()
    return disk.image()


def newest(image: Image) -> str:
    return max(name for name in image if name.startswith("segment-"))


def changed(image: Image, name: str, offset: int, data: bytes) -> Image:
    content = bytearray(image[name])
    content[offset : offset + len(data)] = data
    return {**image, name: bytes(content)}


def without(image: Image, name: str) -> Image:
    return {n: c for n, c in image.items() if n != name}


def refusal(image: Image, sql_applied: int = 0, **more: object) -> FatalError:
    """The error of opening ``image``; the directory must be as before."""
    disk = SimDisk(image)
    with pytest.raises(FatalError) as caught:
        Wal.open(
            disk,
            KEY,
            **{"expect": IDENTITY, "sql_applied": sql_applied, "options": options()} | more,  # type: ignore[arg-type]
        )
    assert disk.trace == [], "something was touched"
    assert caught.value.remedy
    return caught.value


def test_the_whole_log_reads_back() -> None:
    image = three_segments()
    assert len(segment_numbers(SimDisk(image))) >= 3
    _, recovered = open_image(image, 0)
    assert recovered.entries == run_of(1, 9, 1)
    assert recovered.hard_state == hard(1, 0xA1, 8)
    assert recovered.incarnation == 2
    assert not recovered.clean_stop


OLD = segment_name(2)

TABLE: dict[str, tuple[Callable[[Image], Image], ExitCode, str]] = {
    "bad frame in an old segment": (
        lambda i: changed(i, OLD, fmt.FIRST_FRAME, b"\xff"),
        ExitCode.LOG_DAMAGED,
        f"{OLD}, offset 8192",
    ),
    "zeroed page in an old segment": (
        lambda i: changed(i, OLD, fmt.FIRST_FRAME + PAGE, bytes(PAGE)),
        ExitCode.LOG_DAMAGED,
        f"{OLD}, offset 12288",
    ),
    "last frame of an old segment": (
        lambda i: changed(i, OLD, fmt.FIRST_FRAME + 4 * PAGE, bytes(PAGE)),
        ExitCode.LOG_DAMAGED,
        "the next segment follows frame",
    ),
    "bad data frame behind which the seal stands": (
        lambda i: changed(i, newest(i), fmt.FIRST_FRAME + 90, b"\xff\xff"),
        ExitCode.LOG_DAMAGED,
        "offset 8192",
    ),
    "missing segment": (
        lambda i: without(i, OLD),
        ExitCode.LOG_DAMAGED,
        f"{OLD}, offset 0: the segment is missing",
    ),
    "both headers of an old segment": (
        lambda i: changed(changed(i, OLD, 8, b"\xff"), OLD, PAGE + 8, b"\xff"),
        ExitCode.LOG_DAMAGED,
        f"{OLD}, offset 0: both copies",
    ),
    "both headers of the newest": (
        lambda i: changed(changed(i, newest(i), 8, b"\xff"), newest(i), PAGE + 8, b"\xff"),
        ExitCode.HARD_STATE_LOST,
        "both copies of the header are bad",
    ),
    "no segment at all": (
        lambda i: {n: c for n, c in i.items() if not n.startswith("segment-")},
        ExitCode.HARD_STATE_LOST,
        "no segment",
    ),
    "a segment under another's name": (
        lambda i: {**without(i, newest(i)), newest(i): i[OLD]},
        ExitCode.LOG_DAMAGED,
        "says that this is segment 2",
    ),
    "a file too short": (
        lambda i: {**i, OLD: i[OLD][: fmt.FIRST_FRAME - 1]},
        ExitCode.LOG_DAMAGED,
        "bytes are no segment",
    ),
    "an old segment cut off": (
        lambda i: {**i, OLD: i[OLD][: fmt.FIRST_FRAME + PAGE]},
        ExitCode.LOG_DAMAGED,
        f"{OLD}, offset 12288",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_damage_is_refused_by_name(case: str) -> None:
    spoil, code, place = TABLE[case]
    error = refusal(spoil(three_segments()))
    assert error.code is code
    assert place in str(error)


def test_the_oldest_segments_missing_is_refused_through_sql() -> None:
    image = without(three_segments(), segment_name(1))
    error = refusal(image, 0)
    assert error.code is ExitCode.STORES_DISAGREE
    _, recovered = open_image(image, 5)  # as after a compaction
    assert recovered.last_index == 9


def test_one_bad_header_copy_is_survived() -> None:
    image = three_segments()
    for name in [n for n in image if n.startswith("segment-")]:
        for page in (0, 1):
            _, recovered = open_image(changed(image, name, page * PAGE, bytes(PAGE)), 0)
            assert recovered.entries == run_of(1, 9, 1)


def torn(image: Image) -> tuple[Image, int]:
    """The last data frame without a seal behind it, spoiled; the offset of its page."""
    name = newest(image)
    used = len(image[name].rstrip(b"\0"))
    page = used // PAGE * PAGE
    return changed(image, name, page + 100, b"\xff"), page


def test_a_torn_tail_is_dropped_and_kept_aside() -> None:
    image, page = torn(three_segments(sealed=False))
    disk, recovered = open_image(image, 8)
    assert recovered.entries == run_of(1, 8, 1)
    assert recovered.dropped_tail_bytes == PAGE
    kept = [n for n in disk.names() if n.startswith("dropped-")]
    assert len(kept) == 1
    assert disk.image()[kept[0]][PAGE:] == image[newest(image)][page : page + PAGE]


def test_a_torn_tail_that_others_remember_is_damage() -> None:
    image, page = torn(three_segments(sealed=False))
    error = refusal(image, sql_applied=9)
    assert error.code is ExitCode.LOG_DAMAGED
    assert f"offset {page}" in str(error)


def test_only_the_newest_dropped_tails_are_kept() -> None:
    image, _ = torn(three_segments(sealed=False))
    image |= {f"dropped-{n:016x}.bin": b"old" for n in range(1, 8)}
    disk, _ = open_image(image, 8)
    assert len([n for n in disk.names() if n.startswith("dropped-")]) == 4


def test_sql_ahead_of_a_whole_log() -> None:
    error = refusal(three_segments(), 10)
    assert error.code is ExitCode.STORES_DISAGREE
    assert "SQL has applied 10" in str(error)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (IDENTITY._replace(cluster_id=1), "cluster id"),
        (IDENTITY._replace(member_id=1), "member id"),
        (IDENTITY._replace(store_id=b"x" * 16), "store id"),
        (IDENTITY._replace(insecure=True), "insecure-dev"),
    ],
)
def test_wrong_identity(other: WalIdentity, what: str) -> None:
    error = refusal(three_segments(), expect=other)
    assert error.code is ExitCode.WRONG_IDENTITY
    assert what in str(error)


def test_an_unknown_store_id_is_not_compared() -> None:
    disk = SimDisk(three_segments())
    expect = IDENTITY._replace(store_id=b"")
    _, recovered = Wal.open(disk, KEY, expect=expect, options=options())
    assert recovered.identity == IDENTITY


def test_a_wrong_key_is_never_damage() -> None:
    image = three_segments()
    disk = SimDisk(image)
    with pytest.raises(ConfigError, match="is sealed under key") as caught:
        Wal.open(disk, KeyFile(b"x" * 32, "/keys/other"), options=options())
    assert caught.value.code is ExitCode.CONFIG
    assert KEY.key_id in str(caught.value)
    assert "/keys/other" in str(caught.value)
    assert disk.trace == []
    assert disk.image() == image


def test_a_header_whose_key_does_not_unwrap_is_78() -> None:
    image = three_segments()
    header = read_header(SimDisk(image), 2, newest=False)
    block = fmt.encode_segment_header(header._replace(wrapped_key=b"w" * 60))
    error = refusal(changed(changed(image, OLD, 0, block), OLD, PAGE, block))
    assert error.code is ExitCode.CONFIG


@pytest.mark.parametrize("copy", [0, 1])
def test_a_newer_segment_format_is_86(copy: int) -> None:
    image = three_segments()
    body = bytearray(image[OLD][: PAGE - 4])
    body[10:12] = (9).to_bytes(2, "little")
    block = bytes(body) + google_crc32c.value(bytes(body)).to_bytes(4, "little")
    if copy:
        image = changed(image, OLD, 0, bytes(PAGE))
    error = refusal(changed(image, OLD, copy * PAGE, block))
    assert error.code is ExitCode.TOO_NEW
    assert "format 9" in str(error)


def appended(image: Image, kind: int, payload: bytes = b"", **header: int) -> Image:
    """``image`` with one more well-sealed frame at its end, as another program would write it."""
    name = newest(image)
    disk = SimDisk(image)
    number = segment_numbers(disk)[-1]
    segment = read_header(disk, number, newest=True)
    data = image[name]
    decoder = fmt.FrameDecoder(None, segment.salt)
    at, last, crc = fmt.FIRST_FRAME, segment.last_frame, segment.last_crc
    while (frame := decoder.header(data, at)) is not None:
        at, last, crc = at + frame.blocks * PAGE, frame.number, frame.crc
    last += header.get("skip", 0)
    crc ^= header.get("chain", 0)
    sealer = FrameSealer(unwrap_key(segment, [KEY]))
    encoder = fmt.FrameEncoder(sealer, segment.salt, last, crc)
    count = header.get("count", 0)
    frame_bytes = encoder.encode(kind, hard(1, 0xA1, 9), header.get("first", 0), count, payload)
    return changed(image, name, at, frame_bytes)


@pytest.mark.parametrize(
    ("frame", "code", "what"),
    [
        ({"kind": 77}, ExitCode.TOO_NEW, "kind 77"),
        ({"kind": 5, "skip": 1}, ExitCode.LOG_DAMAGED, "where"),
        ({"kind": 5, "chain": 1}, ExitCode.LOG_DAMAGED, "does not follow"),
        ({"kind": 1, "first": 12, "count": 1, "payload": bytes(13)}, ExitCode.LOG_DAMAGED,
         "index 10 is missing"),
        ({"kind": 1, "first": 10, "count": 2, "payload": bytes(13)}, ExitCode.LOG_DAMAGED,
         "more records"),
        ({"kind": 2, "payload": b"short"}, ExitCode.LOG_DAMAGED, "INSTALLED"),
    ],
)  # fmt: skip
def test_frames_that_cannot_be(frame: dict[str, object], code: ExitCode, what: str) -> None:
    error = refusal(appended(three_segments(), **frame))  # type: ignore[arg-type]
    assert error.code is code
    assert what in str(error)
    assert newest(three_segments()) in str(error)


def test_a_second_process_is_refused() -> None:
    disk = SimDisk(three_segments())
    disk.lock()
    with pytest.raises(FatalError, match="lock") as caught:
        Wal.open(disk, KEY, options=options())
    assert caught.value.code is ExitCode.STORES_DISAGREE


def test_a_new_log_needs_an_empty_directory() -> None:
    with pytest.raises(FatalError, match="holds one already"):
        Wal.create(SimDisk(three_segments()), IDENTITY, KEY, options=options())


def start_anew(disk: SimDisk) -> Wal:
    return Wal.create(disk, IDENTITY, KEY, options=options())


def start_again(disk: SimDisk) -> Wal:
    return Wal.open(disk, KEY, options=options())[0]


@pytest.mark.parametrize("start", [start_anew, start_again])
def test_no_space_at_start_is_81(start: Callable[[SimDisk], Wal]) -> None:
    disk = SimDisk(three_segments() if start is start_again else {})
    disk.fail_at, disk.fail_errno, disk.free = 0, errno.ENOSPC, 123
    with pytest.raises(FatalError, match="123 are free") as caught:
        start(disk)
    assert caught.value.code is ExitCode.NO_SPACE
