from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    return Shell(monkeypatch, capfdbinary, home)


@pytest.fixture
def cluster(shell: Shell) -> Iterator[FakeCluster]:
    with FakeCluster(2) as running:
        shell.use(running)
        yield running
