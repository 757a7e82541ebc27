"""A client of the cluster that each file makes for itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from configsvc.client import Client, ClientSettings, parse_endpoints
from tests.support.fake_cluster import FakeCluster


@pytest.fixture
def client(cluster: FakeCluster) -> Iterator[Client]:
    with Client(ClientSettings(parse_endpoints(cluster.urls), timeout_s=3.0)) as made:
        yield made
