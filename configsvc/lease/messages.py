"""Values of the lease room."""

from __future__ import annotations

from configsvc.types import Principal


class Lease:
    """One granted lease. Written by ``Lessor`` only; ``deadline_ns`` means something on the leader.

    ``epoch`` grows with each newly attached key, so that a check of all keys can be remembered.
    """

    __slots__ = (
        "creator",
        "deadline_ns",
        "ending",
        "epoch",
        "id",
        "keys",
        "noted_ns",
        "remaining_s",
        "ttl_s",
    )

    def __init__(self, lease_id: int, ttl_s: int, creator: str, remaining_s: int = 0) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s  # as granted
        self.creator = creator  # see ``creator_of``
        self.remaining_s = remaining_s  # last checkpoint; 0: none, the full TTL counts
        self.keys: dict[bytes, int] = {}  # attached key -> epoch it came with, ascending
        self.epoch = 0
        self.deadline_ns = 0
        self.ending = False  # its end was proposed in this term; no renewal any more
        self.noted_ns = 0  # when the remaining time was last put on the log

    def sorted_keys(self) -> list[bytes]:
        """Attached keys, ascending (W18)."""
        return sorted(self.keys)


def creator_of(principal: Principal) -> str:
    """How a lease remembers who granted it: by uid, so a re-created user is another creator.

    A principal that is no known user (an agent, a service) goes by its name. Empty while auth is
    off.
    """
    return principal.uid or principal.user
