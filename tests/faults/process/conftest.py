"""One cluster on faulty ground for all process fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.process.arena import Arena
from tests.support.members import make_pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("fault-pki"))


@pytest.fixture(scope="session")
def shared_arena(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    arena = Arena(tmp_path_factory.mktemp("arena"), pki, 3)
    try:  # members that did come up must not outlive one that did not
        arena.start()
        yield arena
    finally:
        arena.stop()


@pytest.fixture
def arena(shared_arena: Arena) -> Iterator[Arena]:
    """Healthy before and after each test."""
    shared_arena.mend()
    yield shared_arena
    shared_arena.mend()
