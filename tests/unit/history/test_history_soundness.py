"""What a start does not believe: rows, tables and files that are not what was written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from history_world import IDENTITY, World, small_world

from configsvc.apply.commands import TableChange
from configsvc.errors import ExitCode, FatalError
from configsvc.storage.history.store import History


def edit(path: Path, statement: str) -> None:
    """Change something behind the program's back."""
    with sqlite3.connect(path) as raw:
        before = raw.total_changes
        raw.executescript(statement)
        assert raw.total_changes > before
    raw.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revisions SET value = zeroblob(length(value))",
        "UPDATE revisions SET version = version + 1",
        "UPDATE revisions SET lease = 1",
        "UPDATE revisions SET create_revision = create_revision - 1",
        "UPDATE revisions SET seq = seq + 1",
        "UPDATE revisions SET key = CAST(key || 'x' AS BLOB)",
        "UPDATE revisions SET value = x''",
        "UPDATE revisions SET value = (SELECT value FROM revisions ORDER BY revision LIMIT 1)",
    ],
)
def test_an_edited_row_is_found_when_loading(history: History, reopen, statement: str) -> None:
    history.write(small_world().effects)
    history.close()
    with sqlite3.connect(history.path) as raw:
        raw.executescript(statement)
    raw.close()
    history = reopen()
    with pytest.raises(FatalError) as caught:
        list(history.load_live())
    assert caught.value.code is ExitCode.STORES_DISAGREE


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM live WHERE key = (SELECT min(key) FROM live)",
        "UPDATE live SET revision = revision - 1 WHERE revision = (SELECT max(revision) FROM live)",
        "UPDATE live SET sub = sub + 1 WHERE key = (SELECT max(key) FROM live)",
        "UPDATE live SET key = CAST(key || 'x' AS BLOB) WHERE key = (SELECT max(key) FROM live)",
        "INSERT INTO live VALUES (x'7a7a', 2, 0)",
        "DELETE FROM versions WHERE revision = (SELECT max(revision) FROM versions)",
        "DELETE FROM revisions WHERE revision = (SELECT max(revision) FROM live)",
        "UPDATE versions SET tombstone = 1 WHERE key = (SELECT max(key) FROM live)",
    ],
)
def test_no_key_is_hidden_or_older_than_it_is(history: History, reopen, statement: str) -> None:
    """By what no seal covers: which row is a key's newest."""
    world = small_world()
    history.write(world.effects)
    history.close()
    history = reopen()  # everything is folded in
    assert {row.key: row for row in history.load_live()} == world.live()
    history.close()
    edit(history.path, statement)
    with pytest.raises(FatalError, match=r"do not agree|are not there") as caught:
        list(reopen().load_live())
    assert caught.value.code is ExitCode.STORES_DISAGREE


def test_a_deleted_key_that_was_made_anew_in_one_revision_is_present(
    history: History, reopen
) -> None:
    world = World()
    world.put(b"k", b"1")
    world.commit([("delete", b"k", b"", 0), ("put", b"k", b"2", 0)])
    history.write(world.effects)
    history.close()
    assert {row.key: row for row in reopen().load_live()} == world.live()


@pytest.mark.parametrize("missing", [True, False])
def test_a_leaf_that_is_gone_or_no_leaf_is_refused(history: History, reopen, missing: bool) -> None:
    history.write(small_world().effects)
    history.close()
    with sqlite3.connect(history.path) as raw:
        if missing:
            raw.execute("DELETE FROM commits WHERE seq = 1")
        else:  # a strict table takes no NULL: the schema is bent for the moment
            raw.execute("ALTER TABLE commits RENAME COLUMN leaf TO was")
            raw.execute("ALTER TABLE commits ADD COLUMN leaf BLOB")
    raw.close()
    with pytest.raises(FatalError, match="audit stream") as caught:
        reopen()
    assert caught.value.code is ExitCode.STORES_DISAGREE


def bend(raw: sqlite3.Connection, table: str, was: str, now: str) -> None:
    """Replace a part of a table's definition without touching its rows."""
    raw.execute("PRAGMA writable_schema = ON")
    bent = raw.execute(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (was, now, table)
    )
    assert bent.rowcount == 1
    raw.execute("PRAGMA writable_schema = RESET")
    raw.commit()


