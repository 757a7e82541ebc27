"""Headers and frames as bytes."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import DecodeError
from configsvc.raft.messages import HardState
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.wal import format as fmt
from tests.support.wal_cases import hard

SALT = b"salt" * 4
KEY = b"k" * 32
U64 = st.integers(0, 2**64 - 1)
HEADER = fmt.SegmentHeader(
    fmt.FLAG_INSECURE, 1, 2, b"s" * 16, 3, 4, SALT, 5, 6, hard(7, 8, 9), 10, 11, 12, b"i" * 16,
    b"w" * 60,
)  # fmt: skip


def encoder(last: int = 0, crc: int = 0, salt: bytes = SALT) -> fmt.FrameEncoder:
    return fmt.FrameEncoder(FrameSealer(KEY), salt, last, crc)


def decoder(salt: bytes = SALT) -> fmt.FrameDecoder:
    return fmt.FrameDecoder(FrameSealer(KEY), salt)


def test_segment_header_round_trip() -> None:
    block = fmt.encode_segment_header(HEADER)
    assert len(block) == fmt.BLOCK
    assert fmt.decode_segment_header(block) == HEADER


@given(st.integers(0, fmt.BLOCK * 8 - 1))
def test_any_flipped_bit_spoils_a_header_copy(bit: int) -> None:
    block = bytearray(fmt.encode_segment_header(HEADER))
    block[bit // 8] ^= 1 << bit % 8
    assert fmt.decode_segment_header(bytes(block)) is None


@pytest.mark.parametrize("length", [0, 3, 4, 100, fmt.BLOCK - 1])
def test_a_short_header_is_no_header(length: int) -> None:
    assert fmt.decode_segment_header(fmt.encode_segment_header(HEADER)[:length]) is None


def test_a_newer_header_is_told_apart_from_damage() -> None:
    body = bytearray(fmt.encode_segment_header(HEADER)[:-4])
    body[10:12] = (fmt.FORMAT + 1).to_bytes(2, "little")
    newer = bytes(body) + google_crc32c.value(bytes(body)).to_bytes(4, "little")
    with pytest.raises(fmt.TooNewError):
        fmt.decode_segment_header(newer)


@given(
    st.sampled_from(fmt.FrameKind),
    st.tuples(U64, U64, U64),
    st.binary(max_size=9_000),
    st.integers(1, 2**40),
    st.integers(0, 5),
)
def test_frame_round_trip(
    kind: fmt.FrameKind, state: tuple[int, int, int], payload: bytes, first: int, count: int
) -> None:
    frames = encoder(41, 99)
    hard_state = HardState._make(state)
    data = frames.encode(kind, hard_state, first if count else 0, count, payload)
    assert len(data) % fmt.BLOCK == 0
    header = decoder().header(data, 0)
    assert header is not None
    assert (header.kind, header.number, header.records) == (kind, 42, count)
    assert (header.hard_state, header.previous_crc) == (hard_state, 99)
    assert header.last_index == (first + count - 1 if count else 0)
    assert header.crc == frames.last_crc
    assert header.blocks * fmt.BLOCK == len(data)
    sealed = decoder().sealed_payload(header, data, 0)
    assert sealed is not None
    assert decoder().open(header, sealed) == payload


def test_payloads_are_not_on_the_disk_in_the_clear() -> None:
    assert b"secret" not in encoder().encode(fmt.FrameKind.ENTRIES, hard(1), 1, 1, b"secret" * 9)


def test_frames_of_another_salt_are_no_frames() -> None:
    data = encoder().encode(fmt.FrameKind.SEAL, hard(1), 0, 0, b"")
    assert decoder(b"other-salt-bytes").header(data, 0) is None


@given(st.integers(0, (fmt.FRAME_HEAD_BYTES + 36) * 8 - 1))
def test_any_flipped_bit_of_a_frame_is_noticed(bit: int) -> None:
    data = bytearray(encoder().encode(fmt.FrameKind.ENTRIES, hard(1, 2, 3), 4, 1, b"x" * 20))
    data[bit // 8] ^= 1 << bit % 8
    header = decoder().header(bytes(data), 0)
    assert header is None or decoder().sealed_payload(header, bytes(data), 0) is None


# (offset in the frame header, bytes)
FIELDS = {
    "kind": (6, 2), "number": (8, 8), "payload bytes": (16, 4), "records": (20, 4),
    "first index": (24, 8), "last index": (32, 8), "term": (40, 8), "vote": (48, 8),
    "commit": (56, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_forged_field_with_right_checksums_does_not_open(name: str) -> None:
    at, size = FIELDS[name]
    data = bytearray(encoder().encode(fmt.FrameKind.ENTRIES, hard(1, 2, 3), 4, 1, b"x" * 20))
    data[at : at + size] = (5).to_bytes(size, "little")
    if name == "payload bytes":
        data[at : at + size] = (2**31).to_bytes(size, "little")
    head = bytes(data[: fmt.FRAME_HEAD_BYTES - 4])
    crc = google_crc32c.extend(google_crc32c.value(SALT), head)
    data[fmt.FRAME_HEAD_BYTES - 4 : fmt.FRAME_HEAD_BYTES] = crc.to_bytes(4, "little")
    header = decoder().header(bytes(data), 0)
    assert header is not None
    sealed = decoder().sealed_payload(header, bytes(data), 0)
    if name == "payload bytes":
        assert sealed is None
    else:
        assert sealed is not None
        with pytest.raises(SealBroken):
            decoder().open(header, sealed)


def test_installed_round_trip_and_short_ones() -> None:
    installed = fmt.Installed(5, 6, b"conf", 7)
    payload = fmt.encode_installed(installed)
    assert fmt.decode_installed(payload) == installed
    with pytest.raises(DecodeError):
        fmt.decode_installed(payload[:20])


def test_a_frame_of_unknown_kind_needs_a_newer_program() -> None:
    data = encoder().encode(200, hard(1), 0, 0, b"")
    with pytest.raises(fmt.TooNewError):
        decoder().header(data, 0)
