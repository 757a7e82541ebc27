"""The lease clock: which leases run out when, renewals, and the proposals that end them.

Only the leader decides expiry, on its monotonic clock, after a quorum round that started after
the deadline (X1). A new leader gives every lease its full TTL, or the checkpointed rest, plus an
election timeout (X2). A stall of this process moves all deadlines, for clients could not renew.
While a member is known to be corrupt nothing runs out (N4).

A renewal is answered by the confirmed leader after applying everything committed at that round
(X4); other members pass it on.

Not here: which keys go (``apply``), the rules themselves (``lease``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, Protocol

from configsvc.apply.state import CORRUPT
from configsvc.codec import command as codec
from configsvc.codec.lease import checkpoint_op, revoke_op
from configsvc.errors import (
    ConfigServiceError,
    DecodeError,
    LeaderChangedError,
    NoLeaderError,
    OverloadedError,
)
from configsvc.lease.lessor import Lessor
from configsvc.runtime.proposals import Clock, Proposals
from configsvc.runtime.reads import Reads
from configsvc.runtime.rpc import CALLS_MAX, PeerCalls, PeerMethod
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId

CHECK_EVERY_S: Final = 0.5
REVOKES_PER_CHECK: Final = 500  # 1,000 a second (X5)
CHECKPOINT_EVERY_S: Final = 15.0
CHECKPOINTS_PER_ENTRY: Final = 1_000
RENEWALS_MAX: Final = CALLS_MAX  # that wait for one round; OverloadedError beyond
_ID = struct.Struct("<q")
_TTLS = struct.Struct("<qq")
NS: Final = 1_000_000_000

Told = Callable[["int | ConfigServiceError"], None]
ToldTtl = Callable[["tuple[int, int] | ConfigServiceError"], None]


def _ignore(_: ConfigServiceError | None) -> None:
    return


class Leadership(Protocol):
    """What the lease clock needs to know of the member."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def lead(self) -> NodeId: ...

    @property
    def term(self) -> int: ...

    def has_alarm(self, alarm: int) -> bool: ...


