"""A script per file: run once against both servers, then judged step by step."""

from __future__ import annotations

import pytest

from tests.support.etcd_cases import Client, Step
from tests.support.etcd_servers import Running, both


def run_script(server: Running, steps: list[Step]) -> list[object]:
    """Outcomes in the order of ``steps``."""
    with server.channel() as channel:
        client = Client(channel, {"target": server.target})
        found = [step.run(client) for step in steps]
    assert server.process.poll() is None, f"{server.name} died in the middle of the script"
    return found


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[object, object]]:
    """Step number -> (etcd's outcome, ours) of the module's SCRIPT."""
    steps: list[Step] = request.module.SCRIPT
    flags: list[str] = getattr(request.module, "FLAGS", [])
    root = tmp_path_factory.mktemp("both")
    make_tls = getattr(request.module, "make_tls", None)
    with both(root, tls=make_tls(root) if make_tls else None, flags=flags) as servers:
        found = [run_script(server, steps) for server in servers]
    return dict(enumerate(zip(*found, strict=True)))
