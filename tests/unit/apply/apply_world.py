"""A state machine to talk to: numbered entries, named people, short answers."""

from __future__ import annotations

from typing import Any

from configsvc.apply import commands as c
from configsvc.apply.applier import Applier
from configsvc.apply.commands import Command, Effects, Envelope, Refused
from configsvc.apply.state import ApplyState
from configsvc.auth.bundle import parse_bundle
from configsvc.auth.rules import encode_policy
from configsvc.mvcc.messages import DeleteOp, PutOp, RangeOp
from configsvc.types import (
    KIND_AGENT,
    KIND_NONE,
    KIND_USER,
    NO_SOURCE,
    SYSTEM_PRINCIPAL,
    Principal,
    Source,
    span_of,
)

SOURCE = Source("10.0.0.7", "TLSv1.3", "etcd-client-go", "3.5")
SYSTEM = SYSTEM_PRINCIPAL
NOBODY = Principal(KIND_NONE, "anonymous", "", "", "", "", "", "insecure-dev", "", "", 0)
ROOT_UID = "00ff"
MEMBERS = (0x11, 0x22, 0x33)

POLICY = """
schema = "configsvc.policy/v1"
bundle = "base"
version = 1
"""


def person(name: str, uid: str, kind: str = KIND_USER, **more: Any) -> Principal:
    user = name if kind == KIND_USER else f"{kind}/{name}"
    uri = f"spiffe://corp/{kind}/{name}"
    made = Principal(kind, name, user, uid, uri, "0a1b", "ab" * 32, "certificate", "", "", 0)
    return made._replace(**more)


ROOT = person("root", ROOT_UID)
ADA = person("ada", "a1")
BOB = person("bob", "b1")
AGENT = person("node-1", "", KIND_AGENT)


def compiled(text: str) -> bytes:
    return encode_policy(parse_bundle(text).policy)


def put(key: bytes, value: bytes = b"v", **more: Any) -> PutOp:
    return PutOp(key, value, **more)


def delete(key: bytes, end: bytes = b"", **more: Any) -> DeleteOp:
    return DeleteOp(span_of(key, end), **more)


def get(key: bytes, end: bytes = b"", **more: Any) -> RangeOp:
    return RangeOp(span_of(key, end), **more)


def genesis(*, insecure: bool = False, policy: str = POLICY) -> c.BootstrapOp:
    members = tuple(
        c.MemberChangeOp("add", member, (f"https://10.0.0.{member}:2380",), False)
        for member in MEMBERS
    )
    bundle = parse_bundle(policy).policy
    return c.BootstrapOp(
        "corp", policy, insecure, compiled(policy), bundle.name, bundle.version, members
    )


class World:
    """One member's state machine. ``insecure``: born under --insecure-dev, auth off."""

    def __init__(self, *, insecure: bool = False, policy: str = POLICY) -> None:
        self.state = ApplyState()
        self.applier = Applier(self.state)
        self.log: list[Command | None] = []
        self.effects: list[Effects] = []
        self.term = 1
        self.ok(SYSTEM, genesis(insecure=insecure, policy=policy), new_uid=ROOT_UID)

    @property
    def store(self) -> Any:
        return self.state.store

    def do(self, who: Principal, op: Any, **more: Any) -> Effects:
        """Apply one entry; ``more`` are fields of the envelope."""
        return self.entry(self.command(self.state.applied + 1, who, op, **more))

    def command(self, index: int, who: Principal, op: Any, **more: Any) -> Command:
        """The command of the entry at ``index``."""
        source = NO_SOURCE if who.kind in ("system", "none") else SOURCE
        envelope = Envelope(
            index,
            who,
            source,
            "",
            "",
            index.to_bytes(32, "big"),
            (),
            "",
            index * 1_000,
            False,
            0x11,
            0,
        )._replace(**more)
        return Command(envelope, op, 100)

    def entry(self, command: Command | None) -> Effects:
        self.log.append(command)
        effects = self.applier.apply(self.state.applied + 1, self.term, command)
        self.effects.append(effects)
        return effects

    def ok(self, who: Principal, op: Any, **more: Any) -> Effects:
        effects = self.do(who, op, **more)
        assert not isinstance(effects.result, Refused), effects.result
        return effects

    def refused(self, who: Principal, op: Any, **more: Any) -> Exception:
        """The error of an entry that must be refused, without any trace but its leaf."""
        before = (self.store.revision, dict(self.store.live), self.state.snapshot_tables())
        effects = self.do(who, op, **more)
        assert isinstance(effects.result, Refused), effects.result
        assert (effects.rows, effects.prevs, effects.tables) == ((), (), ())
        after = (self.store.revision, dict(self.store.live), self.state.snapshot_tables())
        assert after == before
        return effects.result.error

    def user(self, who: Principal, *grants: tuple[int, bytes, bytes]) -> None:
        """Create ``who`` with a role of its own that holds ``grants`` (type, key, range_end)."""
        role = f"{who.name}-role"
        self.ok(ROOT, c.UserAddOp(who.user, "", True), new_uid=who.uid)
        self.ok(ROOT, c.RoleAddOp(role))
        self.ok(ROOT, c.UserGrantRoleOp(who.user, role))
        for kind, key, end in grants:
            self.ok(ROOT, c.RoleGrantPermissionOp(role, kind, key, end))
