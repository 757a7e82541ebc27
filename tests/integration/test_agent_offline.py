"""The store is away: what a node decides from what it stored, and what it refuses to use."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_world import World, run
from configagent import local
from configagent.agent import Agent
from configagent.errors import Exit
from configagent.inputs import INPUTS
from configagent.once import apply_once, show_plan, worst_of
from configagent.seal import load_key

from tests.support.fake_cluster import FakeCluster

CANARY = "canary-value-4711"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(1) as cluster:
        yield World(tmp_path, cluster)


def stored(w: World, name: str = "web") -> Path:
    return w.base / "state/sets" / name / INPUTS


def number(path: Path) -> int:
    return int(json.loads(path.read_bytes().split(b"\n", 1)[0])["number"])


async def converged_and_stored(w: World) -> None:
    await w.outcome("converged")
    await w.until(stored(w).exists, "inputs stored")


def then_without_the_store(world: World) -> None:
    """A first life that stores its inputs, then the store goes."""
    run(world, converged_and_stored)
    world.cluster.members[0].stop()


def refused(w: World) -> str:
    return next((str(e["why"]) for e in w.events() if e["event"] == "cache_refused"), "")


def test_a_new_template_is_rendered_from_stored_inputs(world: World) -> None:
    then_without_the_store(world)
    world.parts["file"] = (
        f'[[set.file]]\n  dest = "{world.root}/new.conf"\n  text = \'new {{{{ getv("/n") }}}}\''
    )

    async def story(w: World) -> None:
        await w.until(lambda: w.text("new.conf") == "new 1", "rendered offline")
        await w.outcome("converged")
        assert w.status()["cache"] == "revision 3, stored here"
        assert w.agent is not None
        assert w.agent.link.state == "offline"
        generation = w.status()["generation"]
        # Ten revisions are missed; then straight to the present one, in one generation (G5).
        await w.in_thread(w.cluster.members[0].start)
        for n in range(10):
            await w.in_thread(w.put, "/n", f"missed-{n}")
        await w.until(lambda: w.text("new.conf") == "new missed-9", "the present value")
        assert w.status()["cache"] == ""
        assert w.status()["generation"] <= generation + 10

    run(world, story, seed=False)


def test_missed_revisions_make_one_generation(world: World) -> None:
    then_without_the_store(world)
    world.cluster.members[0].start()
    for n in range(10):
        world.put("/n", f"missed-{n}")
    world.cluster.members[0].stop()

    async def story(w: World) -> None:
        await w.until(lambda: w.status()["cache"] != "")
        await w.in_thread(w.cluster.members[0].start)
        await w.until(lambda: w.text().startswith("n=missed-9"))
        await w.until(lambda: w.status()["content_revision"] > 3)  # the commit is known, too
        await w.outcome("converged")
        assert w.status()["generation"] == 2

    run(world, story, seed=False)


def flip(path: Path, w: World) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def flip_head(path: Path, w: World) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"revision": ', b'"revision": 9', 1))


def cut(path: Path, w: World) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, flip_head, cut])
def test_changed_inputs_are_refused_and_files_stay(world: World, damage: Any) -> None:
    then_without_the_store(world)
    before = world.text()
    damage(stored(world), world)
    world.parts["set"] = "settle = { min = '1ms' }"

    async def story(w: World) -> None:
        await w.until(lambda: "changed, or of another" in refused(w), "said so")
        assert w.status()["cache"].startswith("not used: the stored inputs are changed")
        assert w.text() == before
        assert w.agent is not None
        verdict = local.verify(w.agent.settings, w.agent.node_key, w.agent.settings.sets[0])
        assert verdict.code is Exit.REFUSED
        assert "inputs" in verdict.problems[0]

    run(world, story, seed=False)


def test_inputs_of_another_prefix_are_refused(world: World) -> None:
    then_without_the_store(world)
    text = world.config().replace("/prod/web", "/prod/other")
    world.config = lambda: text  # type: ignore[method-assign]

    async def story(w: World) -> None:
        await w.until(lambda: "changed, or of another" in refused(w), "said so")

    run(world, story, seed=False)


def test_an_older_copy_is_refused(world: World) -> None:
    """Yesterday's file comes back: it opens, and is not used (G3)."""

    async def first(w: World) -> None:
        await converged_and_stored(w)
        path = stored(w)
        shutil.copy(path, w.base / "yesterday")
        await w.in_thread(w.put, "/unread", CANARY)
        await w.until(lambda: number(path) > number(w.base / "yesterday"), "stored again")

    run(world, first)
    world.cluster.members[0].stop()
    shutil.copy(world.base / "yesterday", stored(world))

    async def second(w: World) -> None:
        await w.until(lambda: refused(w) != "", "said so")
        assert "was written already" in refused(w) or "older than what is applied" in refused(w)
        assert w.text().startswith("n=1")

    run(world, second, seed=False)


