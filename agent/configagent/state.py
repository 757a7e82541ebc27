"""What belongs to the node and not to a set: the lock, the start counter, the cluster's id."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass

from configagent.errors import InsecureError, SettingsError
from configagent.records import replace_file
from configsvc import limits

_FILE = "agent.json"
_LOCK = "lock"


@dataclass(slots=True)
class NodeState:
    """Remembered over restarts."""

    start_counter: int = 0
    cluster_id: int = 0
    sets: list[str] | None = None  # that were configured last time


class StateDir:
    """The state directory, held by one agent at a time (A12)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = -1

    def open(self) -> None:
        """Make it where needed and take it.

        Raises:
            InsecureError: others may use it.
            SettingsError: another agent has it, or it cannot be made.
        """
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.makedirs(os.path.join(self.path, "sets"), mode=0o700, exist_ok=True)
            info = os.stat(self.path)
        except OSError as error:
            raise SettingsError(f"state_dir {self.path}: {error.strerror}") from None
        if info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise InsecureError(f"state_dir {self.path}: must be ours alone (mode 0700)")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(os.path.join(self.path, _LOCK), flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise SettingsError(f"state_dir {self.path}: another agent uses it") from None

    def close(self) -> None:
        """Give it back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def load(self) -> NodeState:
        """What was remembered; damaged is nothing."""
        try:
            with open(os.path.join(self.path, _FILE), "rb") as file:
                found = json.loads(file.read(limits.MIB))
            return NodeState(**{k: found[k] for k in NodeState.__slots__ if k in found})
        except (OSError, ValueError, TypeError):
            return NodeState()

    def save(self, state: NodeState) -> None:
        """Remember.

        Raises:
            OSError: the old state stays.
        """
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            replace_file(folder, _FILE, json.dumps(asdict(state)).encode())
            os.fsync(folder)
        finally:
            os.close(folder)


def last_saved(path: str) -> float:
    """When an agent saved its state last, in seconds since 1970; 0 for never."""
    try:
        return os.stat(os.path.join(path, _FILE)).st_mtime
    except OSError:
        return 0.0
