"""A member that is its state and nothing else, for handlers of the API: no log, no disk, no peers.

Writes are made at once by ``do``; records of the local stream wait until ``record`` lets them
through; time and turns of the loop are made by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from configsvc.api.contract import Caller
from configsvc.apply.applier import Applier
from configsvc.apply.commands import (
    BootstrapOp,
    Command,
    Effects,
    Envelope,
    LeaseGrantOp,
    Refused,
    RoleAddOp,
    RoleGrantPermissionOp,
    UserAddOp,
    UserGrantRoleOp,
)
from configsvc.apply.state import ApplyState
from configsvc.auth.bundle import parse_bundle
from configsvc.codec.answers import Headers
from configsvc.errors import ConfigServiceError
from configsvc.mvcc.messages import PutOp
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Waiting
from configsvc.runtime.watch_hub import WatchHub
from configsvc.types import (
    KIND_USER,
    NO_SOURCE,
    SYSTEM_PRINCIPAL,
    KeySpan,
    Principal,
    Source,
    span_of,
)
from tests.support.gateway_fakes import FakeLoop
from tests.support.range_rig import Gate
from tests.support.turns import Turns

HOME = Source("10.0.0.7", "TLSv1.3", "other", "")
ROOT_UID = "00ff"
POLICY = """
schema = "configsvc.policy/v1"
bundle = "base"
version = 1
"""
SECRET = span_of(b"/secret/", b"/secret0")


def person(name: str, uid: str) -> Principal:
    uri = f"spiffe://corp/user/{name}"
    return Principal(KIND_USER, name, name, uid, uri, "0a", "ab", "certificate", "", "", 0)


ROOT = person("root", ROOT_UID)
ADA = person("ada", "a1")


class HeldAudit:
    """The local stream: reads below ``/secret/`` are recorded, when ``record`` says so."""

    problem = ""

    def __init__(self) -> None:
        self.noted: list[tuple[str, Any]] = []  # event and resource
        self._waiting: list[Callable[[Any], None]] = []

    def marks_read(self, event: str, span: KeySpan | None) -> bool:
        return span is None or SECRET.intersects(span)

    def note(
        self,
        event: str,
        principal: Principal,
        source: Source,
        done: Callable[[Any], None] | None = None,
        *,
        resource: Any = None,
        **_: Any,
    ) -> None:
        self.noted.append((event, resource))
        if done is not None:
            self._waiting.append(done)

    def before(self, answer: Callable[[], Any]) -> tuple[Waiting, Callable[[Any], None]]:
        out = Waiting()

        def done(error: Any) -> None:
            try:
                result = answer()
            except ConfigServiceError as refused:
                out.complete(refused)
            else:
                out.follow(result) if isinstance(result, Waiting) else out.complete(result)

        return out, done

    def record(self) -> None:
        """What was noted is on disk."""
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(None)

    @property
    def keys(self) -> list[bytes]:
        return [resource.key for _, resource in self.noted]


class Sink:
    """A client's end of a stream."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends: list[ConfigServiceError | None] = []
        self.room = True

    def send(self, payload: bytes) -> bool:
        assert not self.ends
        self.sent.append(payload)
        return self.room

    def finish(self, error: ConfigServiceError | None) -> None:
        self.ends.append(error)