class Leases:
    """One member's view of the leases."""

    def __init__(
        self,
        *,
        member: Leadership,
        lessor: Lessor,
        clock: Clock,
        proposals: Proposals,
        reads: Reads,
        calls: PeerCalls,
        election_timeout: float,
    ) -> None:
        self._member = member
        self._lessor = lessor
        self._clock = clock
        self._proposals = proposals
        self._reads = reads
        self._calls = calls
        self._extend_ns = int(election_timeout * NS)
        self._next_check = 0.0
        self._next_checkpoint = 0.0
        self._round_open = False
        self._waiting_renewals: list[tuple[int, Told]] = []
        self.expired_total = 0
        self.renewed_total = 0
        calls.serve(PeerMethod.LEASE_RENEW, self._serve_renew)
        calls.serve(PeerMethod.LEASE_TIME_TO_LIVE, self._serve_time_to_live)

    # --- leadership and time ---------------------------------------------------------------------

    def promoted(self) -> None:
        """This member leads from now on."""
        self._lessor.promote(self._now_ns(), self._extend_ns)
        self._next_checkpoint = self._clock.monotonic() + CHECKPOINT_EVERY_S

    def demoted(self) -> None:
        """Somebody else decides from now on."""
        self._lessor.demote()
        waiting, self._waiting_renewals = self._waiting_renewals, []
        for _, told in waiting:
            told(LeaderChangedError())

    def stalled(self, seconds: float) -> None:
        """This process stood still: clients could not renew (X2)."""
        if self._member.is_leader:
            self._lessor.shift(int(seconds * NS))

    def tick(self) -> None:
        """Look for leases that ran out; called every raft tick."""
        if not self._member.is_leader:
            return
        now = self._clock.monotonic()
        if now < self._next_check or self._round_open:
            return
        self._next_check = now + CHECK_EVERY_S
        if now >= self._next_checkpoint:
            self._next_checkpoint = now + CHECKPOINT_EVERY_S
            self._checkpoint()
        due = self._lessor.next_due_ns()
        if due is None or due > self._now_ns():
            return
        if self._member.has_alarm(CORRUPT):
            # No revoke takes effect then (N4): each try would leave a refusal in the audit stream,
            # once a second. What is due goes when the alarm is disarmed.
            return
        # The decision needs a round that starts after the deadline: only now (X1).
        self._round_open = True
        try:
            self._reads.submit(self._revoke_expired, urgent=True).bind(self._round_done)
        except ConfigServiceError:
            self._round_open = False

    def _round_done(self, _: bytes | ConfigServiceError) -> None:
        self._round_open = False

    def granted(self, lease_id: int) -> None:
        """A grant was applied here."""
        if self._member.is_leader:
            self._lessor.granted(lease_id, self._now_ns())

    def _revoke_expired(self) -> bytes:
        if self._member.is_leader and self._lessor.leading:
            ids = self._lessor.expired(self._now_ns(), REVOKES_PER_CHECK)
            if ids:
                self.expired_total += len(ids)
                self._propose(codec.OP_LEASE_REVOKE, revoke_op(ids, self._member.term))
        return b""

    def _checkpoint(self) -> None:
        rest = self._lessor.checkpoints_due(self._now_ns(), CHECKPOINTS_PER_ENTRY)
        if rest:
            self._propose(codec.OP_LEASE_CHECKPOINT, checkpoint_op(rest))

    def _propose(
        self, op_field: int, op: bytes, done: Callable[[ConfigServiceError | None], None] = _ignore
    ) -> None:
        """Propose in the cluster's own name; the lessor names again what got lost."""

        def finished(result: bytes | ConfigServiceError) -> None:
            done(result if isinstance(result, ConfigServiceError) else None)

        try:
            self._proposals.submit(
                codec.SYSTEM_ACTOR, op_field, op, lambda _: b"", urgent=True
            ).bind(finished)
        except ConfigServiceError as error:
            done(error)

    # --- renewals --------------------------------------------------------------------------------

    def renew(self, lease_id: int, told: Told) -> None:
        """Renew for its full TTL; ``told`` gets the TTL, 0 if the lease is gone (L5, L11)."""
        if self._member.is_leader:
            if len(self._waiting_renewals) >= RENEWALS_MAX:
                told(OverloadedError())
                return
            self._waiting_renewals.append((lease_id, told))
            if len(self._waiting_renewals) == 1:
                try:
                    self._reads.submit(self._renew_all, urgent=True).bind(self._renew_failed)
                except ConfigServiceError as error:
                    self._renew_failed(error)
            return
        lead = self._member.lead
        if not lead:
            told(NoLeaderError())
            return

        def answered(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                told(result)
            else:
                told(_ID.unpack(result)[0])

        self._calls.call(lead, PeerMethod.LEASE_RENEW, _ID.pack(lease_id)).bind(answered)

    def _renew_all(self) -> bytes:
        waiting, self._waiting_renewals = self._waiting_renewals, []
        now = self._now_ns()
        leading = self._member.is_leader and self._lessor.leading
        for lease_id, told in waiting:
            if not leading:
                told(LeaderChangedError())
                continue
            renewal = self._lessor.renew(lease_id, now)
            self.renewed_total += bool(renewal.ttl_s)
            if renewal.clear_first:
                self._clear_then_tell(lease_id, renewal.ttl_s, told)
            else:
                told(renewal.ttl_s)
        return b""

    def _clear_then_tell(self, lease_id: int, ttl: int, told: Told) -> None:
        """A shorter rest is on the log: take it off before the client relies on the full TTL."""
        self._propose(
            codec.OP_LEASE_CHECKPOINT,
            checkpoint_op([(lease_id, 0)]),
            lambda error: told(ttl if error is None else error),
        )

    def _renew_failed(self, result: bytes | ConfigServiceError) -> None:
        if not isinstance(result, ConfigServiceError):
            return
        waiting, self._waiting_renewals = self._waiting_renewals, []
        for _, told in waiting:
            told(result)

    def _serve_renew(self, peer: NodeId, body: bytes) -> Waiting:
        if len(body) != _ID.size:
            raise DecodeError("lease call of the wrong length")
        if not self._member.is_leader:
            raise NoLeaderError
        out = Waiting()

        def told(ttl: int | ConfigServiceError) -> None:
            out.complete(ttl if isinstance(ttl, ConfigServiceError) else _ID.pack(ttl))

        self.renew(_ID.unpack(body)[0], told)
        return out

    # --- time to live ----------------------------------------------------------------------------

    def time_to_live(self, lease_id: int, told: ToldTtl) -> None:
        """Seconds left and granted TTL; (-1, 0) when the lease is unknown (L7)."""
        if self._member.is_leader:
            out = self._reads.submit(lambda: self._pack_ttl(lease_id), urgent=True)
        elif self._member.lead:
            out = self._calls.call(
                self._member.lead, PeerMethod.LEASE_TIME_TO_LIVE, _ID.pack(lease_id)
            )
        else:
            raise NoLeaderError

        def answered(result: bytes | ConfigServiceError) -> None:
            told(result if isinstance(result, ConfigServiceError) else _TTLS.unpack(result))

        out.bind(answered)

    def _pack_ttl(self, lease_id: int) -> bytes:
        if not self._lessor.leading:
            raise LeaderChangedError
        if lease_id not in self._lessor:
            return _TTLS.pack(-1, 0)
        left = self._lessor.remaining_s(lease_id, self._now_ns())
        return _TTLS.pack(max(0, left), self._lessor.get(lease_id).ttl_s)

    def _serve_time_to_live(self, peer: NodeId, body: bytes) -> Waiting:
        if len(body) != _ID.size:
            raise DecodeError("lease call of the wrong length")
        if not self._member.is_leader:
            raise NoLeaderError
        lease_id = _ID.unpack(body)[0]
        return self._reads.submit(lambda: self._pack_ttl(lease_id), urgent=True)

    def ids_by_time_left(self) -> list[int]:
        """All lease ids; on the leader the next to run out first (L8)."""
        return self._lessor.by_time_left()

    def _now_ns(self) -> int:
        return int(self._clock.monotonic() * NS)
