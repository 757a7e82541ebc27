"""Each bound of a queue broken on purpose: the run must go red, and name it (I14).

Not here: the queue before a peer's connection (``test_node_sim_links``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from configsvc import limits
from configsvc.raft import sending
from configsvc.raft.config import NO_LIMIT
from configsvc.raft.log import RaftLog
from configsvc.raft.progress import Inflights
from configsvc.raft.readqueue import ReadQueue
from configsvc.runtime import applying
from configsvc.runtime.applying import Applying
from configsvc.runtime.housekeeping import Housekeeping
from configsvc.runtime.machine import Machine
from configsvc.runtime.proposals import Proposals
from configsvc.runtime.reads import Reads
from tests.simulation.node.sim_planted import Case, Patch, noticed, run

MANY: Final = 1_000_000


def without(bound: str, of: type, name: str, where: Any = limits) -> Callable[[Patch], None]:
    """``of.name`` does its work as if there were no ``bound``, which ``where`` has: a module, or
    None for the one that it is called on.
    """
    work = getattr(of, name)

    def unbounded(*args: Any, **named: Any) -> Any:
        with Patch.context() as inside:
            inside.setattr(args[0] if where is None else where, bound, MANY)
            return work(*args, **named)

    return lambda patch: patch.setattr(of, name, unbounded)


def reads_without_a_bound_in_the_core(patch: Patch) -> None:
    patch.setattr(ReadQueue, "full", False)


def apply_has_endless_room(patch: Patch) -> None:
    patch.setattr(Applying, "full", False)


def nobody_asks_the_history(patch: Patch) -> None:
    work = Machine.run
    patch.setattr(Machine, "run", lambda self, may_apply: work(self))


def what_waits_does_not_ask_the_history(patch: Patch) -> None:
    work = Machine.run

    def hasty(self: Machine, may_apply: Callable[[], bool]) -> bool:
        if self._applying.busy and not may_apply():
            self._go_on()
        return work(self, may_apply)

    patch.setattr(Machine, "run", hasty)


def everything_may_be_uncommitted(patch: Patch) -> None:
    patch.setattr(sending, "_within_uncommitted", lambda *_: True)


def appends_of_any_size(patch: Patch) -> None:
    work = RaftLog.entries
    patch.setattr(RaftLog, "entries", lambda self, low, high, _: work(self, low, high, NO_LIMIT))


def windows_that_count_no_bytes(patch: Patch) -> None:
    patch.setattr(Inflights, "full", property(lambda self: len(self) >= self.max_messages))


def a_queue_that_forgets_nothing(patch: Patch) -> None:
    take = Proposals.take_for_leader

    def keep(self: Proposals, *args: Any, **named: Any) -> Any:
        own = list(self._queue)
        taken = take(self, *args, **named)
        self._queue = own
        return taken

    patch.setattr(Proposals, "take_for_leader", keep)


def few(bound: str, value: int, **more: Any) -> dict[str, Any]:
    return {"limits": {bound: value}, "ops_per_s": 200.0, "slow_disks": 1.0, **more}


def core(bound: str, value: int) -> dict[str, Any]:
    return {"raft": {bound: value}, "ops_per_s": 100.0, "slow_disks": 1.0}


SLOW_HISTORY: Final = {
    "limits": {"SQL_LAG_ENTRIES_MAX": 8, "APPLY_LAG_ENTRIES_MAX": 4},
    "raft": {"max_committed_entries_per_ready": 2},
    "ops_per_s": 60.0,
    "slow_sql": 1.0,
}
FEW_WRITES: Final = few("PROPOSALS_WAITING_MAX", 1)
FEW_OF_OTHERS: Final = {**SLOW_HISTORY, "members": 5, "ops_per_s": 200.0, "clients": 8}
FEW_OF_OTHERS["limits"] = {"SQL_LAG_ENTRIES_MAX": 8, "PROPOSALS_WAITING_MAX": 1}
CASES = {
    "writes": Case(
        "I14 proposals:", without("PROPOSALS_WAITING_MAX", Proposals, "prepare"), FEW_WRITES
    ),
    "writes of others": Case(
        "I14 proposals of others",
        without("PROPOSALS_WAITING_MAX", Proposals, "accept_forwarded"),
        FEW_OF_OTHERS,
    ),
    "a queue that forgets nothing": Case("I14 queued", a_queue_that_forgets_nothing),
    "reads": Case(
        "I14 reads:", without("PENDING_READS_MAX", Reads, "submit"), few("PENDING_READS_MAX", 1)
    ),
    "reads in the core": Case(
        "I14 reads of", reads_without_a_bound_in_the_core, core("pending_reads", 1)
    ),
    "proposed at once": Case(
        "I14 .* proposed at once",
        without("READY_ENTRIES_MAX", Proposals, "take_for_leader"),
        few("READY_ENTRIES_MAX", 2),
    ),
    "apply lags": Case(
        "I14 proposed, apply lags",
        without("APPLY_LAG_ENTRIES_MAX", Housekeeping, "hold_writes"),
        SLOW_HISTORY,
    ),
    "bytes wait for apply": Case(
        "I14 proposed, .* bytes wait",
        without("APPLY_LAG_BYTES_MAX", Housekeeping, "hold_writes"),
        {**SLOW_HISTORY, "limits": {"APPLY_LAG_BYTES_MAX": 500}},
    ),
    "the history lags": Case(
        "I14 proposed, the history lags",
        without("SQL_LAG_ENTRIES_MAX", Housekeeping, "hold_writes"),
        SLOW_HISTORY,
    ),
    "nobody asks the history": Case(
        "I14 the history lags", nobody_asks_the_history, SLOW_HISTORY
    ),
    "what waits does not ask the history": Case(
        "I14 applied although", what_waits_does_not_ask_the_history, SLOW_HISTORY
    ),
    "applied at once": Case(
        "I14 .* applied at once",
        without("READY_ENTRIES_MAX", Applying, "go_on", applying),
        SLOW_HISTORY,
    ),
    "apply has endless room": Case(
        "I14 .* wait for apply", apply_has_endless_room, SLOW_HISTORY
    ),
    "apply has room for all bytes": Case(
        "I14 .* bytes wait for apply",
        without("APPLY_WAITING_BYTES_MAX", Machine, "run", applying),
        {**SLOW_HISTORY, "limits": {"APPLY_LAG_BYTES_MAX": 500}},
    ),
    "handed out at once": Case(
        "I14 .* entries handed out",
        without("_applying_entries_max", RaftLog, "next_committed", None),
        core("max_committed_entries_per_ready", 1),
    ),
    "bytes handed out": Case(
        "I14 .* bytes handed out",
        without("_applying_bytes_max", RaftLog, "next_committed", None),
        core("max_committed_bytes_per_ready", 100),
    ),
    "uncommitted bytes": Case(
        "I14 .* uncommitted", everything_may_be_uncommitted, core("max_uncommitted_bytes", 500)
    ),
    "appends": Case("I14 .* in one append", appends_of_any_size, core("max_append_bytes", 0)),
    "windows": Case(
        "I14 .* on their way", windows_that_count_no_bytes, core("inflight_bytes", 100)
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that the way through apply has by name, so small that they are met."""
    monkeypatch.setattr(applying, "READY_ENTRIES_MAX", 2)
    monkeypatch.setattr(applying, "APPLY_WAITING_ENTRIES_MAX", 12)
    monkeypatch.setattr(applying, "APPLY_WAITING_BYTES_MAX", 1_200)


@pytest.mark.parametrize("name", CASES)
def test_a_broken_bound_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert noticed(CASES[name], monkeypatch)


@pytest.mark.parametrize("name", {id(case.swarm): name for name, case in CASES.items()}.values())
def test_the_same_run_passes_within_its_bound(name: str) -> None:
    """Nothing but the planted violation made it red."""
    assert run(0, CASES[name].swarm).counts["minorities"] == 1
