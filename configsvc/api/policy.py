"""configsvc.v1.Policy: the bundle in force, loading one, and explaining a decision."""

from __future__ import annotations

from typing import Any

from configsvc.api.contract import Caller
from configsvc.api.service import Service
from configsvc.auth.actions import ACTIONS, KEY_ACTIONS
from configsvc.auth.bundle import parse_bundle
from configsvc.auth.explain import explain
from configsvc.auth.lockout import check_lockout
from configsvc.auth.messages import READ, Request
from configsvc.auth.policy_tests import run_tests
from configsvc.codec import command as codec
from configsvc.codec import requests
from configsvc.errors import ConflictError, InvalidArgumentError, PolicyInvalidError
from configsvc.proto import command_pb2, v1_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.types import Principal, span_of


class PolicyService(Service):
    """Handlers of Policy."""

    def show(self, caller: Caller, raw: bytes) -> Waiting:
        """The bundle in force, as it was loaded."""
        requests.parse(v1_pb2.PolicyShowRequest, raw)

        def answer() -> bytes:
            self.need(caller, "policy.read")
            auth = self.member.state.auth
            out = v1_pb2.PolicyShowResponse(
                name=auth.policy.name,
                version=auth.policy.version,
                source=auth.policy_source,
                auth_revision=auth.revision,
            )
            return self.header() + out.SerializeToString()

        return self.linearizable(caller, answer)

    def load(self, caller: Caller, raw: bytes) -> Waiting:
        """Judge a bundle, run its tests, and make it the active one by one entry (POL-9..11)."""
        m = requests.parse(v1_pb2.PolicyLoadRequest, raw)
        self.need(caller, "policy.load")
        bundle = parse_bundle(m.source)
        failures = run_tests(bundle)
        if failures:
            raise PolicyInvalidError("; ".join(failures[:5]))
        policy = bundle.policy
        current = self.member.state.auth.policy
        if policy.version <= current.version:
            raise ConflictError(f"version must rise: version {current.version} is in force")
        if not m.allow_lockout:
            loader = Request(
                caller.principal,
                caller.source,
                "policy.load",
                reason=caller.reason,
                ticket=caller.ticket,
                time_ns=self.member.time_ns(),
            )
            problems = check_lockout(policy, self.member.state.auth, loader)
            if problems:
                raise PolicyInvalidError("; ".join(problems) + "; --allow-lockout loads it anyway")
        op = command_pb2.PolicyLoad(
            source=m.source,
            compiled=bundle.compiled,
            version=policy.version,
            name=policy.name,
        )

        def answer(effects: Any) -> bytes:
            header = self.done(effects)
            out = v1_pb2.PolicyLoadResponse(name=policy.name, version=policy.version)
            return header + out.SerializeToString()

        return self.propose(caller, codec.OP_POLICY_LOAD, op.SerializeToString(), answer)

    def can_i(self, caller: Caller, raw: bytes) -> Waiting:
        """What would be decided, and why (POL-12)."""
        m = requests.parse(v1_pb2.CanIRequest, raw)
        if m.action not in ACTIONS:
            raise InvalidArgumentError("action: not one of the closed list")

        def answer() -> bytes:
            self.standing(caller)
            if getattr(m, "as"):
                self.need(caller, "policy.explain_others")
            found = explain(self.member.state.auth, self._asked(caller, m))
            if not self.holds(caller, "policy.read"):
                found = found.without_texts()
            out = v1_pb2.CanIResponse(
                allowed=found.decision.allowed,
                rule=found.decision.rule,
                auth_revision=found.auth_revision,
                policy=found.policy,
            )
            if m.explain:
                for line in found.considered:
                    verdict = f"{line.verdict}  {line.reason}".rstrip()
                    out.steps.add(kind=line.effect, rule=line.rule, verdict=verdict)
            return self.header() + out.SerializeToString()

        return self.linearizable(caller, answer)

    def _asked(self, caller: Caller, m: Any) -> Request:
        principal = caller.principal
        who = getattr(m, "as")
        if who:
            principal = self._named(who)
        source = caller.source._replace(ip=m.source_ip) if m.source_ip else caller.source
        span = None
        if m.action in KEY_ACTIONS:
            if not m.key:
                raise InvalidArgumentError("key: needed for this action")
            span = span_of(m.key, m.range_end)
        facts = {"value.format": m.value_format} if m.value_format else {}
        return Request(
            principal,
            source,
            m.action,
            span,
            KEY_ACTIONS.get(m.action, READ),
            facts,
            m.reason,
            m.ticket,
            m.value_bytes if m.value_bytes >= 0 else None,
            self.member.time_ns(),
        )

    def _named(self, who: str) -> Principal:
        kind, slash, name = who.partition("/")
        if not slash:
            kind, name = "user", who
        if kind not in ("user", "agent", "service") or not name:
            raise InvalidArgumentError("as: user/NAME, agent/NAME or service/NAME")
        user = name if kind == "user" else f"{kind}/{name}"
        known = self.member.state.auth.users.get(user)
        uri = f"spiffe://{self.member.trust_domain}/{kind}/{name}"
        uid = known.uid if known is not None else ""
        return Principal(kind, name, user, uid, uri, "", "", "certificate", "", "", 0)
