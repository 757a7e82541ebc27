"""What the replicated state says about this member's keys, policy, alarms and leases' owners.

Answers that are asked on every call are kept until what they follow from has changed.

Not here: the state itself (``apply.state``), judging a call (``auth.decide``, ``apply.rights``).
"""

from __future__ import annotations

from configsvc.apply.commands import Envelope
from configsvc.apply.rights import Rights
from configsvc.apply.state import ApplyState
from configsvc.auth.decide import Decider
from configsvc.auth.facts import facts_wanted
from configsvc.identity.tokens import TokenKeys, public_key
from configsvc.types import Principal, Source


class Standing:
    """Facts of the applied state."""

    def __init__(self, state: ApplyState, decider: Decider) -> None:
        self._state = state
        self._rights = Rights(state.auth, decider, state.lessor)
        self._token_keys: tuple[tuple[int, int], TokenKeys] = ((-1, 0), {})
        self._facts_wanted = (-1, False)

    @property
    def token_keys(self) -> TokenKeys:
        """Public token keys in force, rebuilt when the replicated set changed."""
        held = self._state.signing_keys
        mark = (len(held), max((k.since_index for k in held.values()), default=0))
        if self._token_keys[0] != mark:
            keys = {
                k.kid: public_key(k.public, accepted=k.state in ("active", "retired"))
                for k in held.values()
                if k.use == "token"
            }
            self._token_keys = (mark, keys)
        return self._token_keys[1]

    @property
    def policy_facts(self) -> bool:
        """Whether the policy in force asks for the format of values."""
        auth = self._state.auth
        if self._facts_wanted[0] != auth.version:
            self._facts_wanted = (auth.version, facts_wanted(auth.policy))
        return self._facts_wanted[1]

    def log_public_key(self, member: int) -> bytes | None:
        """The log key that a member signs with, if it published one."""
        return next(iter(self._log_keys(member, ("active",))), None)

    def log_public_keys(self, member: int) -> list[bytes]:
        """Every log key that a member's signatures may be of.

        A retired one counts: what a member signed before it was removed stays good. An empty list
        means that nothing of that member can be judged.
        """
        return self._log_keys(member, ("active", "retired"))

    def _log_keys(self, member: int, states: tuple[str, ...]) -> list[bytes]:
        keys = self._state.signing_keys.values()
        found = (k for k in keys if k.member == member and k.use == "log" and k.state in states)
        return [k.public for k in found]

    def has_alarm(self, alarm: int) -> bool:
        return any(kind == alarm for _, kind in self._state.alarms)

    def alarms(self) -> list[tuple[int, int]]:
        """(member, alarm), sorted."""
        return sorted(self._state.alarms)

    def may_write_lease(
        self, principal: Principal, source: Source, lease_id: int, time_ns: int
    ) -> None:
        """Raise unless the caller may renew or revoke the lease (3.5)."""
        lease = self._state.lessor.leases.get(lease_id)
        if lease is None:
            return  # told as such by whoever renews or revokes it
        env = Envelope(0, principal, source, "", "", b"", (), "", time_ns, False, 0, 0)
        self._rights.lease_write(self._rights.view(env), env, lease)
