"""Frames of an install: what is sent comes back, anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import DecodeError
from configsvc.limits import INSTALL_CHUNKS_IN_FLIGHT_MAX
from configsvc.runtime import install_frames as f

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


@given(U64, U64)
def test_offers_round_trip(install: int, term: int) -> None:
    offer = f.Offer(install, term)
    assert f.decode_offer(f.encode_offer(offer)) == offer


@given(U64, st.binary(min_size=1, max_size=100))
def test_chunks_round_trip(install: int, chunk: bytes) -> None:
    assert f.decode_chunk_frame(f.encode_chunk_frame(install, chunk)) == (install, chunk)


@given(U64, U32, st.sampled_from(f.InstallStatus))
def test_answers_round_trip(install: int, taken: int, status: f.InstallStatus) -> None:
    answer = f.Answer(install, taken, status)
    assert f.decode_answer(f.encode_answer(answer)) == answer


@given(st.binary(max_size=40))
def test_bytes_of_a_stranger_never_raise_anything_else(body: bytes) -> None:
    for decode in (f.decode_offer, f.decode_chunk_frame, f.decode_answer):
        try:
            decode(body)
        except DecodeError:
            continue


def test_an_unknown_status_is_refused() -> None:
    body = f.encode_answer(f.Answer(1, 2, f.InstallStatus.DONE))
    with pytest.raises(DecodeError):
        f.decode_answer(body[:-1] + b"\x09")


def test_the_window_is_bounded() -> None:
    assert f.window_open(INSTALL_CHUNKS_IN_FLIGHT_MAX - 1, 0)
    assert not f.window_open(INSTALL_CHUNKS_IN_FLIGHT_MAX, 0)
    assert f.window_open(INSTALL_CHUNKS_IN_FLIGHT_MAX, 1)