class ApiMember:
    """What handlers ask of a member."""

    lead = term = 1
    joining = is_learner = policy_facts = False
    trust_domain = "corp"

    def __init__(self, policy: str = POLICY) -> None:
        self.state = ApplyState()
        self._applier = Applier(self.state)
        self.now_ns = 0
        self.loop = FakeLoop()
        self.turns = Turns()
        self.slices = Slices(self.turns)
        self.audit = HeldAudit()
        self.headers = Headers(1, 2)
        self.gate = Gate()
        self.reader: Any = SimpleNamespace()
        self.memory = SimpleNamespace(tight=False)
        self.streams: set[Any] = set()
        self.config = SimpleNamespace(advertised_etcd_version="3.6.0")
        self.reads = SimpleNamespace(submit=self._read)
        self.proposals = SimpleNamespace(submit=self._propose)
        self.renewals: list[Callable[[Any], None]] = []
        self.leases = SimpleNamespace(
            renew=lambda _, told: self.renewals.append(told),
            time_to_live=lambda _, told: self.renewals.append(told),
        )
        self.hub = WatchHub(
            store=self.state.store,
            header=lambda revision: self.headers.field(revision, self.term),
            rights_version=lambda: self.state.auth.version,
            gate=self.gate,  # type: ignore[arg-type]
            history=self.reader,
            applied=lambda: self.applied,
            wake=lambda: None,
        )
        bundle = parse_bundle(policy)
        rules = bundle.policy
        born = BootstrapOp("corp", policy, False, bundle.compiled, rules.name, rules.version)
        self.do(SYSTEM_PRINCIPAL, born, new_uid=ROOT_UID)

    @property
    def store(self) -> Any:
        return self.state.store

    @property
    def decider(self) -> Any:
        return self.state.decider

    @property
    def applied(self) -> int:
        return self.state.applied

    def time_ns(self) -> int:
        return self.now_ns

    def has_alarm(self, _: int) -> bool:
        return False

    def may_write_lease(self, principal: Principal, source: Source, lease_id: int) -> None:
        self.state.judge_lease(principal, source, lease_id, self.now_ns)

    def _read(self, answer: Callable[[], Any], **_: Any) -> Waiting:
        out = Waiting()
        try:
            result = answer()
        except ConfigServiceError as error:
            out.complete(error)
        else:
            out.follow(result) if isinstance(result, Waiting) else out.complete(result)
        return out

    def _propose(
        self, who: Any, _field: int, op: Any, encode: Callable[[Effects], Any], **_: Any
    ) -> Waiting:
        """``who`` and ``op`` are what a test put there, not bytes."""
        return self._read(lambda: encode(self.apply(who, op)))

    # --- what tests do ---------------------------------------------------------------------------

    def apply(self, who: Principal, op: Any, **more: Any) -> Effects:
        """One entry of the log; watchers are fed."""
        index = self.state.applied + 1
        source = NO_SOURCE if who is SYSTEM_PRINCIPAL else HOME
        salt = index.to_bytes(32, "big")
        env = Envelope(index, who, source, "", "", salt, (), "", index, False, 1, 0)
        effects = self._applier.apply(index, 1, Command(env._replace(**more), op, 100))
        self.hub.feed([effects])
        return effects

    def do(self, who: Principal, op: Any, **more: Any) -> None:
        """One entry that must not be refused."""
        result = self.apply(who, op, **more).result
        assert not isinstance(result, Refused), result

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> None:
        self.do(ROOT, PutOp(key, value, lease))

    def grant(self, lease: int, who: Principal = ROOT) -> None:
        self.do(who, LeaseGrantOp(10, lease))

    def user(self, who: Principal, *grants: tuple[int, bytes, bytes]) -> None:
        """``who`` with a role of its own name that holds ``grants`` (type, key, range_end)."""
        self.do(ROOT, UserAddOp(who.user, "", True), new_uid=who.uid)
        self.do(ROOT, RoleAddOp(who.user))
        self.do(ROOT, UserGrantRoleOp(who.user, who.user))
        for kind, key, end in grants:
            self.do(ROOT, RoleGrantPermissionOp(who.user, kind, key, end))


def caller(who: Principal, expires_ns: int | None = None) -> Caller:
    made = Caller(who, HOME, b"")
    if expires_ns is not None:
        made.expires_ns = expires_ns
    return made


def told(waiting: bytes | Waiting) -> list[Any]:
    """What a call is answered with, once it is."""
    got: list[Any] = []
    if isinstance(waiting, Waiting):
        waiting.bind(got.append)
    else:
        got.append(waiting)
    return got
