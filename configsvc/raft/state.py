"""The state of one core, and the two outboxes. Rules live in the modules named after them.

``Raft`` is a record that the rule modules share: ``roles`` is the only writer of role, term, vote
and leader, ``membership.switching`` of the configuration and the set of peers, ``reads`` of the
waiting reads.

Outboxes (C3): what is in ``outbox`` may leave at once; what is in ``outbox_after_append`` promises
something and waits until everything unstable at that moment is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from configsvc.errors import ensure
from configsvc.raft import quorum
from configsvc.raft.config import RaftConfig
from configsvc.raft.log import RaftLog
from configsvc.raft.membership import confchange
from configsvc.raft.messages import (
    ConfState,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    SoftState,
)
from configsvc.raft.progress import Inflights, Progress
from configsvc.raft.readqueue import ReadQueue
from configsvc.types import NodeId, Term

NOBODY: Final = NodeId(0)
_AFTER_APPEND: Final = frozenset(
    {MessageType.APP_RESP, MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP}
)


class Rng(Protocol):
    """Where election jitter comes from; ``random.Random`` fits."""

    def randrange(self, stop: int, /) -> int:
        """An integer in ``[0, stop)``."""


class Raft:
    """Everything one core knows."""

    __slots__ = (
        "commit_untold",
        "conf",
        "config",
        "declines_transfer",
        "election_elapsed",
        "heartbeat_elapsed",
        "id",
        "lead",
        "leadership_start",
        "log",
        "messages_unknown",
        "outbox",
        "outbox_after_append",
        "pending_conf_index",
        "progress",
        "promotable_flag",
        "randomized_timeout",
        "read_states",
        "reads",
        "rng",
        "role",
        "term",
        "transferee",
        "uncommitted_bytes",
        "verified",
        "vote",
        "voters",
        "votes",
    )

    def __init__(
        self, config: RaftConfig, log: RaftLog, rng: Rng, *, hard_state: HardState, conf: ConfState
    ) -> None:
        self.config = config
        self.id = config.id
        self.log = log
        self.rng = rng
        # What roles owns.
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.lead = NOBODY
        self.role = Role.FOLLOWER
        self.votes: dict[NodeId, bool] = {}
        self.verified = 0  # up to here appends of this start and term say what the log holds
        # What membership.switching owns.
        self.conf = ConfState()
        self.voters: tuple[NodeId, ...] = ()  # of either half, ascending
        self.progress: dict[NodeId, Progress] = {}  # of every member, in ascending order of id
        self.set_conf(confchange.Changed(conf, confchange.members(conf)))
        # A leader's.
        self.transferee = NOBODY  # leadership is being handed to it
        self.pending_conf_index = 0  # nothing above it changes the configuration
        self.leadership_start = 0  # the last index when it took office
        self.commit_untold = False  # the commit index moved, and nothing was sent that says so
        self.uncommitted_bytes = 0  # payloads of this leadership that are not applied yet
        self.reads = ReadQueue(config.pending_reads)
        # Clocks, in ticks.
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_timeout = config.election_ticks
        # What the next Ready hands out.
        self.outbox: list[Message] = []
        self.outbox_after_append: list[Message] = []
        self.read_states: list[ReadState] = []
        self.promotable_flag = True  # set from outside (E2)
        self.declines_transfer = False  # likewise (E3)
        self.messages_unknown = 0  # of a kind this version does not know; dropped

    def hard_state(self) -> HardState:
        return HardState(self.term, self.vote, self.log.committed)  # type: ignore[arg-type]

    def soft_state(self) -> SoftState:
        return SoftState(self.lead, self.role)

    def send(self, message: Message) -> None:
        """Queue ``message``; votes carry their own term, everything else gets the current one."""
        kind = message.type
        if (
            message.term == 0
            and kind is not MessageType.PROP
            and kind is not MessageType.READ_INDEX
        ):
            message = message._replace(from_=message.from_ or self.id, term=self.term)
        elif message.from_ == 0:
            message = message._replace(from_=self.id)
        if kind in _AFTER_APPEND:
            self.outbox_after_append.append(message)
        else:
            ensure(message.to != self.id, "only answers may be addressed to the member itself")
            self.outbox.append(message)

    def promotable(self) -> bool:
        """Whether this member may become leader: a voter of its own configuration, allowed to,
        without a snapshot that waits to be installed.
        """
        own = self.progress.get(self.id)
        return (
            self.promotable_flag
            and own is not None
            and not own.is_learner
            and self.log.unstable.snapshot is None
        )

    def quorum_index(self) -> int:
        """Up to where a quorum has acknowledged this leader's log."""
        progress = self.progress
        index = quorum.majority_index([progress[voter].match for voter in self.conf.voters])
        if self.conf.voters_outgoing:
            outgoing = [progress[voter].match for voter in self.conf.voters_outgoing]
            index = min(index, quorum.majority_index(outgoing))
        return index

    def committed_in_term(self) -> bool:
        """Whether this leader has committed an entry of its own term: only then is its commit
        index known to be that of the cluster.
        """
        return self.log.committed > self.leadership_start

    def set_conf(self, changed: confchange.Changed) -> None:
        """Take a configuration over; what follows from it is ``membership.switching``'s."""
        self.progress = confchange.renew_progress(changed, self.progress, self._newcomer())
        self.conf = changed.conf
        self.voters = confchange.voters_of_both(changed.conf)

    def _newcomer(self) -> Callable[[bool], Progress]:
        next_index = max(self.log.last_index, 1)

        def make(is_learner: bool) -> Progress:
            progress = Progress(next_index, self.new_window(), is_learner=is_learner)
            # Else the first quorum check would count a newcomer as lost.
            progress.recent_active = True
            return progress

        return make

    def new_window(self) -> Inflights:
        return Inflights(self.config.inflight_messages, self.config.inflight_bytes)

    def next_term(self) -> Term:
        return Term(self.term + 1)
