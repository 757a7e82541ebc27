"""The two servers, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.grpc_twins import GrpcioServer, OurServer, Twins


@pytest.fixture(scope="session")
def twins() -> Iterator[Twins]:
    made = Twins(OurServer(), GrpcioServer())
    yield made
    for server in made:
        server.stop()
