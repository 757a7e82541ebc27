"""Each call that begins ends once, under the code that its client was told."""

# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

from collections.abc import Callable

import pytest

from configsvc.api.call_counts import CANCELLED, OK, CallCounts
from configsvc.errors import PermissionDeniedError, StoppedError
from configsvc.limits import MESSAGE_BYTES_MAX
from tests.support import http2_frames as h2
from tests.support.http2_frames import frame, grpc_message
from tests.support.session_rig import Rig, http

UNARY, WAIT, FAIL = "/test.Echo/Unary", "/test.Echo/Wait", "/test.Echo/Fail"
STREAM, DENIED = "/test.Echo/Stream", "/test.Echo/Denied"
TIMEOUT = (("grpc-timeout", "2S"),)
BAD_TOKEN = (("token", "bad"),)


def counts(rig: Rig, path: str) -> CallCounts:
    return rig.api.methods[path.encode()].counts


def ends(rig: Rig, path: str) -> dict[int, int]:
    """Code -> calls, of what ended."""
    return {code: n for code, n in enumerate(counts(rig, path).handled) if n}


def open_stream(rig: Rig, *messages: bytes, path: str = STREAM) -> None:
    data = b"".join(map(grpc_message, messages))
    rig.send(rig.client.headers(1, path) + (frame(h2.DATA, 0, 1, data) if data else b""))


def late(rig: Rig) -> None:
    rig.session.expire(rig.now + 3)


Story = tuple[str, Callable[[Rig], object], dict[int, int]]
STORIES: dict[str, Story] = {
    "answered at once": (UNARY, lambda r: r.send(r.client.call(1, b"a")), {OK: 1}),
    "in pieces": (
        UNARY,
        lambda r: [r.session.receive(bytes([b])) for b in r.client.call(1, b"a")],
        {OK: 1},
    ),
    "refused": (FAIL, lambda r: r.send(r.client.call(1, b"", FAIL)), {7: 1}),
    "a bug": (FAIL, lambda r: r.send(r.client.call(1, b"bug", FAIL)), {13: 1}),
    "a bad token": (UNARY, lambda r: r.send(r.client.call(1, b"", extra=BAD_TOKEN)), {16: 1}),
    "a bad timeout": (
        UNARY,
        lambda r: r.send(r.client.call(1, b"", extra=(("grpc-timeout", "soon"),))),
        {3: 1},
    ),
    "answered later": (
        WAIT,
        lambda r: (r.send(r.client.call(1, b"", WAIT)), r.api.waiting[0].complete(b"x")),
        {OK: 1},
    ),
    "failed later": (
        WAIT,
        lambda r: (
            r.send(r.client.call(1, b"", WAIT)), r.api.waiting[0].complete(StoppedError()),
        ),
        {14: 1},
    ),
    "too late": (
        WAIT,
        lambda r: (r.send(r.client.call(1, b"", WAIT, extra=TIMEOUT)), late(r), late(r)),
        {4: 1},
    ),
    "reset": (
        WAIT,
        lambda r: (r.send(r.client.call(1, b"", WAIT)), r.send(h2.reset(1)), r.session.lost()),
        {CANCELLED: 1},
    ),
    "answered after a reset": (
        WAIT,
        lambda r: (
            r.send(r.client.call(1, b"", WAIT)), r.send(h2.reset(1)),
            r.api.waiting[0].complete(b"x"),
        ),
        {CANCELLED: 1},
    ),
    "connection lost": (
        WAIT,
        lambda r: (
            r.send(r.client.call(1, b"", WAIT) + r.client.call(3, b"", WAIT)), r.session.lost(),
        ),
        {CANCELLED: 2},
    ),
    "a stream to its end": (STREAM, lambda r: open_stream(r, b"a", b"finish"), {OK: 1}),
    "a stream that fails": (STREAM, lambda r: open_stream(r, b"a", b"fail"), {7: 1}),
    "a stream refused": (DENIED, lambda r: open_stream(r, path=DENIED), {7: 1}),
    "a stream's bad token": (
        STREAM,
        lambda r: r.send(r.client.headers(1, STREAM, extra=BAD_TOKEN)),
        {16: 1},
    ),
    "a stream that is left": (
        STREAM, lambda r: (open_stream(r, b"a"), r.send(h2.reset(1)), r.session.lost()),
        {CANCELLED: 1},
    ),
    "a stream too late": (
        STREAM, lambda r: (r.send(r.client.headers(1, STREAM, extra=TIMEOUT)), late(r)), {4: 1},
    ),
    "a stream of two messages": (
        "/test.Echo/Down", lambda r: open_stream(r, b"a", b"b", path="/test.Echo/Down"), {12: 1},
    ),
    "a stream at our end": (
        STREAM, lambda r: (open_stream(r, b"a"), r.session.end_streams(StoppedError())), {14: 1},
    ),
    "a stream that floods": (STREAM, lambda r: open_stream(r, b"flood:9000"), {8: 1}),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_call_counts_once(story: str, recorded: bool) -> None:
    path, play, expected = STORIES[story]
    rig = Rig()
    if recorded:  # refusals are told once they are on disk, here at once
        rig.shared.refuse = lambda error, identity, metadata, path, tell: tell(
            *rig.api.status_of(error)
        )
    play(rig)
    assert ends(rig, path) == expected
    rig.session.lost()
    assert ends(rig, path) == expected
    assert counts(rig, path).started == sum(expected.values())


@pytest.mark.parametrize("path", [UNARY, STREAM])
@pytest.mark.parametrize("stays", [True, False])
def test_a_refusal_whose_record_takes_time_counts_once(path: str, stays: bool) -> None:
    """Its client may leave before it is told; the code counts all the same."""
    rig = Rig()
    pending: list[Callable[[int, str], None]] = []
    rig.shared.refuse = lambda error, identity, metadata, path, tell: pending.append(tell)
    rig.send(rig.client.call(1, b"a", path, extra=BAD_TOKEN))
    assert ends(rig, path) == {}
    if not stays:
        rig.send(h2.reset(1))
        rig.session.lost()
    pending[0](16, "no")
    assert (ends(rig, path), counts(rig, path).started) == ({16: 1}, 1)


@pytest.mark.parametrize(
    "body",
    [b"", grpc_message(b"a") * 2, b"\0\0", b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")],
)
def test_what_is_no_call_counts_nowhere(body: bytes) -> None:
    rig = Rig()
    rig.send(rig.client.headers(1, UNARY) + frame(h2.DATA, 1, 1, body))
    rig.send(rig.client.call(3, b"", "/no.Such/Method"))
    rig.send(http(rig, 5, "/health", end=True))
    rig.session.lost()
    for method in rig.api.methods.values():
        assert (method.counts.started, sum(method.counts.handled)) == (0, 0)


def test_messages_of_streams_are_counted() -> None:
    rig = Rig()
    open_stream(rig, b"a", b"burst:5")
    found = counts(rig, STREAM)
    assert (found.received, found.sent) == (2, 6)
    rig.api.streams[0].sink.finish(PermissionDeniedError())
    assert not rig.api.streams[0].sink.send(b"late")
    assert found.sent == 6
