"""A sink that remembers, a loop whose time is turned by hand, a member that is only its health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from configsvc.config import ServerConfig
from configsvc.runtime.waiting import Waiting


class FakeSink:
    """What a client would have received."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.chunks: list[bytes] = []
        self.ended = False
        self.room = True

    def respond(self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
        assert not self.status
        self.status, self.headers, self.body, self.ended = status, dict(headers), body, True

    def respond_parts(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], parts: Sequence[bytes]
    ) -> None:
        self.chunks = list(parts)
        self.respond(status, headers, b"".join(parts))

    def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        assert not self.status
        self.status, self.headers = status, dict(headers)

    def chunk(self, data: bytes) -> bool:
        assert self.status
        assert not self.ended
        self.chunks.append(data)
        return self.room

    def end(self) -> None:
        assert not self.ended
        self.ended = True


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """``call_later`` and ``call_soon``; ``advance`` runs what is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None], Handle]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> Handle:
        handle = Handle()
        self.due.append((self.now + delay, call, handle))
        return handle

    def call_soon(self, call: Callable[[], None]) -> Handle:
        return self.call_later(0.0, call)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while ready := [d for d in self.due if d[0] <= self.now]:
            self.due = [d for d in self.due if d[0] > self.now]
            for _, call, handle in ready:
                if not handle.cancelled:
                    call()


class FakeReads:
    def __init__(self) -> None:
        self.waiting: list[Waiting] = []

    def submit(self, answer: Callable[[], bytes]) -> Waiting:
        waiting = Waiting()
        self.waiting.append(waiting)
        return waiting


class FakeMember:
    """What the health paths ask of a member."""

    def __init__(self) -> None:
        self.config = ServerConfig(name="m", data_dir="/nowhere")
        self.reads = FakeReads()
        self.lead = 1
        self.stopping = False
        self.is_learner = False
        self.raised: list[int] = []
        self.audit = SimpleNamespace(problem="")

    def alarms(self) -> list[tuple[int, int]]:
        return [(1, alarm) for alarm in self.raised]

    def has_alarm(self, alarm: int) -> bool:
        return alarm in self.raised