def test_nothing_plain_lies_in_the_state(world: World) -> None:
    async def story(w: World) -> None:
        await w.in_thread(w.put, "/n", CANARY)
        await converged_and_stored(w)
        await w.until(lambda: CANARY in w.text())

    run(world, story)
    for path in (world.base / "state").rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
            assert path.stat().st_mode & 0o077 == 0, path


def test_without_offline_start_stored_inputs_are_left_alone(world: World) -> None:
    then_without_the_store(world)
    text = world.config().replace("[security]", "[cache]\noffline_start = false\n[security]")
    world.config = lambda: text  # type: ignore[method-assign]

    async def story(w: World) -> None:
        assert w.agent is not None
        await w.until(lambda: w.agent is not None and w.agent.link.state == "offline")
        await asyncio.sleep(0.3)
        assert (w.status()["cache"], w.agent.runners["web"].ready.is_set()) == ("", False)

    run(world, story, seed=False)


def test_a_denied_node_decides_nothing_from_its_cache(world: World) -> None:
    then_without_the_store(world)
    agent = world.new_agent()

    async def play() -> None:
        await agent.start(report=False, store=False)
        runner = agent.runners["web"]
        runner.store_away("denied")
        assert (runner.cache, runner.ready.is_set()) == ("", True)
        await agent.stop()

    asyncio.run(play())


def once(world: World, work: Any) -> Any:
    async def play(agent: Agent) -> Any:
        try:
            return await work(agent)
        finally:
            await agent.stop()
            await asyncio.sleep(0.05)

    return asyncio.run(play(world.new_agent()))


def test_one_pass_and_plan_without_the_store(world: World) -> None:
    then_without_the_store(world)
    world.parts["file"] = (
        f'[[set.file]]\n  dest = "{world.root}/new.conf"\n  text = \'new {{{{ getv("/n") }}}}\''
    )

    async def plan(agent: Agent) -> Any:
        await agent.start(act=False, report=False)
        return await show_plan(agent, [], 1.0)

    found = once(world, plan)
    assert worst_of(found) is Exit.OFFLINE
    assert "+new 1" in found[0].text
    assert not (world.root / "new.conf").exists()

    async def apply(agent: Agent) -> Any:
        await agent.start(report=False)
        return await apply_once(agent, [], 1.5, wait=False)

    assert worst_of(once(world, apply)) is Exit.OFFLINE
    assert world.text("new.conf") == "new 1"


def test_verify_knows_good_inputs(world: World) -> None:
    then_without_the_store(world)
    assert world.agent is not None
    settings = world.agent.settings
    key = load_key(f"{settings.state_dir}/node.key", "n1", create=False)
    assert local.verify(settings, key, settings.sets[0]).code is Exit.CONVERGED


def test_authors_that_nobody_looked_up_are_looked_up_at_the_next_start(world: World) -> None:
    def author() -> str:
        assert world.agent is not None
        found = local.explain(world.agent.settings, f"{world.root}/a.conf") or {"keys": [{}]}
        return str(found["keys"][0].get("changed_by", ""))

    async def first(w: World) -> None:
        await w.outcome("converged")
        await w.until(lambda: author() != "", "looked up")

    run(world, first)
    shutil.rmtree(world.base / "state" / "sets" / "web" / "authors")
    assert author() == ""

    async def second(w: World) -> None:
        await w.until(lambda: author() != "", "looked up again")
        assert w.status()["generation"] == 1

    run(world, second, seed=False)
