"""Inputs for the targets: sense, half-sense and noise, made from a seed.

Purely random bytes end at the first length; so inputs are built of real pieces (frames, header
blocks, messages, JSON, HTTP/1.1) and then damaged: bytes flipped, cut out, doubled, spliced.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame, grpc_message

_PATHS: Final = ("Unary", "Wait", "Fail", "Big", "Stream", "Down", "Denied", "None")
_BLOCKS: Final = (
    *(Client().block(f"/test.Echo/{path}") for path in _PATHS),
    Client().block(extra=(("grpc-timeout", "1n"), ("a-bin", "AAA"))),
    Client().block(extra=(("grpc-timeout", "x"), ("a-bin", "*"), ("token", "bad"))),
    Client().block("/health", method="GET", content_type=None),
    Client().block("/x", content_type="text/plain", extra=(("content-length", "5"),)),
    b"",
    b"\x82\x86\x84",
    b"\x3f\xe1\x1f",
    b"\xff\xff\xff\xff\x0f",
)
_KINDS: Final = (0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 0x21)
_FLAGS: Final = (0, 1, 4, 5, 5, 5, 8, 9, 12, 13, 32, 37, 255)
_STREAMS: Final = (0, 1, 1, 1, 3, 3, 5, 7, 9, 2, 2**31 - 1, 2**31 + 1)
_NUMBERS: Final = (0, 1, 5, 255, 16_384, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
_JSON: Final = (
    b'{"key":"YQ==","value":"Yg=="}',
    b'{"create_request":{"key":"YQ==","filters":["NOPUT",1]}}',
    b'{"compare":[{"result":"EQUAL","target":"MOD","key":"YQ==","modRevision":"1"}],"success":'
    b'[{"request_put":{"key":"YQ==","lease":-1}}],"failure":[{"requestRange":{}}]}',
    b'{"ID":"9223372036854775807"}{"ID":1e3}',
    b'{"memberID":0x1}',
    b"[]",
    b"NaN",
    b"\xef\xbb\xbf{}",
    b'{"a":{"a":{"a":[[[[null,true,1.5e300]]]]}}}',
    b'{"key":"\\ud800","key":"YQ"}',
    b" \n{}\t{}",
)
_HTTP1: Final = (
    b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v3/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /wait HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n\r\n",
    b"GET /chunks HTTP/1.0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2097153\r\n\r\n",
    b"GET http://a/ HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    b"HEAD /bug HTTP/1.1\r\nhost:a\r\nx:\ty \r\n\r\n",
)
_TOKENS: Final = (
    b"\r\n",
    b"\n",
    b"\0",
    b"\r\n\r\n",
    b":",
    b" ",
    b"content-length: 1\r\n",
    b'"',
    b"{",
)


def _payload(random: Random, kind: int) -> bytes:
    chance = random.random()
    if kind in (1, 9) and chance < 0.8:
        return random.choice(_BLOCKS)
    if kind == 0 and chance < 0.7:
        return grpc_message(random.randbytes(random.randrange(40)))
    if kind == 4 and chance < 0.8:
        return b"".join(
            random.randrange(8).to_bytes(2, "big") + random.choice(_NUMBERS).to_bytes(4, "big")
            for _ in range(random.randrange(4))
        )
    if chance < 0.9:
        return random.choice(_NUMBERS).to_bytes(4, "big") * random.choice((1, 1, 2))
    return random.randbytes(random.randrange(64))


def _frames(random: Random) -> bytes:
    made: list[bytes] = []
    stream = 1
    for _ in range(random.randrange(1, 9)):
        if random.random() < 0.4:
            block = random.choice(_BLOCKS)
            made.append(frame(h2.HEADERS, random.choice((4, 4, 4, 5)), stream, block))
            made.append(frame(h2.DATA, random.choice((0, 1, 1)), stream, _payload(random, 0)))
            stream += 2
        else:
            kind = random.choice(_KINDS)
            payload = _payload(random, kind)
            made.append(frame(kind, random.choice(_FLAGS), random.choice(_STREAMS), payload))
    return b"".join(made)


def _messages(random: Random) -> bytes:
    made = [
        grpc_message(random.randbytes(random.randrange(50))) for _ in range(random.randrange(4))
    ]
    if random.random() < 0.3:
        made.append(random.choice((b"\0", b"\1")) + random.choice(_NUMBERS).to_bytes(4, "big"))
    return b"".join(made)


def _picked(pool: tuple[bytes, ...]) -> Callable[[Random], bytes]:
    return lambda random: b"".join(random.choices(pool, k=random.randrange(1, 4)))


_MAKERS: Final = {
    "http2": _frames,
    "grpc": _messages,
    "json": _picked(_JSON),
    "http2-session": _frames,
    "http1-session": _picked(_HTTP1),
}


def damaged(random: Random, data: bytes) -> bytes:
    """``data`` with a few wounds."""
    for _ in range(random.choice((0, 0, 1, 1, 2, 4))):
        at = random.randrange(len(data) + 1)
        wound = random.randrange(5)
        if wound == 0:
            data = data[:at] + random.randbytes(1) + data[at + 1 :]
        elif wound == 1:
            data = data[:at] + data[at + random.randrange(1, 12) :]
        elif wound == 2:
            data = data[:at] + random.choice(_TOKENS) + data[at:]
        elif wound == 3:
            data = data[:at] + data[random.randrange(len(data) + 1) :][:40] + data[at:]
        else:
            data = data[:at]
    return data


def make(target: str, random: Random) -> bytes:
    """One input: the byte that cuts it, and what it is made of."""
    return random.randbytes(1) + damaged(random, _MAKERS[target](random))
