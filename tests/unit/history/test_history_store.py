"""The writing side: what is written comes back, exactly once, and only to its owner."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from history_world import IDENTITY, World, files_of, small_world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configsvc.apply.commands import TableChange
from configsvc.audit.merkle import Frontier, root_of
from configsvc.errors import (
    ConfigError,
    ExitCode,
    FatalError,
    InvariantViolationError,
    OverloadedError,
)
from configsvc.storage.history import reader as reader_module
from configsvc.storage.history import store as store_module
from configsvc.storage.history.seeds import seed_users
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile

# --- round trip -----------------------------------------------------------------------------------


def test_what_was_written_is_loaded_after_a_restart(history: History, reopen) -> None:
    world = small_world()
    history.write(world.effects, b"conf")
    history.close()
    history = reopen()
    meta = history.meta()
    assert (meta.applied, meta.term, meta.visible_revision) == (5, 3, world.revision)
    assert (meta.conf_state, meta.digest) == (b"conf", (5).to_bytes(16, "big"))
    loaded = list(history.load_live())
    assert {row.key: row for row in loaded} == world.live()
    assert loaded == sorted(loaded, key=lambda row: (row.revision, row.sub))
    assert history.load_tables()["leases"] == [(-5, 10, "user", 3)]


def test_the_conf_state_stays_until_another_is_given(history: History) -> None:
    world = small_world()
    history.write(world.effects[:2], b"first")
    history.write(world.effects[2:3])
    assert history.meta().conf_state == b"first"
    history.write(world.effects[3:], b"second")
    assert history.meta().conf_state == b"second"


def test_live_rows_come_in_slices(history: History) -> None:
    world = World()
    for number in range(25):
        world.put(b"k%02d" % number, b"v")
    history.write(world.effects)
    history.checkpoint()
    slices = list(history.load_live_slices(rows_max=10))
    assert [len(part) for part in slices] == [10, 10, 5]


def test_every_small_table_keeps_its_values(history: History, reopen) -> None:
    rows: dict[str, list[tuple[object, ...]]] = {
        "leases": [(2**63 - 1, 60, "root", 0)],
        "users": [("ann", "0f", "$argon2id$secret", False, '["a","b"]', 4)],
        "roles": [("a",)],
        "permissions": [("a", b"\xff\x00", b"", 2)],
        "members": [(2**64 - 1, "m1", "[]", "[]", True, b"s" * 16, "0.1")],
        "removed_members": [(2**63,)],
        "alarms": [(2**64 - 1, 1)],
        "signing_keys": [("k1", "token", 2**64 - 1, b"p" * 32, "active", 9)],
        "revocations": [("serial", "ab", 2**62)],
        "policy_bundles": [(1, "default", "text", b"\x00", True)],
        "anchors": [(2**64 - 1, "origin", 7, b"r" * 32)],
        "signatures": [(2**64 - 1, 256, b"r" * 32, b"s" * 64)],
        "meta": [("auth_enabled", b"1")],
    }
    widths = {"permissions": 3, "alarms": 2, "revocations": 2, "signatures": 2}
    world = World()
    changes = [
        TableChange(name, row[: widths.get(name, 1)], row[widths.get(name, 1) :])
        for name, table in rows.items()
        for row in table
    ]
    history.write([world.bookkeeping(*changes)])
    history.close()
    assert b"argon2id" not in b"".join(files_of(history.path).values())
    history = reopen()
    assert history.load_tables() == rows
    gone = [TableChange(change.table, change.key, None) for change in changes]
    history.write([world.bookkeeping(*gone)])
    assert not any(history.load_tables().values())


def test_the_last_change_of_a_small_row_wins_in_one_batch(history: History) -> None:
    world = World()
    effects = [
        world.bookkeeping(TableChange("meta", ("x",), (b"1",))),
        world.bookkeeping(TableChange("meta", ("x",), None), TableChange("roles", ("r",), ())),
        world.bookkeeping(TableChange("meta", ("x",), (b"2",)), TableChange("roles", ("r",), None)),
    ]
    history.write(effects)
    tables = history.load_tables()
    assert tables["meta"] == [("x", b"2")]
    assert tables["roles"] == []


def test_an_unknown_table_is_a_bug(history: History) -> None:
    with pytest.raises(InvariantViolationError, match="unknown small table"):
        history.write([World().bookkeeping(TableChange("passwords", ("x",), ()))])


def test_actors_and_tree_are_kept(history: History, reopen) -> None:
    world = World()
    world.commit([("put", b"k", b"v", 0)], actor=b"A" * 32)
    world.commit([], actor=b"B" * 32)
    for _ in range(600):
        world.put(b"k", b"v")
    for at in range(0, len(world.effects), 70):
        history.write(world.effects[at : at + 70])
    leaves = [effect.leaf for effect in world.effects]
    assert history.tree_root() == root_of(leaves)
    history.close()
    history = reopen()
    size, roots = history.load_tree()
    assert size == len(leaves)
    assert Frontier.restore(size, roots).root() == root_of(leaves) == history.tree_root()
    assert [(a.hash, a.record, a.seq) for a in history.load_actors()] == [
        (b"A" * 32, b"record of " + b"A" * 32, 0),
        (b"B" * 32, b"record of " + b"B" * 32, 1),
    ]


KEYS = st.sampled_from([b"a", b"b", b"c"])
OPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete"]), KEYS, st.binary(max_size=3), st.just(0)),
    max_size=4,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(commits=st.lists(OPS, min_size=1, max_size=12), cuts=st.sets(st.integers(1, 11)))
def test_live_agrees_with_the_model(
    commits, cuts, template: Path, key_file: KeyFile, tmp_path_factory
) -> None:
    directory = tmp_path_factory.mktemp("live")
    path = directory / "history.db"
    path.write_bytes(template.read_bytes())
    path.chmod(0o600)
    world = World()
    history = History.open(path, IDENTITY, key_file, create=False)
    for number, ops in enumerate(commits):
        history.write([world.commit(ops)])
        if number in cuts:
            history.checkpoint()
    history.abandon()
    history = History.open(path, IDENTITY, key_file, create=False)
    assert {row.key: row for row in history.load_live()} == world.live()
    history.abandon()


# --- exactly once ---------------------------------------------------------------------------------


def test_replaying_the_log_changes_nothing(history: History) -> None:
    world = small_world()
    history.write(world.effects[:3])
    history.write(world.effects)  # overlaps: 1 to 3 are there
    history.write(world.effects)  # all are there
    assert history.meta().applied == 5
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("SELECT count(*) FROM commits").fetchone() == (4,)
        assert raw.execute("SELECT count(*) FROM revisions").fetchone() == (len(world.rows),)
    raw.close()


def test_a_gap_is_a_bug(history: History) -> None:
    world = small_world()
    with pytest.raises(InvariantViolationError, match="without a gap"):
        history.write(world.effects[1:])
    history.write(world.effects[:1])
    with pytest.raises(InvariantViolationError, match="without a gap"):
        history.write([world.effects[1], world.effects[3]])


def test_a_second_owner_ends_the_first_and_nothing_is_lost(history: History, reopen) -> None:
    world = small_world()
    history.write(world.effects[:2])
    second = reopen()
    with pytest.raises(FatalError) as caught:
        history.write(world.effects[2:])
    assert caught.value.code is ExitCode.STORES_DISAGREE
    with pytest.raises(InvariantViolationError, match="failed history"):
        history.write(world.effects[2:])
    second.write(world.effects[2:])
    assert {row.key: row for row in _reloaded(second)} == world.live()


def _reloaded(history: History) -> list:
    history.checkpoint()
    return list(history.load_live())


def test_a_failed_transaction_leaves_nothing_behind(history: History, reopen) -> None:
    world = small_world()
    history.write(world.effects[:2])
    with sqlite3.connect(history.path) as raw:  # the third entry's leaf is already taken
        raw.execute("INSERT INTO openings VALUES (2, x'00')")
    raw.close()
    with pytest.raises(Exception, match="UNIQUE"):
        history.write(world.effects[2:])
    assert history.meta().applied == 2
    history.abandon()
    history = reopen()
    assert history.meta().applied == 2
    assert {row.key for row in history.load_live()} == {b"/a", b"/b"}


# --- refusals at open -----------------------------------------------------------------------------


def test_a_missing_store_is_not_made_silently(tmp_path: Path, key_file: KeyFile) -> None:
    with pytest.raises(FatalError) as caught:
        History.open(tmp_path / "none.db", IDENTITY, key_file, create=False)
    assert caught.value.code is ExitCode.STORES_DISAGREE
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cluster_id", 1),
        ("member_id", 2),
        ("store_id", b"x" * 16),
        ("insecure", True),
        ("epoch", 1),
    ],
)
def test_another_identity_is_refused(path: Path, key_file: KeyFile, field, value) -> None:
    with pytest.raises(FatalError) as caught:
        History.open(path, IDENTITY._replace(**{field: value}), key_file, create=True)
    assert caught.value.code is ExitCode.WRONG_IDENTITY


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = '0004'",
        "UPDATE store SET minimum_reader = 3",
    ],
)
def test_a_newer_store_is_refused(path: Path, key_file: KeyFile, statement: str) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute(statement)
    raw.close()
    with pytest.raises(FatalError) as caught:
        History.open(path, IDENTITY, key_file, create=False)
    assert caught.value.code is ExitCode.TOO_NEW


def test_a_wrong_key_is_refused_and_nothing_is_touched(path: Path, tmp_path: Path) -> None:
    other = KeyFile.create(tmp_path / "other.key")
    before = files_of(path)
    with pytest.raises(ConfigError) as caught:
        History.open(path, IDENTITY, other, create=False)
    assert caught.value.code is ExitCode.CONFIG
    assert files_of(path) == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_store_others_can_reach_is_refused(path: Path, key_file: KeyFile, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match="lets others in"):
        History.open(path, IDENTITY, key_file, create=False)


def test_a_link_is_refused(path: Path, key_file: KeyFile) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="is a symlink"):
        History.open(link, IDENTITY, key_file, create=False)


def test_def6_a_parent_that_others_may_write_is_refused(path: Path, key_file: KeyFile) -> None:
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError):
        History.open(path, IDENTITY, key_file, create=True)
    path.parent.chmod(0o700)


def test_files_are_private_under_any_umask(tmp_path: Path, key_file: KeyFile) -> None:
    before = os.umask(0)
    try:
        history = History.open(tmp_path / "new.db", IDENTITY, key_file, create=True)
        history.write(small_world().effects)
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("new.db*")}
        history.close()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm"), 0o600)
    assert [file.name for file in tmp_path.glob("new.db*")] == ["new.db"]


def test_pragmas_hold(history: History) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 1,
        "wal_autocheckpoint": 0,
        "foreign_keys": 1,
        "recursive_triggers": 1,
    }
    connection = history._connection
    for pragma, value in expected.items():
        assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value, pragma
    connection.rollback()


def test_other_databases_are_refused_by_name(key_file: KeyFile) -> None:
    with pytest.raises(ConfigError, match="postgresql"):
        History.open("postgresql+psycopg://u:pw@h/db", IDENTITY, key_file, create=False)


# --- sealing --------------------------------------------------------------------------------------


def test_values_and_openings_are_not_readable_on_disk(history: History) -> None:
    world = World()
    world.commit([("put", b"clear-key", b"hidden-value", 0)], reason="hidden-reason")
    history.write(world.effects)
    history.close()
    stored = b"".join(files_of(history.path).values())
    assert b"clear-key" in stored
    assert b"hidden" not in stored


def test_rewrapping_needs_the_new_key_from_then_on(
    history: History, key_file: KeyFile, tmp_path: Path
) -> None:
    world = small_world()
    history.write(world.effects)
    new = KeyFile.create(tmp_path / "new.key")
    assert history.rewrap(new) == 1
    history.close()
    with pytest.raises(ConfigError):
        History.open(history.path, IDENTITY, key_file, create=False)
    history = History.open(history.path, IDENTITY, new, create=False)
    assert {row.key: row for row in history.load_live()} == world.live()
    history.abandon()


def test_a_used_up_seed_is_followed_by_another(
    history: History, reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("configsvc.storage.history.seeds", store_module.__name__):
        monkeypatch.setattr(f"{module}.SEALED_PER_SEED_MAX", 4)
    world = small_world()
    for effect in world.effects:
        history.write([effect])
    with history._connection.begin():
        users = seed_users(history._connection)
    assert len(users) >= 2
    assert sum(users.values()) == len(world.effects)  # every transaction seals its mark at least
    history.close()
    assert {row.key: row for row in reopen().load_live()} == world.live()


# --- durability -----------------------------------------------------------------------------------


def test_the_durable_index_waits_for_readers(history: History, reader) -> None:
    world = small_world()
    history.write(world.effects[:2])
    assert history.checkpoint() == 2
    with reader.transaction():
        history.write(world.effects[2:])
        assert history.checkpoint() == 0
    assert history.checkpoint() == 5


def test_what_a_killed_process_left_is_durable_only_after_a_checkpoint(history, reopen) -> None:
    history.write(small_world().effects)
    assert history.durable == 0
    history.abandon()
    second = reopen()
    assert (second.meta().applied, second.durable) == (5, 5)


def test_a_reader_keeps_the_opened_index_from_being_durable(history, reader, reopen) -> None:
    history.write(small_world().effects)
    with reader.transaction():
        history._connection.exec_driver_sql("INSERT INTO roles VALUES ('x')")
        history._connection.commit()
        assert history.checkpoint(wait_s=0.01) == 0
    assert history.durable == 0


def test_a_reader_cannot_write(history: History, reader) -> None:
    with (
        pytest.raises(Exception, match="readonly"),
        reader.transaction() as (connection, _session),
    ):
        connection.exec_driver_sql("DELETE FROM commits")


# --- copies ---------------------------------------------------------------------------------------


def test_a_copy_is_whole_and_leaves_no_file(history, reader, key_file, tmp_path: Path) -> None:
    """Also while a transaction is in SQLite's own log only."""
    world = small_world()
    history.write(world.effects[:3])
    with reader.open_copy() as copy:
        history.write(world.effects[3:])
        assert os.fstat(copy.fileno()).st_mode & 0o777 == 0o600
        data = copy.read()
    assert not list(history.path.parent.glob("copy-*"))
    place = tmp_path / "restored.db"
    place.write_bytes(data)
    place.chmod(0o600)
    restored = History.open(place, IDENTITY, key_file, create=False)
    assert restored.meta().applied == 3
    assert {row.key: row for row in restored.load_live()} == world.live(world.effects[2].revision)
    restored.abandon()


def test_a_copy_in_memory_is_bounded(history, reader, monkeypatch) -> None:
    whole = reader.export_copy()
    assert len(whole) == history.path.stat().st_size
    monkeypatch.setattr(reader_module, "HISTORY_COPY_BYTES_MAX", len(whole) - 1)
    with pytest.raises(OverloadedError):
        reader.export_copy()
