"""What a member tells the cluster when it starts, in order, and when it is ready.

The first leader of a new cluster proposes the one bootstrap entry. Every member then publishes
its attributes and its public keys through the log, once per start. It is ready when all of that
is applied here and a linearizable read has succeeded; not before (P4, JWT-8, FC-5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from configsvc.apply.commands import Command, Effects, Refused
from configsvc.codec import command as codec
from configsvc.codec.publishing import attributes_op, signing_key_op
from configsvc.errors import ConfigServiceError, ExitCode, FatalError, StoppedError

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

UID_BYTES: Final = 16  # of the user that the bootstrap entry creates
RETRY_S: Final = 0.5  # between two tries, once the outcome of the first is known to be none


class Publishing:
    """The steps of one start; ``tick`` moves them on."""

    def __init__(self, member: Member, bootstrap_op: bytes, genesis: Mapping[int, Sequence[str]]):
        self._member = member
        self._bootstrap_op = bootstrap_op
        self.genesis = dict(genesis)
        self._steps: list[Callable[[], tuple[int, bytes] | None]] = [
            self._attributes,
            lambda: self._key("token", member.token_key),
            lambda: self._key("log", member.log_key),
        ]
        self._waiting = False
        self._next_try = 0.0
        self._attributes_told = False
        self._probing = False

    def leadership(self, lead: int) -> None:
        """Leadership moved: what was proposed may be lost."""
        self._waiting = False
        self._next_try = 0.0

    def applied(self, effects: Sequence[Effects], commands: Sequence[Command | None]) -> None:
        """Entries were applied; the next step follows at once instead of at the next tick."""
        if not self._member.ready and not self._waiting:
            self._move()

    def tick(self) -> None:
        """Called every raft tick."""
        if not self._member.ready and not self._member.stopping:
            self._move()

    def _move(self) -> None:
        member = self._member
        if self._waiting or not member.lead or member.stopping:
            return
        now = member.clock.monotonic()
        if now < self._next_try:
            return
        if not member.state.bootstrapped:
            if member.is_leader and member.leading_since_term == member.term:
                self._propose(codec.OP_BOOTSTRAP, self._bootstrap_op)
            return
        if member.self_id not in member.state.members.by_id:
            return  # not yet a member in applied state: the entry that adds it is on its way
        while self._steps:
            step = self._steps[0]()
            if step is not None:
                self._propose(*step)
                return
            self._steps.pop(0)
        self._probe()

    def _attributes(self) -> tuple[int, bytes] | None:
        if self._attributes_told:
            return None
        member = self._member
        op = attributes_op(
            member.self_id,
            member.config.name,
            member.config.advertised_clients,
            member.store_id,
            member.config.advertised_etcd_version,
        )
        return codec.OP_MEMBER_ATTRIBUTES, op

    def _key(self, use: str, key: Any) -> tuple[int, bytes] | None:
        member = self._member
        known = member.state.signing_keys.get(key.kid)
        if known is not None and known.state == "active":
            return None
        op = signing_key_op(key.kid, use, member.self_id, key.public_bytes, "active")
        return codec.OP_SIGNING_KEY, op

    def _propose(self, op_field: int, op: bytes) -> None:
        member = self._member
        self._waiting = True
        self._next_try = member.clock.monotonic() + RETRY_S

        def encode(effects: Effects) -> bytes:
            result = effects.result
            if isinstance(result, Refused):
                raise result.error
            return b""

        def done(result: bytes | ConfigServiceError) -> None:
            self._waiting = False
            if isinstance(result, StoppedError):
                return
            if isinstance(result, ConfigServiceError):
                self._refused(op_field, result)
                return
            self._next_try = 0.0
            if op_field == codec.OP_MEMBER_ATTRIBUTES:
                self._attributes_told = True
            self._move()

        try:
            member.proposals.submit(
                codec.SYSTEM_ACTOR,
                op_field,
                op,
                encode,
                new_uid=os.urandom(UID_BYTES).hex() if op_field == codec.OP_BOOTSTRAP else "",
                urgent=True,
            ).bind(done)
        except ConfigServiceError as error:
            self._waiting = False
            self._refused(op_field, error)

    def _refused(self, op_field: int, error: ConfigServiceError) -> None:
        member = self._member
        member.report.warn(
            "runtime", "publishing was not applied", reason=str(error), kind=op_field
        )
        if "another store id" in str(error):
            member.die(
                FatalError(
                    ExitCode.WRONG_IDENTITY,
                    "the cluster knows this member with another store id",
                    "its data was lost or swapped: remove the member and add it under a new id",
                )
            )

    def _probe(self) -> None:
        """One linearizable read through this member, then it is ready."""
        if self._probing:
            return
        self._probing = True
        member = self._member

        def done(result: bytes | ConfigServiceError) -> None:
            self._probing = False
            if not isinstance(result, ConfigServiceError) and not member.stopping:
                member.set_ready()

        try:
            member.reads.submit(lambda: b"", urgent=True).bind(done)
        except ConfigServiceError:
            self._probing = False
