"""Histories of simulated members in real SQLite: after the run of one seed in so many.

What a member wrote, transaction by transaction, goes through the product's own ``History`` into a
file. The file is copied as a kill leaves it (with SQLite's own log) and as a power loss may leave
it (without what no checkpoint moved); each copy is opened as a start does and must hold exactly
what the model holds after as many transactions, to clients and to a start alike.

Not here: torn pages and damaged files (``faults/history_images``).
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile
from tests.simulation.node.sim_sql import SimReader, SqlFile

if TYPE_CHECKING:
    from tests.simulation.node.sim_world import World

EVERY: Final = 33  # seeds: three in a hundred
IMAGES: Final = 6  # of each history
PAGE: Final = 50  # revisions asked for at a time


def prove(world: World) -> None:
    """The longest history of the members that run."""
    files = [node.files[max(node.files)] for node in world.nodes.values() if node.files]
    file = max(files, key=lambda each: each.state.applied)
    rng = random.Random(f"images {world.seed}")
    world.counts["histories in SQLite"] += 1
    world.counts["SQLite images"] += replay(file, rng)


def replay(file: SqlFile, rng: random.Random) -> int:
    """Write ``file`` into SQLite and judge images of it on the way; how many."""
    key = KeyFile(rng.randbytes(32))
    stops = set(rng.sample(range(len(file.batches)), min(IMAGES, len(file.batches))))
    model = SqlFile(file.generation, file.identity)
    durable = SqlFile(file.generation, file.identity)
    judged = 0
    with tempfile.TemporaryDirectory() as folder:
        path = _private(Path(folder) / "live") / "history.db"
        history = History.open(path, file.identity, key, create=True, generation=file.generation)
        try:
            for number, batch in enumerate(file.batches):
                history.write(batch.effects, batch.conf_state)
                model.commit(batch)
                if number in stops:
                    if rng.random() < 0.5:
                        assert history.checkpoint() == model.state.applied, "I9 no checkpoint"
                        durable = _as_far_as(model)
                    _judge(_copy(path, Path(folder) / f"killed{number}"), model, key)
                    if durable.state.applied:
                        power = _copy(path, Path(folder) / f"power{number}", side_log=False)
                        _judge(power, durable, key)
                        judged += 1
                    judged += 1
        finally:
            history.abandon()
    return judged


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _as_far_as(model: SqlFile) -> SqlFile:
    made = SqlFile(model.generation, model.identity)
    for batch in model.batches:
        made.commit(batch)
    return made


def _copy(path: Path, folder: Path, *, side_log: bool = True) -> Path:
    target = _private(folder) / path.name
    shutil.copy2(path, target)
    if side_log and Path(f"{path}-wal").exists():
        shutil.copy2(f"{path}-wal", f"{target}-wal")
    return target


def _judge(path: Path, model: SqlFile, key: KeyFile) -> None:
    """Neither more nor less: nothing but ``checkpoint`` moves what was written into the file."""
    history = History.open(path, model.identity, key, create=False, generation=model.generation)
    try:
        found, wanted = history.meta(), model.meta()
        assert found.applied == wanted.applied, "I9 SQLite holds another number of entries"
        same = (found.term, found.digest, found.visible_revision, found.conf_state)
        assert same == (wanted.term, wanted.digest, wanted.visible_revision, wanted.conf_state)
        assert sorted(history.load_live()) == sorted(model.load_live()), "I10 present keys"
        assert history.load_tree() == model.load_tree(), "I10 the audit tree"
        assert _filled(history.load_tables()) == _filled(model.load_tables()), "I10 small tables"
        assert history.load_actors() == model.load_actors(), "I10 actors"
    finally:
        history.close()
    reader = HistoryReader(path, model.identity, key)
    try:
        _judge_events(reader, SimReader(model), wanted.visible_revision)
    finally:
        reader.close()


def _judge_events(found: HistoryReader, wanted: SimReader, last: int) -> None:
    at = 2
    while at <= last:
        page, other = found.events(None, at, last, PAGE), wanted.events(None, at, last, PAGE)
        assert (list(page.groups), page.through) == (list(other.groups), other.through), "I17"
        at = page.through + 1


def _filled(tables: dict[str, list[tuple[object, ...]]]) -> dict[str, list[tuple[object, ...]]]:
    return {name: sorted(rows, key=repr) for name, rows in tables.items() if rows}
