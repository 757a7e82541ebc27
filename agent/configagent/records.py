"""What the agent remembers of a set: one small file, replaced whole.

The record is the journal too. ``swap`` names a commit that was decided and may be unfinished: it
is rolled forward before anything else happens to the set. ``to_notify`` names services that must
still hear of the present generation; it is written with the commit and cleared after success (E7).

Layout below ``state_dir/sets/<name>/``: ``record.json``, ``gen/<n>.gen`` (a line of JSON, the
sidecar, then the sealed contents), ``inputs.sealed``, ``tree/`` while a check runs, ``drift/`` for
copies.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Final

from configagent.paths import write_unsynced
from configsvc import limits

RECORD: Final = "record.json"


@dataclass(slots=True)
class Record:
    """State of one set on this node. 0 and "" mean none."""

    set: str
    generation: int = 0  # the present one
    last_generation: int = 0  # the highest number ever used
    good: int = 0  # the newest generation that was notified and healthy
    goods: list[int] = field(default_factory=list)  # good ones still stored, oldest first
    root: str = ""  # keyed digest over all files of the present generation
    content_revision: int = 0
    target_revision: int = 0
    outcome: str = "pending"
    reason: str = ""
    attempts: int = 0
    changed_ns: int = 0  # when the outcome last changed
    lag_ms: int = 0  # change seen -> committed, of the last commit
    took: dict[str, int] = field(default_factory=dict)  # parts of the last attempt, microseconds
    to_notify: list[str] = field(default_factory=list)
    swap: dict[str, Any] | None = None
    quarantine: dict[str, Any] | None = None  # {"root", "content_revision"} rolled back here
    approved: str = ""  # root that a person let through the guard
    files: list[dict[str, Any]] = field(default_factory=list)  # name, digest, mode, uid, gid, link
    where: list[str] = field(default_factory=list)  # [commit, dir] that ``files`` belong to
    inputs: int = 0  # the highest number of stored inputs ever written (G3)
    cause: str = ""  # "intentional", "corrective", "rollback"

    def as_dict(self) -> dict[str, Any]:
        """For storing and sending at once; shares lists with the record (copies cost more)."""
        return {name: getattr(self, name) for name in self.__slots__}


def parse_record(name: str, data: bytes) -> Record:
    """Read a record; a damaged one is an empty one, so the set is rendered anew."""
    empty = Record(name)
    try:
        found = json.loads(data)
        known = {key: found[key] for key in Record.__slots__ if key in found}
    except (ValueError, TypeError):
        return empty
    if not all(_fits(getattr(empty, key), value) for key, value in known.items()):
        return empty
    return Record(**(known | {"set": name}))


def _fits(blank: Any, value: Any) -> bool:
    """Whether a value of a record is of the kind that the field has."""
    if blank is None:
        return value is None or isinstance(value, dict)
    return type(value) is type(blank)


def set_folder(state_dir: str, name: str) -> str:
    """Where a set's things lie."""
    return os.path.join(state_dir, "sets", name)


def load_record(state_dir: str, name: str) -> Record:
    """The record of a set; an empty one when there is none."""
    try:
        with open(os.path.join(set_folder(state_dir, name), RECORD), "rb") as file:
            return parse_record(name, file.read(limits.AGENT_FRAME_BYTES_MAX))
    except OSError:
        return Record(name)


def write_beside(folder: int, leaf: str, data: bytes) -> tuple[int, str]:
    """New content beside a file of our own state: its descriptor, to be synced, and its name."""
    fresh = f".{leaf}.new"
    try:
        os.unlink(fresh, dir_fd=folder)
    except FileNotFoundError:
        pass
    return write_unsynced(folder, fresh, data, 0o600, os.geteuid(), os.getegid()), fresh


def replace_file(folder: int, leaf: str, data: bytes) -> None:
    """Exchange a file of our own state for new content, whole; the caller syncs the folder."""
    descriptor, fresh = write_beside(folder, leaf, data)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(fresh, leaf, src_dir_fd=folder, dst_dir_fd=folder)


def save_record(state_dir: str, record: Record, *, durable: bool = True) -> None:
    """Write a record; ``durable`` also syncs its folder.

    Raises:
        OSError: the old record stays.
    """
    folder = open_state(set_folder(state_dir, record.set))
    try:
        replace_file(folder, RECORD, pack_record(record))
        if durable:
            os.fsync(folder)
    finally:
        os.close(folder)


def pack_record(record: Record) -> bytes:
    """A record as it is stored."""
    return json.dumps(record.as_dict()).encode()


def open_state(path: str) -> int:
    """Descriptor of a folder of our own state."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


# --- generations ----------------------------------------------------------------------------------


def generation_numbers(state_dir: str, name: str) -> list[int]:
    """Stored generations, oldest first."""
    try:
        names = os.listdir(os.path.join(set_folder(state_dir, name), "gen"))
    except OSError:
        return []
    return sorted(int(n[:-4]) for n in names if n.endswith(".gen") and n[:-4].isdigit())


def read_generation(state_dir: str, name: str, number: int) -> tuple[dict[str, Any], bytes]:
    """Sidecar and sealed contents of a generation.

    Raises:
        OSError: it is not there.
        ValueError: it is damaged.
    """
    path = os.path.join(set_folder(state_dir, name), "gen", f"{number}.gen")
    with open(path, "rb") as file:
        head = file.readline(limits.AGENT_FRAME_BYTES_MAX)
        sealed = file.read(limits.AGENT_GENERATION_BYTES_MAX)
    try:
        sidecar = json.loads(head)
    except ValueError:
        sidecar = None
    if not isinstance(sidecar, dict):
        raise ValueError(f"generation {number} of {name} is damaged")
    return sidecar, sealed
