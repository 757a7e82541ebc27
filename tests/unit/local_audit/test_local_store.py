"""The member-local database: groups, restarts, sealing, damage, failure and repair."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from configsvc.audit.merkle import root_of
from configsvc.errors import ConfigError, FatalError
from configsvc.storage.local.messages import LocalActor, LocalIdentity, LocalRecord
from configsvc.storage.local.store import LocalStore
from configsvc.storage.local.writer import LocalItem, LocalWriter
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile

OWN = LocalIdentity(7, 8, bytes(16))
KEY = KeyFile(bytes(range(32)))
NEW_KEY = KeyFile(bytes(range(1, 33)))


def record(seq: int) -> LocalRecord:
    return LocalRecord(seq, b"leaf of %d" % seq, b"s" * 32, "because", "T-1")


def item(seq: int) -> LocalItem:
    return LocalItem(record(seq), None, seq)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "local"
    folder.mkdir(mode=0o700)
    return folder / "audit.db"


def opened(path: Path, identity: LocalIdentity = OWN, key: KeyFile = KEY) -> LocalStore:
    return LocalStore.open(path, identity, key)


def test_what_was_committed_is_there_after_a_restart(path: Path) -> None:
    store = opened(path)
    actor = LocalActor(1, b"h" * 32, b"alice", b"salt")
    store.append([record(0)], [], 10)
    store.append([record(1), record(2)], [actor], 12)
    mark, head = store.mark, store.head
    store.close()

    again = opened(path)
    assert (again.mark, again.head) == (mark, head)
    assert head.size == 3
    assert head.time_ns == 12
    assert again.known_actors() == [(b"alice", b"h" * 32)]
    with again.reading() as reader:
        assert reader.records(0, 9) == [record(0), record(1), record(2)]
        assert reader.actors(0, 9) == [actor]
        assert reader.root_at(2) == root_of([record(0).leaf, record(1).leaf])
        assert reader.root_at(3) == root_of([record(n).leaf for n in range(3)])
    again.append([record(3)], [], 1)
    assert again.head.size == 4
    assert again.head.time_ns == 12, "the newest time never goes back"
    again.close()


def test_files_are_private_and_hold_nothing_in_the_clear(path: Path) -> None:
    store = opened(path)
    store.append([LocalRecord(0, b"LEAF-MARK", b"", "REASON-MARK", "TICKET-MARK")], [], 1)
    store.append([record(1)], [LocalActor(1, b"h" * 32, b"ACTOR-MARK", b"SALT-MARK")], 1)
    files = list(path.parent.iterdir())
    assert files
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in files)
    held = b"".join(f.read_bytes() for f in files)
    for mark in (b"LEAF-MARK", b"REASON-MARK", b"TICKET-MARK", b"ACTOR-MARK", b"SALT-MARK"):
        assert mark not in held
    store.close()


def test_refused_files(path: Path) -> None:
    store = opened(path)
    store.append([record(0)], [], 1)
    store.close()
    for other in (OWN._replace(member_id=9), OWN._replace(store_id=b"x" * 16)):
        with pytest.raises(FatalError) as caught:
            opened(path, other)
        assert caught.value.code == 85
    with pytest.raises(ConfigError):
        opened(path, key=KeyFile(bytes(32)))
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError):
        opened(path)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE store SET minimum_reader = 9", 86),
        ("DELETE FROM records WHERE seq = 2", 84),
        ("UPDATE head SET size = 2", 84),
    ],
)
def test_a_start_refuses_what_does_not_fit(path: Path, statement: str, code: int) -> None:
    store = opened(path)
    store.append([record(n) for n in range(3)], [], 1)
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    with pytest.raises(FatalError) as caught:
        opened(path)
    assert caught.value.code == code


def test_swapped_rows_do_not_open(path: Path) -> None:
    store = opened(path)
    store.append([record(0), record(1)], [], 1)
    with sqlite3.connect(path) as db:
        rows = dict(db.execute("SELECT seq, sealed FROM records").fetchall())
        db.execute("UPDATE records SET sealed = ? WHERE seq = 0", (rows[1],))
    db.close()
    with store.reading() as reader, pytest.raises(SealBroken, match="local record 0"):
        reader.records(0, 1)
    store.close()


def test_a_file_made_anew_is_another_stream(path: Path) -> None:
    store = opened(path)
    mark = store.mark
    store.close()
    for name in path.parent.iterdir():
        name.unlink()
    store = opened(path)
    assert store.mark != mark
    store.close()


def test_another_key_file_after_a_rewrap(path: Path) -> None:
    store = opened(path)
    store.append([record(0)], [], 1)
    new = KeyFile(b"n" * 32)
    assert store.rewrap(new) == 1
    store.close()
    with pytest.raises(ConfigError):
        opened(path)
    again = opened(path, key=new)
    with again.reading() as reader:
        assert reader.records(0, 1) == [record(0)]
    again.close()


# --- the writer ----------------------------------------------------------------------------------


class Heard:
    """What the writer's thread said."""

    def __init__(self) -> None:
        self.size = 0
        self.failures: list[str] = []
        self.fatal: list[BaseException] = []
        self.changed = threading.Condition()

    def _note(self, change: Any) -> None:
        with self.changed:
            change()
            self.changed.notify_all()

    def durable(self, size: int) -> None:
        self._note(lambda: setattr(self, "size", size))

    def failed(self, why: str) -> None:
        self._note(lambda: self.failures.append(why))

    def died(self, error: BaseException) -> None:
        self._note(lambda: self.fatal.append(error))

    def wait(self, until: Any) -> None:
        with self.changed:
            assert self.changed.wait_for(until, 10)


