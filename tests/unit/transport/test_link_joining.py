"""A member that was added and holds nothing yet asks for its cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_members import CLUSTER, LinkMember, tls_of, until

from configsvc.errors import DecodeError
from configsvc.identity.certificate import CertificateRejected
from configsvc.transport.admission import judge_leaf
from configsvc.transport.hello import Refusal
from configsvc.transport.joining import (
    JoinAnswer,
    JoinFailed,
    JoinQuestion,
    ask,
    decode_join_answer,
    decode_question,
    encode_join_answer,
    encode_question,
)
from configsvc.types import NodeId
from tests.support.pki import TRUST_DOMAIN, Pki

QUESTION = JoinQuestion(2, False, ("https://b:2380", "https://b2:2380"))
ANSWER = JoinAnswer(CLUSTER, 3, 2, False)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))  # type: ignore[arg-type]


def judge(der: bytes | None) -> str:
    try:
        judge_leaf(der, trust_domain=TRUST_DOMAIN)
    except CertificateRejected as error:
        return error.reason
    return ""


def test_questions_and_answers_survive_the_trip() -> None:
    assert decode_question(encode_question(QUESTION)) == QUESTION
    assert decode_join_answer(encode_join_answer(ANSWER)) == ANSWER


@given(st.binary(max_size=200), st.integers(0, 60))
def test_junk_is_a_decode_error(junk: bytes, cut: int) -> None:
    for decode, good in (
        (decode_question, encode_question(QUESTION)),
        (decode_join_answer, encode_join_answer(ANSWER)),
    ):
        for body in (junk, good[:cut], good[:cut] + junk):
            try:
                decode(body)
            except DecodeError:
                continue


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(encode_question(QUESTION)[:-1], id="cut"),
        pytest.param(encode_question(QUESTION._replace(peer_urls=())), id="no-urls"),
        pytest.param(encode_question(QUESTION._replace(peer_urls=("u",) * 17)), id="many-urls"),
        pytest.param(encode_question(QUESTION._replace(peer_urls=("u" * 513,))), id="long-url"),
        pytest.param(b"X" + encode_question(QUESTION)[1:], id="magic"),
        pytest.param(b"", id="empty"),
    ],
)
def test_malformed_questions(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_question(body)


def test_a_new_member_learns_its_cluster(pki: Pki) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, tls_of(pki, 1), epoch=3)
        a.joining = NodeId(2)
        await a.listen()
        answer = await ask(a.url, QUESTION, context=tls_of(pki, 2).client, judge=judge)
        assert answer == ANSWER
        assert a.questions == [QUESTION]
        await until(lambda: not a.link._open)
        a.joining = Refusal(0, "not in the member list")
        refused = await ask(a.url, QUESTION, context=tls_of(pki, 2).client, judge=judge)
        assert refused == Refusal(0, "not in the member list")
        await a.link.close()

    run(scenario)


def test_nobody_asks_for_another_member(pki: Pki) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, tls_of(pki, 1))
        a.joining = NodeId(2)
        await a.listen()
        answer = await ask(a.url, QUESTION, context=tls_of(pki, 3).client, judge=judge)
        assert answer == Refusal(0, "the certificate names another member")
        assert a.questions == []
        marked = QUESTION._replace(insecure=True)
        answer = await ask(a.url, marked, context=tls_of(pki, 2).client, judge=judge)
        assert isinstance(answer, Refusal)
        assert "--insecure-dev" in answer.text
        await a.link.close()

    run(scenario)


def test_answers_are_believed_from_members_only(pki: Pki) -> None:
    async def scenario() -> None:
        a = LinkMember(asyncio.get_running_loop(), 1, tls_of(pki, 1))
        a.joining = NodeId(2)
        await a.listen()
        with pytest.raises(JoinFailed, match="no member of ours"):
            await ask(
                a.url,
                QUESTION,
                context=tls_of(pki, 2).client,
                judge=lambda der: "no member of ours",
            )
        assert a.questions == []
        with pytest.raises(JoinFailed, match="cannot be reached"):
            await ask("http://127.0.0.1:1", QUESTION, context=None, judge=judge)
        with pytest.raises(JoinFailed, match="scheme"):
            await ask(a.url, QUESTION, context=None, judge=judge)
        await a.link.close()

    run(scenario)
