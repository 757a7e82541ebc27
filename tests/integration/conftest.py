"""Clusters of real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.members import MemberCluster, make_pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def make_cluster(pki: Path, tmp_path: Path) -> Iterator[Callable[[int], MemberCluster]]:
    made: list[MemberCluster] = []

    def make(size: int) -> MemberCluster:
        root = tmp_path / f"cluster{len(made)}"
        root.mkdir(mode=0o700)
        cluster = MemberCluster(root, pki, size)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture(scope="module")
def trio(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemberCluster]:
    """Three members that a module's tests share; no test may leave one stopped."""
    cluster = MemberCluster(tmp_path_factory.mktemp("trio"), pki, 3)
    try:  # members that did come up must not outlive one that did not
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
