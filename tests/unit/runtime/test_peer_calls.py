"""Calls between members: whose answer is whose."""

from __future__ import annotations

from configsvc.errors import ConfigServiceError
from configsvc.runtime.rpc import PeerCalls, PeerMethod
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId
from tests.unit.runtime.runtime_fakes import FakeClock

ASKER, SERVER = NodeId(1), NodeId(2)


class Wire:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.replies: list[bytes] = []

    def send_call(self, peer: NodeId, body: bytes) -> bool:
        self.calls.append(body)
        return True

    def send_reply(self, peer: NodeId, body: bytes) -> bool:
        self.replies.append(body)
        return True


def _calls(wire: Wire, incarnation: int) -> PeerCalls:
    return PeerCalls(clock=FakeClock(), frames=wire, timeout=5.0, incarnation=incarnation)


def _asked(calls: PeerCalls, body: bytes) -> list[bytes | ConfigServiceError]:
    told: list[bytes | ConfigServiceError] = []
    calls.call(SERVER, PeerMethod.LEASE_RENEW, body).bind(told.append)
    return told


def test_an_answer_to_the_start_before_is_nobodys() -> None:
    """It would have renewed one lease, and told the holder of another that it was its own."""
    wire = Wire()
    waiting: list[Waiting] = []

    def serve(peer: NodeId, body: bytes) -> Waiting:
        waiting.append(Waiting())
        return waiting[-1]

    server = _calls(Wire(), 7)
    server.serve(PeerMethod.LEASE_RENEW, serve)
    _asked(_calls(wire, 3), b"before")
    restarted = _calls(wire, 4)
    told = _asked(restarted, b"after")
    answers = Wire()
    server._frames = answers
    for call in wire.calls:
        server.on_call(ASKER, call)
    waiting[0].complete(b"of before")
    restarted.on_reply(SERVER, answers.replies[0])
    assert told == []
    waiting[1].complete(b"of after")
    restarted.on_reply(SERVER, answers.replies[1])
    assert told == [b"of after"]
