"""A bug in the answer of one call ends that call: those beside it have theirs, the pass goes on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from runtime_fakes import FakeClock

from configsvc.codec import command as codec
from configsvc.errors import InternalFailureError, InvariantViolationError
from configsvc.runtime.history_gate import HistoryGate
from configsvc.runtime.proposals import Proposals
from configsvc.runtime.reads import Reads
from configsvc.types import NodeId
from tests.unit.local_audit import audit_world

SELF = NodeId(7)


def bug(*_: object) -> Any:
    raise KeyError("a bug")


def broken(*_: object) -> Any:
    raise InvariantViolationError("broken")


def good(*_: object) -> bytes:
    return b"good"


class World:
    """Writes and reads of a member that answers them, and what was told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.logged: list[str] = []
        nobody: Any = None
        self.table = Proposals(
            self_id=SELF,
            clock=FakeClock(),
            entropy=bytes,
            forwarder=nobody,
            wake=lambda: None,
            timeout=5.0,
            report=self.report,
        )
        self.reads = Reads(
            self_id=SELF,
            incarnation=1,
            clock=FakeClock(),
            wake=lambda: None,
            timeout=5.0,
            heartbeat=0.1,
            report=self.report,
        )

    def report(self, error: BaseException) -> str:
        self.logged.append(type(error).__name__)
        return "c0ffee"

    def write(self, answer: Any) -> None:
        self.table.submit(codec.SYSTEM_ACTOR, codec.OP_PUT, b"", answer).bind(self.told.append)

    def read(self, answer: Any) -> None:
        self.reads.submit(answer).bind(self.told.append)

    def applied(self) -> None:
        _, batch = self.table.take_for_leader(0)
        effects: list[Any] = [SimpleNamespace(request_id=each.request_id) for each in batch]
        self.table.answer(effects, [SELF] * len(effects))

    def confirmed(self) -> None:
        rounds: list[bytes] = []
        core: Any = SimpleNamespace(read_index=rounds.append)
        self.reads.flush(core)
        self.reads.confirmed(5, rounds[0], applied=5)


def is_internal(told: object) -> bool:
    return isinstance(told, InternalFailureError) and "c0ffee" in str(told)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_bug_in_one_answer_leaves_the_others_theirs(kind: str) -> None:
    world = World()
    for answer in (good, bug, good):
        getattr(world, kind)(answer)
    {"write": world.applied, "read": world.confirmed}[kind]()
    assert [told if told == b"good" else is_internal(told) for told in world.told] == [
        b"good",
        True,
        b"good",
    ]
    assert world.logged == ["KeyError"]
    assert (world.table.waiting, world.reads.waiting) == (0, 0)


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_broken_invariant_still_stops_the_member(kind: str) -> None:
    world = World()
    getattr(world, kind)(broken)
    with pytest.raises(InvariantViolationError):
        {"write": world.applied, "read": world.confirmed}[kind]()


def test_a_bug_behind_a_question_to_history_is_told() -> None:
    world = World()

    async def ask() -> object:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[object] = loop.create_future()
        with ThreadPoolExecutor(1) as threads:
            gate = HistoryGate(loop, threads, world.report, lambda _: None)
            gate.ask(0, good, bug).bind(got.set_result)
            return await asyncio.wait_for(got, 5.0)

    assert is_internal(asyncio.run(ask()))


def test_a_bug_behind_a_record_does_not_keep_others_from_hearing_of_theirs() -> None:
    world, audited = World(), audit_world.World()
    audited.member.report_failure = world.report
    for answer in (bug, good):
        out, done = audited.audit.before(answer)
        out.bind(world.told.append)
        audited.audit.note("authz.denied", done=done, code="PERMISSION_DENIED")
    audited.audit.on_durable(audited.audit.size)
    assert is_internal(world.told[0])
    assert world.told[1:] == [b"good"]