def writer_of(store: LocalStore, heard: Heard) -> LocalWriter:
    made = LocalWriter(store, on_durable=heard.durable, on_failed=heard.failed, on_fatal=heard.died)
    made.start()
    return made


def test_groups_are_on_disk_when_they_are_reported(path: Path) -> None:
    heard = Heard()
    writer = writer_of(opened(path), heard)
    for seq in range(100):
        writer.submit(item(seq))
    heard.wait(lambda: heard.size == 100)
    other = opened(path)
    assert other.head.size == 100
    other.close()
    writer.submit(item(100))
    assert writer.close(10), "what is queued is written before the end"
    assert heard.size == 101
    assert not heard.fatal


class BadStore(LocalStore):
    """Fails as a disk does; ``reaches`` lets the commit through before it reports the error."""

    broken = True
    reaches = False
    attempts = 0

    def append(self, records: Any, actors: Any, time_ns: int) -> None:
        self.attempts += 1
        if self.broken and not self.reaches:
            raise sqlite3.OperationalError("disk I/O error")
        super().append(records, actors, time_ns)
        if self.broken:
            self.broken = False
            raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("reaches", [False, True])
def test_a_failed_group_is_kept_and_written_once(
    path: Path, reaches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("configsvc.storage.local.writer.LOCAL_RETRY_S", 0.01)
    heard = Heard()
    store = BadStore.open(path, OWN, KEY)
    store.reaches = reaches
    writer = writer_of(store, heard)
    writer.submit(item(0))
    heard.wait(lambda: heard.failures)
    assert heard.size == 0 or reaches
    if not reaches:
        assert not writer.takes, "nothing is taken that may never reach the disk"
    store.broken = False
    heard.wait(lambda: heard.size == 1)
    assert writer.takes
    writer.submit(item(1))
    assert writer.close(10)
    assert heard.failures[0] == "OperationalError"
    assert not heard.fatal
    again = opened(path)
    with again.reading() as reader:
        assert [r.seq for r in reader.records(0, 9)] == [0, 1]
    again.close()


def test_a_stop_does_not_wait_for_a_dead_disk(path: Path) -> None:
    heard = Heard()
    writer = writer_of(BadStore.open(path, OWN, KEY), heard)
    writer.submit(item(0))
    heard.wait(lambda: heard.failures)
    assert not writer.close(5), "what is not on disk is told as such"
    assert not writer._thread.is_alive()
    assert heard.size == 0


# --- another key while it runs --------------------------------------------------------------------


def test_a_task_has_its_turn_between_groups_and_its_error_is_told(path: Path) -> None:
    heard = Heard()
    writer = writer_of(opened(path), heard)
    told: list[BaseException | None] = []

    def broken(_: LocalStore) -> None:
        raise ConfigError("no such key", "bring it")

    writer.submit(item(0))
    writer.task(lambda store: store.rewrap(NEW_KEY), told.append)
    writer.task(broken, told.append)
    writer.submit(item(1))
    heard.wait(lambda: heard.size == 2 and len(told) == 2)
    assert told[0] is None
    assert isinstance(told[1], ConfigError)
    assert writer.close(5.0)
    with pytest.raises(ConfigError):
        opened(path)
    again = opened(path, key=NEW_KEY)
    assert again.head.size == 2
    again.close()


def test_who_reads_during_a_change_of_keys_goes_on(path: Path) -> None:
    store = opened(path)
    store.append([record(0)], [], 1)
    with store.reading() as before:
        store.rewrap(NEW_KEY)
        assert before.records(0, 9) == [record(0)]
    with store.reading() as after:
        assert after.records(0, 9) == [record(0)]
    store.append([record(1)], [], 2)
    store.close()
    again = opened(path, key=NEW_KEY)
    assert again.head.size == 2
    again.close()


def test_a_change_of_keys_that_fails_leaves_the_key_in_force(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(path)

    def broken(*_: object) -> int:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr("configsvc.storage.local.sealing.rewrap", broken)
    with pytest.raises(sqlite3.OperationalError):
        store.rewrap(NEW_KEY)
    monkeypatch.undo()
    store.append([record(0)], [], 1)
    store.close()
    store.connect()
    assert store.head.size == 1
    store.close()
