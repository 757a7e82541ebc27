"""Switches and bounds of one consensus core, checked when built.

The scenario scripts need every switch; the product needs one setting of them, so the product
builds its configuration in ``product_config`` and nowhere else (C9). Clocks are counted in ticks:
what a tick lasts is the shell's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from configsvc import limits
from configsvc.errors import ConfigError
from configsvc.types import NodeId

NO_LIMIT: Final = 2**63 - 1  # bytes or messages; only tests run without limits

ReadOnlyMode = Literal["safe", "lease-based"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Settings of one core.

    Defaults are those of the scenario language, not of the product. Byte bounds count entry
    payloads plus a constant per entry; one entry always passes, however large.
    """

    id: NodeId  # never 0
    election_ticks: int = 3  # a follower waits this long or up to twice as long, less one
    heartbeat_ticks: int = 1
    pre_vote: bool = False
    check_quorum: bool = False
    read_only: ReadOnlyMode = "safe"  # "lease-based" trusts the election clock: needs check_quorum
    step_down_on_removal: bool = False
    validate_conf_changes: bool = True  # off: proposals of changes are appended unchecked
    forward_proposals: bool = True  # followers send proposals on to the leader
    async_storage_writes: bool = False
    tell_commits: bool = True  # off: the shell says when, by ``RawNode.tell_commit``
    max_append_bytes: int = NO_LIMIT  # per MsgApp; 0: one entry per message
    inflight_messages: int = 2**31 - 1  # unanswered MsgApp per replicating peer
    inflight_bytes: int = NO_LIMIT  # unanswered payload bytes per replicating peer
    max_uncommitted_bytes: int = NO_LIMIT  # proposals are dropped beyond; payload bytes
    max_committed_bytes_per_ready: int = NO_LIMIT  # handed out and not yet applied
    max_committed_entries_per_ready: int = NO_LIMIT  # handed out at a time, and then applied
    pending_reads: int = limits.PENDING_READS_MAX  # reads that wait, in one queue; refused beyond

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError("; ".join(problems), "correct the settings of the consensus core")

    def _problems(self) -> list[str]:
        found = []
        if self.id == 0:
            found.append("id: 0 means nobody")
        if self.heartbeat_ticks < 1:
            found.append("heartbeat_ticks: at least 1")
        if self.election_ticks <= self.heartbeat_ticks:
            found.append("election_ticks: must be greater than heartbeat_ticks")
        if self.read_only == "lease-based" and not self.check_quorum:
            found.append("read_only=lease-based: needs check_quorum")
        if self.inflight_messages < 1:
            found.append("inflight_messages: at least 1")
        if min(self.inflight_bytes, self.max_uncommitted_bytes) < 1:
            found.append("inflight_bytes, max_uncommitted_bytes: at least 1")
        if self.max_append_bytes < 0:
            found.append("max_append_bytes: at least 0")
        if min(self.max_committed_bytes_per_ready, self.max_committed_entries_per_ready) < 1:
            found.append(
                "max_committed_bytes_per_ready, max_committed_entries_per_ready: at least 1"
            )
        return found


def product_config(node_id: NodeId, election_ticks: int, heartbeat_ticks: int) -> RaftConfig:
    """The one construction that the product uses (C9).

    Pre-vote and check-quorum are never off: each alone lets an unlucky network keep a cluster
    without a usable leader. Proposals are not forwarded inside the core, because the leader
    stamps them (C7). Commits are told by the shell, which lets them ride on the next entries.
    """
    return RaftConfig(
        id=node_id,
        election_ticks=election_ticks,
        heartbeat_ticks=heartbeat_ticks,
        pre_vote=True,
        check_quorum=True,
        read_only="safe",
        step_down_on_removal=True,
        validate_conf_changes=True,
        forward_proposals=False,
        tell_commits=False,
        max_append_bytes=limits.APPEND_BYTES_MAX,
        inflight_messages=limits.INFLIGHT_MESSAGES_MAX,
        inflight_bytes=limits.INFLIGHT_BYTES_MAX,
        max_uncommitted_bytes=limits.UNCOMMITTED_BYTES_MAX,
        max_committed_bytes_per_ready=limits.APPEND_BYTES_MAX,
        max_committed_entries_per_ready=limits.READY_ENTRIES_MAX,
    )
