"""Values of 1 MiB and sets of 8 MiB work; beyond, the set is held with a number (N7, I9)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from configsvc import limits
from tests.integration.agent_world import World, run
from tests.support.fake_cluster import FakeCluster

ROOM = 4096  # for the names of the keys, and what else is in the set
LARGE = limits.AGENT_SET_BYTES_MAX // 8 - ROOM


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(1) as cluster:
        made = World(tmp_path, cluster)
        made.parts["file"] = f"""
  [[set.file]]
  dest = "{made.root}/sizes.conf"
  text = '''{{% for kv in gets("/big/*") %}}{{{{ kv.value | length }}}} {{% endfor %}}end
'''
  [[set.file]]
  dest = "{made.root}/big.bin"
  key = "/prod/web/big/0"
"""
        yield made


def sizes(count: int) -> str:
    return f"{LARGE} " * count + "end\n"


def test_as_large_as_allowed_and_not_larger(world: World) -> None:
    def fill(first: int, end: int) -> None:
        for number in range(first, end):
            world.put(f"/big/{number}", b"%d" % number * LARGE)

    fill(0, 8)

    async def story(w: World) -> None:
        await w.outcome("converged")
        assert w.text("sizes.conf") == sizes(8)
        assert w.text("big.bin") == "0" * LARGE
        await w.in_thread(w.put, "/big/0", b"x" * LARGE)
        await w.until(lambda: w.text("big.bin")[:1] == "x", "one of them changed")
        await w.in_thread(fill, 8, 9)
        await w.outcome("held")
        assert f"more than {limits.AGENT_SET_BYTES_MAX}" in w.status()["reason"]
        assert w.text("sizes.conf") == sizes(8)
        await w.in_thread(w.delete, "/big/8")
        await w.outcome("converged")
        await w.in_thread(w.put, "/big/7", b"y" * (limits.AGENT_VALUE_BYTES_MAX + 1))
        await w.outcome("held")
        reason = w.status()["reason"]
        assert f"/big/7: {limits.AGENT_VALUE_BYTES_MAX + 1} bytes" in reason
        assert "yyyy" not in reason
        assert w.text("sizes.conf") == sizes(8)

    run(world, story)
