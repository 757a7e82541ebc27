"""What the consensus core refuses, each with the cause in its name.

All are the world's doing: a request at the wrong moment, a message from a stranger, an index that
is gone. Bugs of ours are ``InvariantViolationError``. A storage error is no input of the core.
"""

from __future__ import annotations

from typing import ClassVar

from configsvc.errors import ConfigServiceError


class RaftError(ConfigServiceError):
    """Root of the core's refusals; ``str()`` is the text that scenario scripts compare."""

    text: ClassVar[str] = ""

    def __init__(self, text: str | None = None) -> None:
        super().__init__(self.text if text is None else text)


class ProposalDropped(RaftError):
    """No leader is known, or this leader may not take proposals now. Nothing was appended."""

    text = "raft proposal dropped"


class ReadDropped(RaftError):
    """No leader is known, or too many reads wait. Retry with a new context (R3)."""

    text = "raft read dropped"


class PeerNotFound(RaftError):
    """An answer from a member without progress in this member's configuration."""

    text = "raft: cannot step as peer not found"


class LocalMessage(RaftError):
    """A message that only this member may send to itself came from elsewhere."""

    text = "raft: cannot step raft local message"


class Compacted(RaftError):
    """The index is below the retained log; a snapshot replaces what is gone."""

    text = "requested index is unavailable due to compaction"


class Unavailable(RaftError):
    """The index is above the last entry."""

    text = "requested entry at index is unavailable"


class SnapshotOutOfDate(RaftError):
    """The log already starts at or above the snapshot."""

    text = "requested index is older than the existing snapshot"


class SnapshotTemporarilyUnavailable(RaftError):
    """No snapshot can be named now; the core asks again at the next occasion."""

    text = "snapshot is temporarily unavailable"


class ConfChangeInvalid(RaftError):
    """The change is illegal in the configuration it meets; nothing was changed."""
