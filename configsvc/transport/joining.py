"""How a member that was added, and holds nothing yet, learns which cluster it belongs to.

It asks one of the members named on its command line, before it has a store: one frame there, one
back, over the same mutual TLS as everything else. The answer is believed because it comes from a
member's certificate; the question is answered for ids in the member list only. In plaintext
(--insecure-dev) there are no certificates, and the list is searched for the asker's URLs.

Not here: whom to ask how often (``server``), who may join (``runtime``).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from configsvc.config import split_url
from configsvc.errors import DecodeError
from configsvc.limits import (
    HANDSHAKE_SECONDS_MAX,
    JOIN_FRAME_BYTES_MAX,
    PEER_DIAL_SECONDS_MAX,
    URL_CHARS_MAX,
    URLS_PER_MEMBER_MAX,
)
from configsvc.net.contexts import ReloadableContext
from configsvc.net.shell import TlsConnection, TlsFailed
from configsvc.transport.frames import (
    FRAME_JOIN,
    FRAME_JOIN_ANSWER,
    FRAME_REFUSED,
    FrameReader,
    frame_head,
)
from configsvc.transport.hello import Refusal, decode_refusal

_QUESTION: Final = struct.Struct("<8sHHQBB")
_ANSWER: Final = struct.Struct("<8sHHQQQB")
_LENGTH: Final = struct.Struct("<H")
_MAGIC: Final = b"CFGJOIN1"
_VERSION: Final = 1
_MIN_READER: Final = 1


class JoinQuestion(NamedTuple):
    """Who asks."""

    member_id: int  # as its certificate has it; 0 in plaintext
    insecure: bool
    peer_urls: tuple[str, ...]  # its own advertised ones


class JoinAnswer(NamedTuple):
    """Where the asker belongs."""

    cluster_id: int
    epoch: int  # of the cluster id
    member_id: int  # the asker's
    insecure: bool


def encode_question(question: JoinQuestion) -> bytes:
    urls = [url.encode() for url in question.peer_urls]
    head = _QUESTION.pack(
        _MAGIC, _VERSION, _MIN_READER, question.member_id, question.insecure, len(urls)
    )
    return head + b"".join(_LENGTH.pack(len(url)) + url for url in urls)


def decode_question(body: bytes) -> JoinQuestion:
    """What ``encode_question`` or a later version of it made. Raises ``DecodeError``."""
    if not _QUESTION.size <= len(body) <= JOIN_FRAME_BYTES_MAX:
        raise DecodeError("join question of impossible length")
    magic, _, reader, member, insecure, count = _QUESTION.unpack_from(body)
    _check(magic, reader, insecure)
    if not 0 < count <= URLS_PER_MEMBER_MAX:
        raise DecodeError("join question without URLs, or with too many")
    at, urls = _QUESTION.size, []
    for _ in range(count):
        if at + _LENGTH.size > len(body):
            raise DecodeError("join question is cut short")
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        raw = body[at : at + length]
        at += length
        if length > URL_CHARS_MAX or len(raw) != length or not raw.isascii():
            raise DecodeError("join question with a URL that is none")
        urls.append(raw.decode())
    return JoinQuestion(member, bool(insecure), tuple(urls))


def encode_join_answer(answer: JoinAnswer) -> bytes:
    return _ANSWER.pack(_MAGIC, _VERSION, _MIN_READER, *answer)


def decode_join_answer(body: bytes) -> JoinAnswer:
    """What ``encode_join_answer`` or a later version of it made. Raises ``DecodeError``."""
    if len(body) < _ANSWER.size:
        raise DecodeError("join answer is cut short")
    magic, _, reader, cluster, epoch, member, insecure = _ANSWER.unpack_from(body)
    _check(magic, reader, insecure)
    if not cluster or not member:
        raise DecodeError("join answer without a cluster")
    return JoinAnswer(cluster, epoch, member, bool(insecure))


def _check(magic: bytes, reader: int, insecure: int) -> None:
    if magic != _MAGIC or insecure > 1:
        raise DecodeError("join frame of another protocol")
    if reader > _VERSION:
        raise DecodeError("the peer needs a newer reader")


class JoinFailed(Exception):
    """Nobody answered there; the text is a constant."""


async def ask(
    url: str,
    question: JoinQuestion,
    *,
    context: ReloadableContext | None,
    judge: Callable[[bytes | None], str],
) -> JoinAnswer | Refusal:
    """Ask the member at ``url``.

    Args:
        url: an advertised peer URL.
        question: who we are.
        context: of a dialler; None in plaintext.
        judge: why the other side's certificate (DER) is not acceptable; "" if it is.

    Raises:
        JoinFailed: no answer, or none that can be believed.
    """
    loop = asyncio.get_running_loop()
    try:
        scheme, host, port = split_url(url)
        if (scheme == "https") != (context is not None):
            raise JoinFailed("URL's scheme does not fit this cluster")
        tls = None
        if context is not None:
            tls = TlsConnection(context.current, server_side=False, server_hostname=host)
        asker = _Asker(loop, tls, question, judge)
        async with asyncio.timeout(PEER_DIAL_SECONDS_MAX):
            await loop.create_connection(lambda: asker, host, port)
    except (OSError, TimeoutError):
        raise JoinFailed("cannot be reached") from None
    except (ValueError, TlsFailed):
        raise JoinFailed("URL cannot be used") from None
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS_MAX):
            return await asker.result
    except TimeoutError:
        raise JoinFailed("no answer in time") from None
    finally:
        asker.close()


class _Asker(asyncio.Protocol):
    """One question on one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tls: TlsConnection | None,
        question: JoinQuestion,
        judge: Callable[[bytes | None], str],
    ) -> None:
        self.result: asyncio.Future[JoinAnswer | Refusal] = loop.create_future()
        self._tls = tls
        self._question = question
        self._judge = judge
        self._asked = False
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._tls is None:
            self._ask()
        else:
            self._transport.write(self._tls.start())

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data)
        except (TlsFailed, DecodeError) as error:
            self._fail(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail("closed without an answer")

    def close(self) -> None:
        """End the connection; a question without an answer fails."""
        if self._transport is not None:
            self._transport.close()
        self._fail("given up")
        if not self.result.cancelled():
            self.result.exception()  # seen: nobody waits any more

    def _take(self, data: bytes) -> None:
        tls, transport = self._tls, self._transport
        if tls is not None and transport is not None:
            data, answer = tls.receive(data)
            if answer:
                transport.write(answer)
            if tls.established and not self._asked:
                problem = self._judge(tls.peer_der)
                if problem:
                    self._fail(problem)
                    return
                self._ask()
        for kind, body in self._reader.feed(data) if data else ():
            if self.result.done():
                return
            if kind == FRAME_JOIN_ANSWER:
                self.result.set_result(decode_join_answer(body))
            elif kind == FRAME_REFUSED:
                self.result.set_result(decode_refusal(body))

    def _ask(self) -> None:
        self._asked = True
        body = encode_question(self._question)
        data = frame_head(FRAME_JOIN, len(body)) + body
        if self._transport is not None:
            self._transport.write(data if self._tls is None else self._tls.send(data))

    def _fail(self, reason: str) -> None:
        if not self.result.done():
            self.result.set_exception(JoinFailed(reason))
