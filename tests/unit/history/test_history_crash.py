"""Kill -9 in the middle of writing: what is there afterwards is a whole number of entries."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from history_child import ENTRIES, scripted_world
from history_world import IDENTITY

from configsvc.audit.merkle import root_of
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile

KILLS = 6
CHILD = Path(__file__).with_name("history_child.py")


def test_killed_writers_leave_whole_entries(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    key_file = KeyFile.create(tmp_path / "key")
    database = tmp_path / "history.db"
    chance = random.Random(20)
    applied, kills = 0, 0
    for _ in range(KILLS):
        told = run_child(database, tmp_path / "key", lines_before_kill=chance.randint(1, 20))
        kills += 1
        held = check(database, key_file)
        # What was told before the kill is there: a killed process loses no page, only power does.
        assert held >= told >= applied
        applied = held
    assert kills == KILLS
    assert run_child(database, tmp_path / "key", lines_before_kill=None) == ENTRIES
    assert check(database, key_file) == ENTRIES


def run_child(database: Path, key: Path, lines_before_kill: int | None) -> int:
    """Run until it has printed so many lines, kill it; the last index it told."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(database), str(key)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told = 0
    for number, line in enumerate(child.stdout):
        if line.startswith(("open", "wrote")):
            told = int(line.split()[1])
        if number == lines_before_kill:
            child.kill()
            break
    rest = child.stdout.read()
    child.stdout.close()
    code = child.wait()
    assert code == (0 if lines_before_kill is None else -9), rest
    return told


def check(database: Path, key_file: KeyFile) -> int:
    """Everything the database holds is what the script says for its applied index."""
    history = History.open(database, IDENTITY, key_file, create=False)
    meta = history.meta()
    world = scripted_world(meta.applied)
    assert meta.visible_revision == world.revision
    assert meta.digest == meta.applied.to_bytes(16, "big")
    assert {row.key: row for row in history.load_live()} == world.live()
    leaves = [effect.leaf for effect in world.effects if effect.commit]
    assert meta.tree_size == len(leaves)
    assert history.tree_root() == root_of(leaves)
    last_note = (meta.applied - 1) // 11 * 11
    assert history.load_tables()["meta"] == [("n", b"%d" % last_note)]
    reader = HistoryReader(database, IDENTITY, key_file)
    rows = [row for entry in reader.verify_entries(0, 10**6) for row in entry.rows]
    assert [(row.revision, row.sub, row.value) for row in rows] == [
        (row.revision, row.sub, row.value) for row in world.rows
    ]
    reader.close()
    history.abandon()
    with sqlite3.connect(database) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    raw.close()
    return meta.applied
