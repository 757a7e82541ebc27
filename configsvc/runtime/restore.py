"""The replicated state in memory, made from what SQL holds: at a start, and after an install.

``read_stored`` blocks on the database and may run in any thread; ``adopt`` makes the state that
of the stored one and belongs to the loop. The live rows come separately, because an install
gathers them in slices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from configsvc.apply.state import META_COMPACT, ApplyState
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.messages import Row
from configsvc.mvcc.store import NEVER_COMPACTED
from configsvc.mvcc.window import ROW_BYTES
from configsvc.storage.history.messages import Meta
from configsvc.storage.history.store import History


class Stored(NamedTuple):
    """Everything but the live rows, as of ``meta.applied``."""

    meta: Meta
    tables: dict[str, list[tuple[Any, ...]]]
    tree: tuple[int, tuple[bytes, ...]]
    actors: list[tuple[bytes, bytes]]  # record, hash
    time_ns: int  # leader's stamp of the newest commit
    floor: int  # compaction's; below 1: never compacted
    window_bytes: int  # size of all rows above it


def read_stored(history: History, *, measure: bool = True) -> Stored:
    """Read it.

    Args:
        history: Open, with nobody writing.
        measure: False: the caller fills in ``window_bytes``, which reads all rows above the floor.

    Raises:
        FatalError: exit 84, a sealed column is not what was written.
    """
    tables = history.load_tables()
    floor = int(dict(tables.get("meta", ())).get(META_COMPACT, b"%d" % NEVER_COMPACTED))
    return Stored(
        meta=history.meta(),
        tables=tables,
        tree=history.load_tree(),
        actors=[(actor.record, actor.hash) for actor in history.load_actors()],
        time_ns=history.last_time_ns(),
        floor=floor,
        window_bytes=history.window_bytes(floor, ROW_BYTES) if measure else 0,
    )


def adopt(state: ApplyState, stored: Stored, live: Iterable[Row] | LiveRows) -> None:
    """Make ``state`` that of the stored history, whatever it held before."""
    meta = stored.meta
    loaded = live if isinstance(live, LiveRows) else LiveRows(live)
    living = loaded.size_above(stored.floor)  # before the state owns them
    state.load(
        stored.tables,
        live=loaded,
        revision=meta.visible_revision,
        applied=meta.applied,
        term=meta.term,
        digest=meta.digest,
        time_ns=stored.time_ns,
        tree=stored.tree,
        actors=stored.actors,
        superseded_bytes=max(0, stored.window_bytes - living),
    )
