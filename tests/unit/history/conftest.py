from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from history_world import IDENTITY

from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    directory = tmp_path_factory.mktemp("keys")
    directory.chmod(0o700)
    return KeyFile.create(directory / "store.key")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, key_file: KeyFile) -> Path:
    """An empty history, made once: copying it is quicker than migrating again."""
    directory = tmp_path_factory.mktemp("template")
    directory.chmod(0o700)
    path = directory / "empty.db"
    History.open(path, IDENTITY, key_file, create=True).close()
    return path


@pytest.fixture
def path(tmp_path: Path, template: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "history.db"
    shutil.copy(template, path)
    path.chmod(0o600)
    return path


@pytest.fixture
def reopen(path: Path, key_file: KeyFile) -> Iterator[Callable[[], History]]:
    """Opens the history of this test; what is still open is dropped at the end."""
    opened: list[History] = []

    def open_again() -> History:
        opened.append(History.open(path, IDENTITY, key_file, create=False))
        return opened[-1]

    yield open_again
    for history in opened:
        history.abandon()


@pytest.fixture
def history(reopen: Callable[[], History]) -> History:
    return reopen()


@pytest.fixture
def reader(history: History, path: Path, key_file: KeyFile) -> Iterator[HistoryReader]:
    reader = HistoryReader(path, IDENTITY, key_file)
    yield reader
    reader.close()
