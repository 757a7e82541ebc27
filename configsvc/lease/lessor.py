"""Leases: which keys must disappear, and when.

Owns the granted leases, which keys hang on them, and on the leader the order in which they run
out. Reads no clock: callers pass ``now_ns``, nanoseconds on a scale that only has to be monotonic
on this member.

Always true:
  * Grants, keys and checkpoints are replicated state: the same on every member. Deadlines are the
    leader's own and appear in no result of apply.
  * A lease id means one lease from its grant to its revocation; a key hangs on at most one.
  * A lease whose deadline has passed is never revived (L11); it goes when a revocation is applied.

Not here: deleting the keys (``apply``), proposing expiry and the rounds before it
(``runtime.leases``), keep-alive streams (``api``).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from configsvc.errors import (
    LeaseExistError,
    LeaseNotFoundError,
    LeaseTTLTooLargeError,
    RequestTooManyRequestsError,
    ensure,
)
from configsvc.lease.messages import Lease
from configsvc.limits import (
    LEASE_CHECKPOINT_S,
    LEASE_CHECKPOINT_TTL_MIN_S,
    LEASE_EXPIRY_RETRY_S,
    LEASE_TTL_MAX_S,
    LEASES_PER_IDENTITY_MAX,
)

SECOND_NS = 1_000_000_000


class Renewal(NamedTuple):
    """Answer to a keep-alive.

    ``ttl_s`` 0: unknown or run out (L5). ``clear_first``: a checkpoint of a shorter rest is on the
    log; put (id, 0) there before telling the client, or the next leader would cut it short.
    """

    ttl_s: int
    clear_first: bool


class Lessor:
    """All leases of the cluster as of the applied index.

    Args:
        ttl_min_s: Shorter TTLs are raised to it (L2); the same on every member.
        limited: Whether the number of leases per creator is bounded (LIM-14).
    """

    def __init__(self, ttl_min_s: int, *, limited: bool = True) -> None:
        ensure(ttl_min_s > 0, "the shortest TTL is positive")
        self.leases: dict[int, Lease] = {}  # read freely, written here
        self.ttl_min_s = ttl_min_s
        self.limited = limited
        self.leading = False
        self._per_creator: dict[str, int] = {}
        self._due: list[tuple[int, int]] = []  # (deadline or retry time, id); may lag behind
        self._shift_ns = 0  # added to every stored deadline

    def __contains__(self, lease_id: object) -> bool:
        return lease_id in self.leases

    def __len__(self) -> int:
        return len(self.leases)

    # --- replicated ------------------------------------------------------------------------------

    def check_grant(self, lease_id: int, ttl_s: int, creator: str) -> int:
        """The TTL that a grant would get.

        Raises:
            LeaseTTLTooLargeError: above ``LEASE_TTL_MAX_S``.
            LeaseExistError: the id is in use.
            RequestTooManyRequestsError: the creator holds ``LEASES_PER_IDENTITY_MAX`` already.
        """
        if ttl_s > LEASE_TTL_MAX_S:
            raise LeaseTTLTooLargeError
        if lease_id in self.leases:
            raise LeaseExistError
        if (
            self.limited
            and creator
            and self._per_creator.get(creator, 0) >= LEASES_PER_IDENTITY_MAX
        ):
            raise RequestTooManyRequestsError
        return max(ttl_s, self.ttl_min_s)

    def grant(self, lease_id: int, ttl_s: int, creator: str) -> Lease:
        """Add a lease; ``ttl_s`` is raised to the minimum. Raises as ``check_grant``."""
        ensure(lease_id, "a lease has an id")
        lease = Lease(lease_id, self.check_grant(lease_id, ttl_s, creator), creator)
        self._add(lease)
        return lease

    def _add(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self._per_creator[lease.creator] = self._per_creator.get(lease.creator, 0) + 1

    def get(self, lease_id: int) -> Lease:
        """Raises ``LeaseNotFoundError``."""
        lease = self.leases.get(lease_id)
        if lease is None:
            raise LeaseNotFoundError
        return lease

    def revoke(self, lease_id: int) -> Lease:
        """Remove a lease; its keys must have been detached or deleted by the same entry."""
        lease = self.get(lease_id)
        del self.leases[lease_id]
        left = self._per_creator[lease.creator] - 1
        if left:
            self._per_creator[lease.creator] = left
        else:
            del self._per_creator[lease.creator]
        return lease

    def move(self, key: bytes, before: int, after: int) -> None:
        """``key`` hangs on ``after`` now and no longer on ``before``; 0 is no lease (L12)."""
        if before:
            lease = self.leases.get(before)
            if lease is not None:
                lease.keys.pop(key, None)
        if after:
            lease = self.leases[after]
            lease.epoch += 1
            lease.keys[key] = lease.epoch

    def checkpoint(self, lease_id: int, remaining_s: int) -> bool:
        """Note the rest of a lease's life; 0 is the full TTL. False: no such lease."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return False
        lease.remaining_s = min(max(remaining_s, 0), lease.ttl_s)
        return True

    def load(
        self,
        rows: Iterable[tuple[int, int, str, int]],
        attached: Iterable[tuple[bytes, int]],
    ) -> None:
        """Replace everything.

        Args:
            rows: (id, ttl, creator, remaining), as the table ``leases`` has them.
            attached: Live keys with a lease.
        """
        self.leases = {}
        self._per_creator = {}
        self._due = []
        self.leading = False
        for lease_id, ttl_s, creator, remaining_s in rows:
            self._add(Lease(lease_id, ttl_s, creator, remaining_s))
        for key, lease_id in attached:
            lease = self.leases.get(lease_id)
            ensure(lease is not None, "a live key hangs on a lease that exists")
            self.move(key, 0, lease_id)

    def rows(self) -> list[tuple[int, int, str, int]]:
        """What ``load`` takes, by id."""
        return [(x.id, x.ttl_s, x.creator, x.remaining_s) for _, x in sorted(self.leases.items())]

    # --- leader only -----------------------------------------------------------------------------

    def promote(self, now_ns: int, extend_ns: int) -> None:
        """Become the one who counts: each lease gets its whole rest anew, plus ``extend_ns`` (X2).

        ``extend_ns`` is one election timeout: what clients may have lost while nobody led.
        """
        self.leading = True
        self._shift_ns = 0
        for lease in self.leases.values():
            rest = lease.remaining_s or lease.ttl_s
            lease.deadline_ns = now_ns + rest * SECOND_NS + extend_ns
            lease.noted_ns = now_ns
            lease.ending = False
        self._due = [(lease.deadline_ns, lease.id) for lease in self.leases.values()]
        heapify(self._due)

    def demote(self) -> None:
        """Stop counting; deadlines mean nothing until the next ``promote``."""
        self.leading = False
        self._due = []

    def granted(self, lease_id: int, now_ns: int) -> None:
        """A grant was applied on the leader: its life begins."""
        lease = self.leases.get(lease_id)
        if self.leading and lease is not None:
            lease.noted_ns = now_ns
            lease.deadline_ns = now_ns + lease.ttl_s * SECOND_NS - self._shift_ns
            heappush(self._due, (lease.deadline_ns, lease_id))

    def renew(self, lease_id: int, now_ns: int) -> Renewal:
        """A keep-alive reached the leader."""
        ensure(self.leading, "only the leader renews")
        lease = self.leases.get(lease_id)
        if lease is None or lease.ending or lease.deadline_ns + self._shift_ns <= now_ns:
            return Renewal(0, False)
        # Never shorter: a stall or a new term may have given more, and the queue relies on it.
        renewed = now_ns + lease.ttl_s * SECOND_NS - self._shift_ns
        lease.deadline_ns = max(lease.deadline_ns, renewed)
        return Renewal(lease.ttl_s, 0 < lease.remaining_s < lease.ttl_s)

    def remaining_s(self, lease_id: int, now_ns: int) -> int:
        """Whole seconds left on the leader, rounded down (L7); -1: unknown or run out."""
        ensure(self.leading, "only the leader knows how much time is left")
        lease = self.leases.get(lease_id)
        if lease is None or lease.ending:
            return -1
        left = lease.deadline_ns + self._shift_ns - now_ns
        return left // SECOND_NS if left > 0 else -1

    def expired(self, now_ns: int, limit: int) -> list[int]:
        """Up to ``limit`` leases whose time is over, earliest first.

        One that is not revoked soon, because the proposal got lost, is named again after
        ``LEASE_EXPIRY_RETRY_S``. Once named it cannot be renewed: its end may be on the log
        already, and a stall noticed afterwards (``shift``) must not give it a second life.
        """
        ensure(self.leading, "only the leader ends leases")
        due = self._due
        mark = now_ns - self._shift_ns
        found: list[int] = []
        while due and due[0][0] <= mark and len(found) < limit:
            _, lease_id = heappop(due)
            lease = self.leases.get(lease_id)
            if lease is None:
                continue
            if lease.deadline_ns > mark and not lease.ending:  # renewed since it was queued
                heappush(due, (lease.deadline_ns, lease_id))
                continue
            lease.ending = True
            found.append(lease_id)
            heappush(due, (mark + LEASE_EXPIRY_RETRY_S * SECOND_NS, lease_id))
        return found

    def next_due_ns(self) -> int | None:
        """No lease runs out before this time; None: there is none."""
        return self._due[0][0] + self._shift_ns if self._due else None

    def shift(self, stall_ns: int) -> None:
        """Move all deadlines: this member stood still and nobody could renew (X2)."""
        ensure(stall_ns >= 0, "a stall has a length")
        self._shift_ns += stall_ns

    def checkpoints_due(self, now_ns: int, limit: int) -> list[tuple[int, int]]:
        """(id, remaining seconds) to put on the log: long leases, every 15 s (X3).

        Each is named once per interval, whether or not the entry gets through.
        """
        ensure(self.leading, "only the leader makes checkpoints")
        found: list[tuple[int, int]] = []
        for lease in self.leases.values():
            if len(found) >= limit:
                break
            if lease.ttl_s <= LEASE_CHECKPOINT_TTL_MIN_S:
                continue
            if now_ns - lease.noted_ns < LEASE_CHECKPOINT_S * SECOND_NS:
                continue
            lease.noted_ns = now_ns
            left = -((now_ns - lease.deadline_ns - self._shift_ns) // SECOND_NS)
            if 0 < left < lease.ttl_s:
                found.append((lease.id, left))
        return found

    def by_time_left(self) -> list[int]:
        """Ids; on the leader the one that runs out first comes first (L8), else ascending."""
        if self.leading:
            return sorted(self.leases, key=lambda i: (self.leases[i].deadline_ns, i))
        return sorted(self.leases)
