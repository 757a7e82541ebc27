"""On a restart the data directory decides, and the log says which flags do not (P9)."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.config import ServerConfig
from configsvc.server.logs import Log
from configsvc.server.run import Server
from configsvc.server.stores import ignored_flags, open_stores
from configsvc.storage.seal.keyfile import KeyFile

URL = "http://127.0.0.1:19003"
ALL = {
    "initial_cluster": (("a", URL),),
    "initial_cluster_state": "existing",
    "initial_cluster_token": "t",
    "initial_advertise_peer_urls": (URL,),
}


def stores(*, first: bool = False, genesis: bool = False, applied: int = 7) -> Any:
    members = {1: (URL,)} if genesis else {}
    return SimpleNamespace(first_start=first, genesis=members, applied=applied)


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_flag_is_named_alone(name: str) -> None:
    config = replace(ServerConfig(), **{name: ALL[name]})  # type: ignore[arg-type]
    assert ignored_flags(config, stores()) == ["--" + name.replace("_", "-")]


@pytest.mark.parametrize(
    ("found", "count"),
    [
        pytest.param(stores(), 4, id="restart"),
        pytest.param(stores(genesis=True), 4, id="same-members-as-given"),
        pytest.param(stores(first=True, genesis=True, applied=0), 0, id="first-start"),
        pytest.param(stores(genesis=True, applied=0), 0, id="killed-before-the-first-entry"),
        pytest.param(stores(applied=0), 4, id="joined-and-still-empty"),
    ],
)
def test_when_they_are_ignored(found: Any, count: int) -> None:
    assert len(ignored_flags(replace(ServerConfig(), **ALL), found)) == count  # type: ignore[arg-type]


def test_without_such_flags_nothing_is_said() -> None:
    assert ignored_flags(ServerConfig(name="a", data_dir="d"), stores()) == []


def test_the_line_of_a_member_that_joined_and_starts_again(tmp_path: Path) -> None:
    KeyFile.create(tmp_path / "a.key")
    config = ServerConfig(
        name="a",
        data_dir=str(tmp_path / "a"),
        key_file=str(tmp_path / "a.key"),
        insecure_dev=True,
        initial_cluster=(("a", URL),),
        initial_advertise_peer_urls=(URL,),
    )
    opened = open_stores(config)
    try:
        lines = hello(config, opened)
        assert not having(lines, "ignored")
        lines = hello(config, replace(opened, first_start=False, applied=3))
        [line] = having(lines, "ignored")
        assert line["setting"] == "--initial-advertise-peer-urls --initial-cluster"
    finally:
        opened.reader.close()
        opened.history.close()
        opened.wal.close()
        opened.local.close()


@pytest.mark.parametrize(("version", "said"), [((3, 40, 1), 1), ((3, 51, 3), 0)])
def test_a_known_fault_of_the_linked_sqlite_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], said: int
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    opened = SimpleNamespace(
        self_id=1,
        cluster_id=2,
        applied=0,
        last_index=0,
        incarnation=1,
        first_start=True,
        genesis={},
    )
    assert len(having(hello(ServerConfig(name="a"), opened), "WAL-reset bug")) == said


def hello(config: ServerConfig, opened: Any) -> list[dict[str, Any]]:
    """The lines of a start."""
    stream = io.StringIO()

    async def say() -> None:
        Server(config, Log("info", stream))._say_hello(opened)

    asyncio.run(say())
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def having(lines: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    return [line for line in lines if text in line["msg"]]