@pytest.mark.parametrize(
    ("table", "column", "edit"),
    [
        ("progress", "digest BLOB", "NULL"),
        ("store", "cluster_id BLOB", "NULL"),
        ("store", "epoch INTEGER", "'one'"),
        ("roles", "name TEXT", "x'00'"),
        ("seeds", "created_s INTEGER", "'late'"),
        ("seal_batches", "info BLOB", "7"),
    ],
)
def test_a_column_of_another_type_is_refused(
    history: History, reopen, table: str, column: str, edit: str
) -> None:
    """As a turned bit in a page leaves it: no program writes it."""
    world = small_world()
    first = world.effects[0]
    role = TableChange("roles", ("dev",), ())
    history.write([first._replace(tables=(*first.tables, role)), *world.effects[1:]])
    history.close()
    with sqlite3.connect(history.path) as raw:
        bend(raw, table, f"{column} NOT NULL", column.split()[0] + " ANY")
    raw.close()
    with sqlite3.connect(history.path) as raw:
        raw.execute(f"UPDATE {table} SET {column.split()[0]} = {edit}")
    raw.close()
    with sqlite3.connect(history.path) as raw:
        bend(raw, table, column.split()[0] + " ANY", f"{column} NOT NULL")
    raw.close()
    with pytest.raises(FatalError, match=f"table {table}") as caught:
        reopen()
    assert caught.value.code is ExitCode.STORES_DISAGREE


@pytest.mark.parametrize("stamped", ["", " 003", "000\x13", "three", "00003"])
def test_a_schema_that_never_was_is_refused(history: History, reopen, stamped: str) -> None:
    history.write(small_world().effects)
    history.close()
    with sqlite3.connect(history.path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (stamped,))
    raw.close()
    with pytest.raises(FatalError) as caught:
        reopen()
    assert caught.value.code is ExitCode.STORES_DISAGREE


MARKED_EDITS = (
    "UPDATE progress SET applied = applied + 1",
    "UPDATE progress SET term = term + 1",
    "UPDATE progress SET visible_revision = visible_revision - 1",
    "UPDATE progress SET tree_size = tree_size - 1",
    "UPDATE progress SET last_batch = last_batch + 1",
    "UPDATE progress SET digest = zeroblob(16)",
    "UPDATE progress SET conf_state = CAST(conf_state || 'x' AS BLOB)",
    "UPDATE progress SET mark = x'00'",
    "UPDATE progress SET mark = zeroblob(length(mark))",
    "UPDATE store SET generation = generation + 1",
    "UPDATE seal_batches SET info = randomblob(24)",
    "DELETE FROM seal_batches",
    "DELETE FROM users",
    "UPDATE users SET roles = 'root'",
    "UPDATE users SET no_password = 1 - no_password",
    "UPDATE users SET min_arev = min_arev + 1",
    "UPDATE users SET password_hash = zeroblob(length(password_hash))",
    "INSERT INTO roles (name) VALUES ('more')",
    "UPDATE meta SET value = CAST(value || 'x' AS BLOB)",
)


@pytest.mark.parametrize("statement", MARKED_EDITS)
def test_nothing_is_believed_whose_mark_does_not_fit(
    history: History, reopen, statement: str
) -> None:
    world = small_world()
    first = world.effects[0]
    user = TableChange("users", ("ada",), ("uid-1", "hash", False, "dev", 3))
    meta = TableChange("meta", ("trust_domain",), (b"corp",))
    tables = (user, meta, TableChange("roles", ("dev",), ()))
    history.write([first._replace(tables=(*first.tables, *tables)), *world.effects[1:]])
    history.close()
    edit(history.path, statement)
    with pytest.raises(FatalError) as caught:
        reopen()
    assert caught.value.code is ExitCode.STORES_DISAGREE


def test_the_mark_follows_every_change_of_a_small_table(history: History, reopen) -> None:
    world = World()
    changes = [
        (TableChange("roles", ("a",), ()), TableChange("roles", ("b",), ())),
        (TableChange("users", ("u",), ("1", "h", False, "a", 1)),),
        (TableChange("users", ("u",), ("1", "h2", False, "a,b", 2)),),
        (TableChange("roles", ("a",), None), TableChange("roles", ("never",), None)),
        (TableChange("roles", ("b",), ()),),
    ]
    for number, tables in enumerate(changes):
        world.put(b"k", b"%d" % number)
        history.write([world.effects[-1]._replace(tables=tables)])
        history.close()
        history = reopen()
    assert history.load_tables()["roles"] == [("b",)]


def test_a_tombstone_cannot_be_made_a_value(history: History, reopen) -> None:
    world = World()
    world.put(b"k", b"v")
    world.delete(b"k")
    history.write(world.effects)
    history.close()
    with sqlite3.connect(history.path) as raw:
        raw.executescript(
            "UPDATE revisions SET tombstone = 0; INSERT INTO live VALUES (x'6b', 3, 0)"
        )
    raw.close()
    with pytest.raises(FatalError):
        list(reopen().load_live())


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_a_damaged_file_is_named_without_a_traceback(path: Path, key_file, content: bytes) -> None:
    path.write_bytes(content)
    if not content:  # an empty file is a first start that died early
        History.open(path, IDENTITY, key_file, create=True).close()
        return
    with pytest.raises(FatalError) as caught:
        History.open(path, IDENTITY, key_file, create=True)
    assert caught.value.code is ExitCode.STORAGE
    assert str(path) in str(caught.value)
