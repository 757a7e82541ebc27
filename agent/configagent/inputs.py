"""The inputs of a set, sealed on disk, so that a node can decide again while the store is away.

One file per set, replaced whole: a line of JSON, then the sealed keys and values (G2). It is bound
to node, set, prefix, number and revision; a flipped byte or a file of another set is refused.

Monotone (G3): every file written has a higher number, and the set's record keeps the highest. A
file with a lower number is an older one that somebody copied back, and is refused. So is one that
is older than what is applied here: rendering from it would be a step back.

Not here: when the store counts as away (``feed``), what is rendered from it (``pipeline``).
"""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from configagent.records import Record, replace_file, set_folder
from configagent.seal import NodeKey
from configagent.settings import SetSpec
from configagent.snapshot import Entry, Snapshot
from configsvc import limits

INPUTS: Final = "inputs.sealed"
GATHER_S: Final = 0.2  # changes that come together are stored together, and after their commit
PAUSE_S: Final = 2.0
PAUSE_FACTOR: Final = 20  # a large set or a slow disk spends a twentieth of the time on this


class InputsError(Exception):
    """Why stored inputs are not used; the text is safe to show."""


class NoInputsError(InputsError):
    """Nothing was stored yet."""


class Stored(NamedTuple):
    """What was stored."""

    number: int
    cluster_id: int
    snapshot: Snapshot


def save_inputs(
    state_dir: str, key: NodeKey, spec: SetSpec, number: int, cluster_id: int, snapshot: Snapshot
) -> None:
    """Replace a set's stored inputs; blocks on the disk.

    Raises:
        OSError: the old file stays.
    """
    plain = marshal.dumps({name: tuple(entry) for name, entry in snapshot.keys.items()})
    head = {"number": number, "revision": snapshot.revision, "cluster": cluster_id}
    sealed = key.seal_inputs(_bound(spec, head), plain)
    folder = os.open(set_folder(state_dir, spec.name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        replace_file(folder, INPUTS, json.dumps(head).encode() + b"\n" + sealed)
        os.fsync(folder)
    finally:
        os.close(folder)


def load_inputs(state_dir: str, key: NodeKey, spec: SetSpec, record: Record) -> Stored:
    """A set's stored inputs, judged.

    Raises:
        InputsError: there are none, or they must not be used.
    """
    path = os.path.join(set_folder(state_dir, spec.name), INPUTS)
    try:
        with open(path, "rb") as file:
            head = json.loads(file.readline(limits.KIB))
            sealed = file.read(limits.AGENT_GENERATION_BYTES_MAX)
        number, revision, cluster = (int(head[k]) for k in ("number", "revision", "cluster"))
        plain = key.open_inputs(_bound(spec, head), sealed)
    except FileNotFoundError:
        raise NoInputsError("none are stored") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "changed, or of another set or node"
        raise InputsError(f"the stored inputs are {why}") from None
    if number < record.inputs:
        raise InputsError(
            f"the stored inputs are number {number}, but {record.inputs} was written already"
        )
    if revision < record.target_revision:
        raise InputsError(
            f"the stored inputs are of revision {revision}, "
            f"older than what is applied ({record.target_revision})"
        )
    found = marshal.loads(plain)  # noqa: S302  # authenticated above
    keys = {name: Entry(value, mod) for name, (value, mod) in found.items()}
    return Stored(number, cluster, Snapshot(revision, keys))


def stored_number(state_dir: str, name: str) -> int:
    """The number that the present file claims; 0 for none. For choosing a higher one only."""
    try:
        with open(os.path.join(set_folder(state_dir, name), INPUTS), "rb") as file:
            return max(0, int(json.loads(file.readline(limits.KIB))["number"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _bound(spec: SetSpec, head: dict[str, int]) -> str:
    numbers = "\0".join(str(int(head[k])) for k in ("number", "revision", "cluster"))
    return f"{spec.name}\0{spec.prefix}\0{numbers}"


class InputsKeeper:
    """Keeps a set's stored inputs in step with its snapshot, at an easy pace.

    ``number`` is the highest number written; whoever saves the record puts it there.
    """

    def __init__(
        self,
        state_dir: str,
        key: NodeKey,
        spec: SetSpec,
        *,
        number: int,
        current: Callable[[], tuple[int, Snapshot] | None],
        on_kept: Callable[[], Awaitable[None]],
        on_failed: Callable[[str], None],
    ) -> None:
        self.number = max(number, stored_number(state_dir, spec.name))
        self.kept_at: float | None = None  # monotonic, since the start
        self._where = (state_dir, key, spec)
        self._current = current  # cluster and snapshot as read from the store; None: nothing yet
        self._on_kept = on_kept
        self._on_failed = on_failed
        self._dirty = asyncio.Event()
        self._turn = threading.Lock()  # the last one may run beside one that was cancelled

    def changed(self) -> None:
        """The snapshot changed."""
        self._dirty.set()

    async def run(self) -> None:
        """Until cancelled; what is not stored by then is stored on the way out."""
        try:
            while True:
                await self._dirty.wait()
                await asyncio.sleep(GATHER_S)
                began = time.monotonic()
                if await asyncio.to_thread(self._save):
                    await self._on_kept()
                await asyncio.sleep(max(PAUSE_S, (time.monotonic() - began) * PAUSE_FACTOR))
        finally:
            if self._dirty.is_set():
                self._save()
            with self._turn:
                pass  # one that was cancelled here ends first, so that ``number`` is the last

    def _save(self) -> bool:
        with self._turn:
            self._dirty.clear()
            current = self._current()
            if current is None:
                return False
            try:
                save_inputs(*self._where, self.number + 1, *current)
            except OSError as error:
                self._on_failed(error.strerror or "disk error")
                return False
            self.number += 1
            self.kept_at = time.monotonic()
            return True
