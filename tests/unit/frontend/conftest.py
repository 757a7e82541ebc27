"""Both event loops: the product's own and the one that tests of others may use."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.support.frontend_world import Loop


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Loop:
    """Runs a scenario on a loop of its own."""
    return uvloop.run if request.param == "uvloop" else asyncio.run  # type: ignore[return-value]
