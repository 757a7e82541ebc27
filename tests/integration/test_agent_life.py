"""A whole agent: from a put to a file and back, and everything that goes wrong on the way."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_world import World, run
from configagent import local
from configagent.errors import Exit, SettingsError
from configagent.once import apply_once, show_plan, worst_of
from configagent.seal import load_key

from tests.support import fake_store
from tests.support.fake_cluster import FakeCluster

LOOP = """{% set text = getv('/loop') %}
{% for a in text %}{% for b in text %}{% for c in text %}{% endfor %}{% endfor %}{% endfor %}"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(1) as cluster:
        yield World(tmp_path, cluster)


def test_files_follow_and_services_are_told_once(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        assert w.text().startswith("n=1 # managed by configagent, set web, rev 3")
        assert (w.root / "b.conf").read_bytes() == b"raw\nbytes\n"
        assert w.told() == 1
        await w.in_thread(w.put, "/n", "2")
        await w.until(lambda: w.status()["good"] == 2)
        assert w.text().startswith("n=2 ")
        assert w.told() == 2
        # A key that nothing reads renders and tells nothing, but the revision moves on.
        await w.in_thread(w.put, "/unread", "x")
        await w.until(lambda: w.status()["target_revision"] == 5)
        assert (w.told(), w.status()["generation"]) == (2, 2)
        await w.until(lambda: any(n.sets[0].target_revision == 5 for n in w.reports()))
        report = w.reports()[-1]
        assert (report.node, report.link, report.sets[0].outcome) == (
            "n1",
            "connected",
            "converged",
        )
        assert [f.path for f in report.sets[0].files] == [f"{w.root}/a.conf", f"{w.root}/b.conf"]

    run(world, story)


@pytest.mark.parametrize("bad", ["/n deleted", "/raw deleted"])
def test_a_missing_key_keeps_the_file_and_names_the_key(world: World, bad: str) -> None:
    key = bad.split()[0]

    async def story(w: World) -> None:
        await w.outcome("converged")
        before = w.text(), w.text("b.conf")
        await w.in_thread(w.delete, key)
        await w.outcome("render_failed")
        assert f"key {key}: does not exist" in w.status()["reason"]
        assert (w.text(), w.text("b.conf")) == before
        await w.in_thread(w.put, key, "5")
        await w.outcome("converged")

    run(world, story)


def test_on_missing_key_hold(world: World) -> None:
    world.parts["set"] = 'on_missing_key = "hold"'

    async def story(w: World) -> None:
        await w.outcome("converged")
        await w.in_thread(w.delete, "/n")
        await w.outcome("held")

    run(world, story)


def test_a_failing_check_keeps_the_old_set_and_heals_without_a_write(world: World) -> None:
    check = world.script("check.sh", 'test -e {base}/broken && { cat "$1"; exit 3; }; exit 0')
    world.parts["set"] = f'check = {{ cmd = ["{check}", "{{file}}", "{{dir}}"] }}'

    async def story(w: World) -> None:
        await w.outcome("converged")
        (w.base / "broken").touch()
        await w.in_thread(w.put, "/n", "canary-value-77")
        await w.outcome("check_failed")
        assert w.text().startswith("n=1")
        assert "exit 3" in w.status()["reason"]
        assert "canary-value-77" not in w.status()["reason"]
        assert "canary-value-77" not in w.log.getvalue()
        assert sorted(os.listdir(w.root)) == ["a.conf", "b.conf"]
        assert not (w.base / "state/sets/web/tree").exists()
        (w.base / "broken").unlink()
        await w.until(lambda: w.text().startswith("n=canary"), "healed by time")

    run(world, story)


def test_check_sees_a_tree_with_final_names(world: World) -> None:
    check = world.script(
        "check.sh", 'cat "$2/a.conf" "$2/b.conf" > {base}/seen; basename "$1" >> {base}/seen'
    )
    world.parts["set"] = f'check = {{ cmd = ["{check}", "{{file}}", "{{dir}}"] }}'

    async def story(w: World) -> None:
        await w.outcome("converged")
        seen = (w.base / "seen").read_text()
        assert "n=1" in seen
        assert "bytes" in seen
        assert "a.conf" in seen

    run(world, story)


def test_a_failed_reload_puts_the_old_bytes_back_and_tells_again(world: World) -> None:
    world.script("reload.sh", 'echo told >> {base}/told; ! grep -q "n=bad" {base}/root/a.conf')

    async def story(w: World) -> None:
        await w.outcome("converged")
        before = w.text()
        info = (w.root / "a.conf").stat()
        await w.in_thread(w.put, "/n", "bad")
        await w.outcome("rolled_back")
        assert w.text() == before
        after = (w.root / "a.conf").stat()
        assert (after.st_mode, after.st_uid) == (info.st_mode, info.st_uid)
        assert w.told() == 1 + 2 + 1
        assert "reload of svc: exit 1" in w.status()["reason"]
        # The revision is quarantined: nothing flaps, drift is still put back.
        (w.root / "a.conf").write_text("edited")
        await w.until(lambda: w.text() == before)
        await w.outcome("rolled_back")
        # A newer one is not.
        await w.in_thread(w.put, "/n", "good")
        await w.outcome("converged")
        assert w.text().startswith("n=good")

    run(world, story)


def test_rollback_failed_stops_until_retry(world: World) -> None:
    world.script("reload.sh", "test ! -e {base}/broken")

    async def story(w: World) -> None:
        await w.outcome("converged")
        before = w.text()
        (w.base / "broken").touch()
        await w.in_thread(w.put, "/n", "2")
        await w.outcome("rollback_failed")
        assert w.text() == before
        await w.in_thread(w.put, "/n", "3")
        (w.base / "broken").unlink()
        await asyncio.sleep(0.2)
        assert w.text() == before
        assert w.agent is not None
        assert await w.agent.handle({"command": "retry", "set": "web"}) == {"done": True}
        await w.outcome("converged")
        assert w.text().startswith("n=3")

    run(world, story)


def test_health_decides_too(world: World) -> None:
    health = world.script("health.sh", '! grep -q "n=sick" {base}/root/a.conf')
    world.parts["service"] = (
        f'health = {{ cmd = ["{health}"], every = "50ms", window = "300ms", successes = 2 }}'
    )

    async def story(w: World) -> None:
        await w.outcome("converged")
        await w.in_thread(w.put, "/n", "sick")
        await w.outcome("rolled_back")
        assert w.text().startswith("n=1")
        assert "health of svc" in w.status()["reason"]

    run(world, story)


@pytest.mark.parametrize("change", ["edit", "mode", "delete", "symlink"])
def test_a_hand_edit_is_put_back_within_a_second(world: World, change: str) -> None:
    world.parts["set"] = 'drift = { interval = "30s" }'  # only the hint can be this fast

    async def story(w: World) -> None:
        await w.outcome("converged")
        before, path = w.text(), w.root / "a.conf"
        if change == "edit":
            path.write_text("foreign")
        elif change == "mode":
            path.chmod(0o666)
        else:
            path.unlink()
        if change == "symlink":
            path.symlink_to("/etc/passwd")
            await w.outcome("refused")  # never written through
            assert path.is_symlink()
            return
        began = time.monotonic()
        await w.until(lambda: w.text() == before and path.stat().st_mode & 0o777 == 0o640, change)
        assert time.monotonic() - began < 2.0  # one second on a quiet machine
        await w.outcome("converged")
        kept = list((w.base / "state/sets/web/drift").glob("*")) if change == "edit" else []
        assert [one.read_text() for one in kept] == (["foreign"] if change == "edit" else [])

    run(world, story)


def test_repair_needs_no_store(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        before = w.text()
        await w.in_thread(w.cluster.members[0].stop)
        (w.root / "a.conf").write_text("foreign")
        await w.until(lambda: w.text() == before)
        assert w.agent is not None
        await w.until(lambda: w.agent is not None and w.agent.link.state == "offline")

    run(world, story)


def test_drift_that_is_only_reported(world: World) -> None:
    world.parts["set"] = 'drift = { policy = "report", interval = "1s" }'

    async def story(w: World) -> None:
        await w.outcome("converged")
        before = w.text()
        (w.root / "a.conf").write_text("foreign")
        await w.outcome("drifted")
        assert w.text() == "foreign"
        assert w.status()["deviations"][0]["what"] == "was edited"
        (w.root / "a.conf").write_text(before)
        await w.outcome("converged")

    run(world, story)


def test_guard_holds_until_approved(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        await w.in_thread(w.put, "/raw", "x" * 64)
        await w.until(lambda: len(w.text("b.conf")) == 64)
        await w.in_thread(w.put, "/raw", "x" * 255)
        await w.until(lambda: len(w.text("b.conf")) == 255)
        await w.outcome("converged")
        await w.in_thread(w.put, "/raw", "y" * 100)
        await w.outcome("held")
        assert "would shrink from 255 to 100 bytes" in w.status()["reason"]
        assert w.text("b.conf") == "x" * 255
        assert w.agent is not None
        assert await w.agent.handle({"command": "approve", "set": "web"}) == {"done": True}
        await w.until(lambda: w.text("b.conf") == "y" * 100)
        await w.outcome("converged")

    run(world, story)


def test_one_broken_set_leaves_the_others_alone(world: World) -> None:
    world.parts["more"] = f'''
[[set]]
name = "broken"
prefix = "/prod/web"
  [[set.file]]
  dest = "{world.root}/c.conf"
  text = """{LOOP}"""
'''

    async def story(w: World) -> None:
        await w.outcome("converged")
        pid = os.getpid()
        await w.in_thread(w.put, "/loop", "x" * 20_000)
        await w.until(lambda: "killed" in w.status("broken")["reason"], "the loop ends")
        assert w.status("broken")["outcome"] == "render_failed"
        await w.in_thread(w.put, "/n", "7")
        await w.until(lambda: w.text().startswith("n=7"))
        assert os.getpid() == pid

    run(world, story)


def test_values_bring_no_lines_along(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        for value in ("x;\n evil on;", "a\0b", "tab\x1b[0m"):
            await w.in_thread(w.put, "/n", value)
            await w.outcome("render_failed")
            assert w.text().startswith("n=1 ")
            assert "evil" not in w.status()["reason"]
        for value in ("$(id)", "{{ 7*7 }}", "'; rm -rf /"):
            await w.in_thread(w.put, "/n", value)
            await w.until(lambda value=value: w.text().startswith(f"n={value} "), value)  # type: ignore[misc]

    run(world, story)


def test_started_without_the_store_it_keeps_files_and_recovers(world: World) -> None:
    async def first(w: World) -> None:
        await w.outcome("converged")

    run(world, first)
    world.cluster.members[0].stop()
    (world.root / "a.conf").write_text("edited while we were away")

    async def second(w: World) -> None:
        await w.until(lambda: w.text().startswith("n=1"), "repaired offline")
        assert w.agent is not None
        await w.until(lambda: w.agent is not None and w.agent.link.state == "offline")
        await w.in_thread(w.cluster.members[0].start)
        await w.in_thread(w.put, "/n", "9")
        await w.until(lambda: w.text().startswith("n=9"), "recovered by itself")

    run(world, second, seed=False)


def test_a_compacted_watch_lists_again_and_sees_deletes(world: World) -> None:
    world.parts["set"] = 'on_missing_key = "hold"'

    async def story(w: World) -> None:
        await w.outcome("converged")
        await w.in_thread(w.cluster.members[0].stop)
        store = w.cluster.store
        with store.lock:
            store.revision += 1
            store.events = [e for e in store.events if e[1].kv.key != b"/prod/web/n"]
            store.revision += 50
            store.compacted = store.revision
        await w.in_thread(w.cluster.members[0].start)
        await w.outcome("held")

    run(world, story)


def test_a_store_that_went_back_is_noticed(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        for n in range(20):
            await w.in_thread(w.put, "/n", f"v{n}")
        await w.until(lambda: w.text().startswith("n=v19"))
        await w.in_thread(w.cluster.members[0].stop)
        store = w.cluster.store
        with store.lock:  # an older backup
            store.events = [e for e in store.events if e[0] <= 5]
            store.revision = 5
        await w.in_thread(w.cluster.members[0].start)
        await w.in_thread(w.put, "/n", "after-restore")
        await w.until(lambda: w.text().startswith("n=after-restore"), "first write seen")
        assert any(e["event"] == "store_reset" for e in w.events())

    run(world, story)


def test_a_pending_notification_runs_after_a_restart(world: World) -> None:
    world.parts["service"] = 'splay = "1h"'

    async def first(w: World) -> None:
        await w.until(lambda: w.status()["to_notify"] == ["svc"])
        assert w.text().startswith("n=1")
        assert w.told() == 0

    run(world, first)

    async def second(w: World) -> None:
        await w.until(lambda: w.told() == 1, "told after the restart")
        await w.outcome("converged")

    run(world, second, seed=False)


def test_a_second_agent_on_the_same_state_is_refused(world: World) -> None:
    async def story(w: World) -> None:
        other = w.new_agent()
        with pytest.raises(SettingsError, match="another agent"):
            await other.start()
        await other.stop()

    async def wrapped(w: World) -> None:
        mine = w.agent
        await story(w)
        w.agent = mine

    run(world, wrapped)


def test_reload_changes_only_what_changed_and_a_bad_one_changes_nothing(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        assert w.agent is not None
        path = w.base / "agent.toml"
        good = path.read_text()
        path.write_text(good + "\nnonsense = 1\n")
        answer = await w.agent.handle({"command": "reload"})
        assert "nonsense" in answer["done"]
        path.write_text(good.replace("n={{", "number={{"))
        assert await w.agent.handle({"command": "reload"}) == {"done": ""}
        await w.until(lambda: w.text().startswith("number=1"))

    run(world, story)


def test_apply_once_plan_and_verify_agree(world: World) -> None:
    world.seed()

    async def once() -> list[object]:
        found: list[object] = []
        agent = world.new_agent()
        await agent.start(report=False)
        found.append(worst_of(await apply_once(agent, [], 10.0, wait=False)))
        await agent.stop()
        agent = world.new_agent()
        await agent.start(report=False)
        found.append(worst_of(await apply_once(agent, [], 10.0, wait=False)))
        await agent.stop()
        await world.in_thread(world.put, "/n", "2")
        agent = world.new_agent()
        await agent.start(act=False, report=False)
        plans = await show_plan(agent, [], 10.0)
        found += [worst_of(plans), plans[0].text]
        await agent.stop()
        await asyncio.sleep(0.05)
        return found

    changed, same, would, text = asyncio.run(once())
    assert (changed, same, would) == (Exit.CHANGED, Exit.CONVERGED, Exit.WOULD_CHANGE)
    assert "-n=1" in str(text)
    assert "+n=2" in str(text)
    assert world.text().startswith("n=1")
    assert world.agent is not None
    settings = world.agent.settings
    key = load_key(f"{settings.state_dir}/node.key", "n1", create=False)
    assert local.verify(settings, key, settings.sets[0]).code is Exit.CONVERGED
    (world.root / "a.conf").write_text("x")
    assert local.verify(settings, key, settings.sets[0]).code is Exit.DRIFT
    stored = world.base / "state/sets/web/gen/1.gen"
    raw = bytearray(stored.read_bytes())
    raw[-1] ^= 1
    stored.write_bytes(raw)
    assert local.verify(settings, key, settings.sets[0]).code is Exit.REFUSED


def test_secrets_are_private_and_unnamed(world: World) -> None:
    canary = "hunter2-canary-value"
    world.parts["file"] = (
        f'[[set.file]]\n  dest = "{world.root}/s.conf"\n  text = \'{{{{ secret("/pw") }}}}\''
    )

    async def story(w: World) -> None:
        await w.in_thread(w.put, "/pw", canary)
        await w.outcome("converged")
        await w.until(lambda: w.text("s.conf") == canary)
        await w.until(lambda: any(len(n.sets[0].files) == 3 for n in w.reports()))

    run(world, story)
    import hashlib

    plain_hash = hashlib.sha256(canary.encode()).hexdigest()
    for path in (world.base / "state").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert canary.encode() not in data, path
            assert plain_hash.encode() not in data, path
    assert canary not in world.log.getvalue()
    assert not any(canary in str(r) or plain_hash in str(r) for r in world.reports())


def test_a_folder_per_generation_with_outer_links(world: World) -> None:
    world.parts["more"] = f"""
[[set]]
name = "site"
prefix = "/prod/web"
dir = "{world.root}/managed"
  [[set.file]]
  name = "site.conf"
  text = 'site {{{{ getv("/n") }}}}'
  link = "{world.root}/site.conf"
  mode = "0644"
  [[set.file]]
  name = "sub/raw"
  key = "/raw"
"""

    async def story(w: World) -> None:
        await w.outcome("converged", "site")
        managed = w.root / "managed"
        assert w.text("site.conf") == "site 1"
        assert os.readlink(w.root / "site.conf") == f"{managed}/current/site.conf"
        assert (managed / "current/sub/raw").read_bytes() == b"raw\nbytes\n"
        await w.in_thread(w.put, "/n", "2")
        await w.until(lambda: w.text("site.conf") == "site 2")
        assert os.readlink(managed / "current") == "generations/2"
        # A hand edit of the generation, and a lost link, are put back.
        (managed / "current/site.conf").write_text("foreign")
        await w.until(lambda: w.text("site.conf") == "site 2", "content put back")
        (w.root / "site.conf").unlink()
        await w.until(lambda: w.text("site.conf") == "site 2", "link put back")
        await w.outcome("converged", "site")
        # What is not ours stays.
        (w.root / "site.conf").unlink()
        (w.root / "site.conf").write_text("somebody else's")
        await w.outcome("drifted", "site")
        assert w.text("site.conf") == "somebody else's"

    run(world, story)


def test_explain_names_authors_without_delaying_the_commit(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        assert w.agent is not None
        settings = w.agent.settings

        def known() -> bool:
            found = local.explain(settings, f"{w.root}/a.conf")
            return bool(found and found["keys"][0].get("changed_by"))

        await w.until(known, "author found")
        found = local.explain(settings, f"{w.root}/a.conf")
        assert found is not None
        key = found["keys"][0]
        assert (key["key"], key["changed_by"], key["reason"]) == (
            "/prod/web/n",
            "user/root",
            "test",
        )

    run(world, story)


def test_authors_of_more_keys_than_one_answer_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_store, "PAGE_RECORDS", 7)
    text = '{% for n in tree("/many") %}{{ n.key }}{% endfor %}'
    world.parts["file"] = f"[[set.file]]\n  dest = \"{world.root}/many.conf\"\n  text = '{text}'"

    def seed(w: World) -> None:
        w.seed()
        for n in range(20):
            w.put(f"/many/{n:02}", "x")

    async def story(w: World) -> None:
        await w.outcome("converged")
        assert w.agent is not None
        settings = w.agent.settings

        def known() -> int:
            found = local.explain(settings, f"{w.root}/many.conf")
            return sum("changed_by" in key for key in found["keys"]) if found else 0

        await w.until(lambda: known() > 0, "authors found")
        assert known() == 20

    seed(world)
    run(world, story, seed=False)


@pytest.mark.parametrize("prune", [True, False])
def test_a_file_that_left_the_configuration(world: World, prune: bool) -> None:
    extra = f'[[set.file]]\n  dest = "{world.root}/old.conf"\n  text = "old"'
    world.parts["file"] = extra
    world.parts["set"] = f"prune = {str(prune).lower()}"

    async def story(w: World) -> None:
        await w.outcome("converged")
        assert w.text("old.conf") == "old"
        assert w.agent is not None
        w.parts["file"] = ""
        (w.base / "agent.toml").write_text(w.config())
        assert await w.agent.handle({"command": "reload"}) == {"done": ""}
        await w.until(lambda: any(e["event"] == "files_left" for e in w.events()))
        assert w.text("old.conf") == ("" if prune else "old")

    run(world, story)


def test_changes_during_a_rendering_are_not_lost(world: World) -> None:
    """A burst of writes to two keys, while renderings go on: the last values are in."""

    async def story(w: World) -> None:
        await w.outcome("converged")

        def burst() -> None:
            for n in range(60):
                w.put("/n", f"v{n}")
                w.put("/raw", f"raw {n:03}")

        await w.in_thread(burst)
        await w.until(lambda: w.text().startswith("n=v59 ") and w.text("b.conf") == "raw 059")
        await w.outcome("converged")

    run(world, story)
