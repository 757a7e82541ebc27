"""What operators do so that a cluster lives long: quotas and their alarm, new keys for the disks.

A quota small enough that clients meet it raises NOSPACE on all members; operators compact and
disarm it, and from the heal on there is no quota any more. A key file is changed while the member
runs and writes, as ``server.rotation`` does it: a segment at a time, between frames. A member that
goes down meanwhile ends the change at its next start, before anything else (``server.rotation``).

Not here: members that come and go (``sim_operators``); the seeds of histories, which have no keys
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from configsvc.apply.state import NO_SPACE
from configsvc.codec import command as codec
from configsvc.mvcc.messages import Row
from configsvc.proto import rpc_pb2
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.wal import Wal
from tests.simulation.node.sim_kernel import MS

if TYPE_CHECKING:
    from configsvc.apply.commands import Effects
    from tests.simulation.node.sim_node import Life, Node
    from tests.simulation.node.sim_operators import Operators
    from tests.simulation.node.sim_world import World

KEY_BYTES: Final = 32
STEP_NS: Final = (MS, 400 * MS)  # until a segment has its turn
_END: Final = object()


class Upkeep:
    def __init__(self, world: World, operators: Operators) -> None:
        self.world = world
        self._operators = operators
        self.quota = world.swarm.quota_bytes

    # --- quota and alarm --------------------------------------------------------------------------

    def lift_quota(self) -> None:
        """Nobody meets it any more; an alarm that stands is still to be disarmed."""
        self.quota = -1
        for life in self.world.lives():
            life.member.state.quota_bytes = -1

    def disarm(self, life: Life) -> None:
        """Make room, then allow writes again. Posted to the leader while an alarm stands."""
        store = life.member.store
        if store.revision > max(store.compact_revision, 1):
            compaction = rpc_pb2.CompactionRequest(revision=store.revision)
            self._operators.submit(life, codec.OP_COMPACTION, compaction.SerializeToString())
        for member, alarm in sorted(life.member.state.alarms):
            request = rpc_pb2.AlarmRequest(
                action=rpc_pb2.AlarmRequest.DEACTIVATE,
                memberID=member,
                alarm=alarm,  # type: ignore[arg-type]
            )
            self._operators.submit(life, codec.OP_ALARM, request.SerializeToString())
            self.world.count("alarm disarmed")

    # --- keys -------------------------------------------------------------------------------------

    def change_key(self, node: Node) -> None:
        """The new key file lies beside the old one, and the member is told (ENC-5)."""
        life = node.life
        if life is None or life.paused or node.new_key is not None:
            return
        new = node.new_key = KeyFile(self.world.kernel.rng.randbytes(KEY_BYTES))
        self.world.fault("key change", node=node.name)
        log = life.writer
        steps: list[Iterator[None]] = []

        def begin(wal: Wal) -> None:
            steps.append(wal.rewrapping(new, (node.key_file,)))
            another()

        def step(_: Wal) -> None:
            if next(steps[0], _END) is _END:
                use_new_key(node)
            else:
                another()

        def another() -> None:
            life.post(self.world.kernel.rng.randrange(*STEP_NS), log.run_job, step)

        log.run_job(begin)


def use_new_key(node: Node) -> None:
    """Nothing needs the old key any more: the new file takes its name."""
    assert node.new_key is not None
    node.key_file, node.new_key = node.new_key, None
    node.world.count("key changed")


class AlarmChecks:
    """N3: while NOSPACE stands nothing grows, on no member."""

    def __init__(self) -> None:
        self._standing: set[tuple[object, ...]] = set()

    def applied(self, effect: Effects) -> None:
        """An entry took effect, for the first time in the cluster."""
        full = any(entry[1] == NO_SPACE for entry in self._standing)
        assert not (full and any(map(_grows, effect.rows))), "N3 a write grew under NOSPACE"
        for change in effect.tables:
            if change.table == "alarms":
                (self._standing.discard if change.row is None else self._standing.add)(change.key)


def _grows(row: Row) -> bool:
    return not row.tombstone
