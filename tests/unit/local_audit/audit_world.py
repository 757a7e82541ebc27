"""A member that is only its audit: clocks turned by hand, a disk that answers when told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from configsvc.audit.levels import Levels, parse_levels
from configsvc.audit.merkle import Frontier, root_of
from configsvc.audit.proofs import NodeReader
from configsvc.errors import ConfigServiceError
from configsvc.identity.tokens import TokenKey
from configsvc.runtime.local_audit import LocalAudit
from configsvc.runtime.waiting import Waiting
from configsvc.storage.local.messages import LocalHead
from configsvc.storage.local.writer import LocalItem

LEVELS = """
schema = "configsvc.audit/v1"
[[rule]]
events = ["kv.range", "kv.watch"]
prefixes = ["/secret/"]
level = "metadata"
[[rule]]
events = ["kv.range", "kv.watch"]
level = "none"
"""


def levels(text: str = LEVELS) -> Levels:
    return parse_levels(text)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.wall_ns = 1_000_000_000_000

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return self.wall_ns

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall_ns += int(seconds * 1e9)


class Report:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def _line(self, caller: str, msg: str, **fields: Any) -> None:
        self.lines.append(msg)

    info = warn = error = debug = _line


class Proposals:
    """Keeps what is proposed; the test applies it."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes, Waiting]] = []

    def submit(self, actor: bytes, field: int, op: bytes, encode: Any, **_: Any) -> Waiting:
        waiting = Waiting()
        self.sent.append((field, op, waiting))
        return waiting


class Disk:
    """The writer: takes records, and says what is on disk when the test wants."""

    def __init__(self) -> None:
        self.takes = True
        self.items: list[LocalItem] = []

    def submit(self, item: LocalItem) -> None:
        self.items.append(item)

    def close(self, timeout_s: float) -> bool:
        return self.takes


class Gate:
    """Reader threads that are done at once."""

    def run(self, index: int, question: Any, done: Any) -> None:
        try:
            result = question()
        except ConfigServiceError as error:
            result = error
        done(result)


class Tree:
    """Stream M as SQL holds it: leaves, and every node over them."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    @contextmanager
    def tree(self) -> Iterator[NodeReader]:
        yield self._node

    def _node(self, level: int, place: int) -> bytes:
        width = 1 << level
        return root_of(self.leaves[place * width : (place + 1) * width])


class FakeMember:
    def __init__(self, self_id: int = 1, voters: tuple[int, ...] = (1, 2, 3)) -> None:
        self.self_id = self_id
        self.cluster_id = 9
        self.trust_domain = "test"
        self.log_origin = "test/9/audit/0"
        self.config = SimpleNamespace(insecure_dev=False)
        self.clock = Clock()
        self.report = Report()
        self.proposals = Proposals()
        self.gate = Gate()
        self.reader = Tree()
        self.ready = True
        self.lead = self_id
        self.applied = 1
        self.alarms: list[int] = []
        self.later: list[Any] = []
        self.died: list[Any] = []
        self.loop = SimpleNamespace(call_later=lambda delay, call, *args: self.later.append(args))
        self.machine = SimpleNamespace(conf_state=SimpleNamespace(voters=voters))
        self.keys = {who: TokenKey.generate() for who in voters}
        self.retired: dict[int, TokenKey] = {}
        self.log_key = self.keys[self_id]
        auth = SimpleNamespace(revision=3, policy=SimpleNamespace(version=2), users={})
        self.state = SimpleNamespace(
            store=SimpleNamespace(revision=5),
            auth=auth,
            anchors={},
            signatures={},
            members=SimpleNamespace(by_id=dict.fromkeys(voters)),
            recorder=SimpleNamespace(frontier=Frontier()),
        )

    def report_failure(self, error: BaseException) -> str:
        return type(error).__name__

    @property
    def is_leader(self) -> bool:
        return self.lead == self.self_id

    def time_ns(self) -> int:
        return self.clock.time_ns()

    def raise_alarm(self, alarm: int) -> None:
        self.alarms.append(alarm)

    def die(self, error: Any) -> None:
        self.died.append(error)

    def log_public_key(self, who: int) -> bytes | None:
        return self.keys[who].public_bytes if who in self.keys else None

    def log_public_keys(self, who: int) -> list[bytes]:
        found = [keys[who] for keys in (self.keys, self.retired) if who in keys]
        return [key.public_bytes for key in found]

    def sign_checkpoint(self, checkpoint: Any) -> bytes:
        from configsvc.audit.checkpoint import encode_checkpoint

        return self.log_key.sign(encode_checkpoint(checkpoint).encode())

    def grow(self, count: int = 1) -> None:
        """Leaves that were applied and that SQL has."""
        for _ in range(count):
            leaf = b"leaf %d" % len(self.reader.leaves)
            self.reader.leaves.append(leaf)
            self.state.recorder.frontier.append(leaf)


class World:
    """One stream and its surroundings."""

    def __init__(self, head: LocalHead | None = None, text: str = LEVELS) -> None:
        self.member: Any = FakeMember()
        self.disk = Disk()
        self.audit = LocalAudit(
            self.member,
            writer=self.disk,
            head=head or LocalHead(0, (), 0),
            mark="abcd",
            known_actors=[],
            levels=levels(text),
            entropy=bytes,
        )
        self.member.audit = self.audit
        self.told: list[Any] = []

    def note(self, event: str = "authz.denied", **what: Any) -> None:
        what.setdefault("code", "PERMISSION_DENIED")
        self.audit.note(event, done=self.told.append, **what)

    def sync(self) -> None:
        """Everything submitted so far reaches the disk."""
        self.audit.on_durable(self.audit.size)

    def ticks(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.member.clock.advance(1.0)
            self.audit.tick()
