"""A start that refuses has changed nothing, whichever store it refuses (2.2)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from configsvc.codec.records import encode_entries
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.raft.messages import Entry, EntryKind, HardState
from configsvc.server.stores import Stores, open_stores
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import BLOCK, FIRST_FRAME
from configsvc.types import LogIndex, NodeId, Term

GENESIS = (("a", "http://127.0.0.1:19001"), ("b", "http://127.0.0.1:19002"))


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    KeyFile.create(tmp_path / "a.key")
    return settings(tmp_path / "a", tmp_path / "a.key")


def settings(data: Path, key: Path) -> ServerConfig:
    return ServerConfig(
        name="a",
        data_dir=str(data),
        key_file=str(key),
        insecure_dev=True,
        initial_cluster=GENESIS,
        initial_cluster_token=data.name,
        initial_advertise_peer_urls=(GENESIS[0][1],),
    )


def close(stores: Stores) -> None:
    stores.reader.close()
    stores.history.close()
    stores.wal.close()
    stores.local.close()


def born(config: ServerConfig, entries: int = 3) -> Path:
    """A member's directory whose log holds a term and some entries."""
    stores = open_stores(config)
    if entries:
        hard = HardState(Term(1), NodeId(0), LogIndex(0))
        made = [Entry(LogIndex(i), Term(1), EntryKind.NORMAL, b"") for i in range(1, entries + 1)]
        for entry in made:
            stores.wal.append(hard, entry.index, 1, encode_entries([entry]))
    close(stores)
    return Path(config.data_dir)


def content(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()
    }


def refused(config: ServerConfig) -> int:
    with pytest.raises((FatalError, ConfigError)) as caught:
        open_stores(config)
    return int(caught.value.code)


def no_history(data: Path) -> None:
    (data / "sql" / "gen-1.db").unlink()


def foreign_history(data: Path) -> None:
    other = settings(data.parent / "other", data.parent / "a.key")
    shutil.copy(born(other) / "sql" / "gen-1.db", data / "sql" / "gen-1.db")


def foreign_audit(data: Path) -> None:
    other = settings(data.parent / "other", data.parent / "a.key")
    shutil.copy(born(other) / "local" / "audit.db", data / "local" / "audit.db")


def foreign_token_key(data: Path) -> None:
    KeyFile.create(data.parent / "b.key")
    other = settings(data.parent / "other", data.parent / "b.key")
    shutil.copy(born(other) / "local" / "token.key", data / "local" / "token.key")


def history_ahead(data: Path) -> None:
    with sqlite3.connect(data / "sql" / "gen-1.db") as database:
        database.execute("UPDATE progress SET applied = 9")
    database.close()


def newer_history(data: Path) -> None:
    with sqlite3.connect(data / "sql" / "gen-1.db") as database:
        database.execute("UPDATE store SET minimum_reader = 99")
    database.close()


def hole_in_log(data: Path) -> None:
    """A page in the middle is gone, pages behind it are whole."""
    (segment,) = (data / "log").glob("*.wal")
    raw = bytearray(segment.read_bytes())
    raw[FIRST_FRAME + BLOCK : FIRST_FRAME + 2 * BLOCK] = bytes(BLOCK)
    segment.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (no_history, ExitCode.STORES_DISAGREE),
        (history_ahead, ExitCode.STORES_DISAGREE),
        (foreign_history, ExitCode.WRONG_IDENTITY),
        (foreign_audit, ExitCode.WRONG_IDENTITY),
        (foreign_token_key, ExitCode.CONFIG),
        (newer_history, ExitCode.TOO_NEW),
        (hole_in_log, ExitCode.LOG_DAMAGED),
    ],
)
def test_nothing_is_written_or_deleted_by_a_start_that_refuses(
    config: ServerConfig, harm: Callable[[Path], None], code: int
) -> None:
    data = born(config)
    leftover = data / "sql" / "gen-7.db"
    leftover.write_bytes(b"an install that a kill ended")
    leftover.chmod(0o600)
    harm(data)
    before = content(data)
    assert refused(config) == code
    assert content(data) == before


def test_a_store_is_started_as_what_it_was_born(config: ServerConfig) -> None:
    data = born(config)
    before = content(data)
    assert refused(replace(config, insecure_dev=False)) == ExitCode.WRONG_IDENTITY
    assert content(data) == before


def test_leftovers_go_once_nothing_refuses(config: ServerConfig) -> None:
    data = born(config)
    (data / "sql" / "gen-7.db").write_bytes(b"an install that a kill ended")
    (data / "sql" / "gen-7.db").chmod(0o600)
    close(open_stores(config))
    assert not (data / "sql" / "gen-7.db").exists()


def test_a_first_start_that_was_killed_before_its_history_is_repeated(
    config: ServerConfig,
) -> None:
    data = born(config, entries=0)
    no_history(data)
    stores = open_stores(config)
    assert (stores.applied, len(stores.conf_state.voters)) == (0, 2)
    close(stores)


def test_until_something_is_applied_only_the_same_members_may_be_named(
    config: ServerConfig,
) -> None:
    data = born(config)
    before = content(data)
    others = (GENESIS[0], ("c", "http://127.0.0.1:19003"))
    for changed in (
        replace(config, initial_cluster=others),
        replace(config, initial_cluster=()),
        replace(config, initial_cluster_token="another"),
    ):
        assert refused(changed) == ExitCode.CONFIG
        assert content(data) == before
    close(open_stores(config))


def test_a_key_inside_the_data_directory_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    data = tmp_path / "a"
    data.mkdir(mode=0o700)
    KeyFile.create(data / "a.key")
    assert refused(settings(data, data / "a.key")) == ExitCode.CONFIG
    assert list(content(data)) == ["a.key"]
