"""A member that was added asks for its cluster before it has a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import DecodeError
from configsvc.limits import URLS_PER_MEMBER_MAX
from configsvc.transport.joining import (
    JoinAnswer,
    JoinQuestion,
    decode_join_answer,
    decode_question,
    encode_join_answer,
    encode_question,
)

U64 = st.integers(1, 2**64 - 1)
URLS = st.lists(
    st.from_regex(r"https://[a-z0-9.]{1,30}:[0-9]{1,5}", fullmatch=True), min_size=1, max_size=4
)


@given(U64, st.booleans(), URLS)
def test_questions_round_trip(member: int, insecure: bool, urls: list[str]) -> None:
    question = JoinQuestion(member, insecure, tuple(urls))
    assert decode_question(encode_question(question)) == question


@given(U64, U64, U64, st.booleans())
def test_answers_round_trip(cluster: int, epoch: int, member: int, insecure: bool) -> None:
    answer = JoinAnswer(cluster, epoch, member, insecure)
    assert decode_join_answer(encode_join_answer(answer)) == answer
    assert decode_join_answer(encode_join_answer(answer) + b"later") == answer


@given(st.binary(max_size=200), st.binary(max_size=8))
def test_bytes_of_a_stranger_never_raise_anything_else(body: bytes, tail: bytes) -> None:
    good = encode_question(JoinQuestion(1, False, ("https://a:1",)))
    for data in (body, good[: len(body) % len(good)] + tail, good[:8] + body):
        for decode in (decode_question, decode_join_answer):
            try:
                decode(data)
            except DecodeError:
                continue


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(JoinQuestion(1, False, ()), id="no-urls"),
        pytest.param(
            JoinQuestion(1, False, ("https://a:1",) * (URLS_PER_MEMBER_MAX + 1)), id="too-many"
        ),
        pytest.param(JoinQuestion(1, False, ("https://" + "a" * 600 + ":1",)), id="too-long"),
        pytest.param(JoinQuestion(1, False, ("https://\u00e4:1",)), id="no-ascii"),
    ],
)
def test_questions_beyond_bounds_are_refused(question: JoinQuestion) -> None:
    with pytest.raises(DecodeError):
        decode_question(encode_question(question))


def test_newer_layouts_are_refused() -> None:
    body = bytearray(encode_join_answer(JoinAnswer(1, 0, 2, False)))
    body[10:12] = (2).to_bytes(2, "little")  # its minimum reader
    with pytest.raises(DecodeError, match="newer reader"):
        decode_join_answer(bytes(body))
