"""Local commands that only look: doctor, explain by key, status for scripts, the clock."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_world import World, run
from configagent import cli
from configagent.checkup import check_node
from configagent.config import load
from configagent.doctor import examine, weak_settings
from configagent.errors import Exit
from configagent.settings import Settings

from tests.support.fake_cluster import FakeCluster


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(1) as cluster:
        yield World(tmp_path, cluster)


def ask(w: World, *words: str) -> int:
    return cli.main([*words, "--config", str(w.base / "agent.toml")])


# --- explain --key --------------------------------------------------------------------------------


def test_explain_key_names_files_and_author(world: World, capsys: Any) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")

        def known() -> bool:
            capsys.readouterr()
            ask(w, "explain", "--key", "/prod/web/n", "--json")
            files = json.loads(capsys.readouterr().out)["files"]
            return bool(files and files[0].get("changed_by"))

        await w.until(known, "author found")
        assert ask(w, "explain", "--key", "/prod/web/n") == Exit.CONVERGED
        text = capsys.readouterr().out
        assert f"{w.root}/a.conf" in text
        assert re.search(r"user/root \d{4}-\d\d-\d\dT\S+Z leaf \d+ test", text)
        assert "b.conf" not in text
        assert ask(w, "explain", "--key", "/prod/web/unread") == Exit.CONVERGED
        assert "no file of a present generation read it" in capsys.readouterr().out
        assert ask(w, "explain", "--key", "/prod/other") == Exit.USAGE
        assert "scope of no set" in capsys.readouterr().err
        assert ask(w, "explain") == Exit.USAGE
        assert ask(w, "explain", "/x", "--key", "/y") == Exit.USAGE

    run(world, story)


# --- status ---------------------------------------------------------------------------------------


def test_strict_status_speaks_in_exit_codes(world: World, capsys: Any) -> None:
    world.parts["set"] = "drift = { policy = 'report', interval = '1s' }"

    async def story(w: World) -> None:
        await w.outcome("converged")
        assert ask(w, "status", "--strict") == Exit.CONVERGED
        (w.root / "a.conf").write_text("edited")
        await w.outcome("drifted")

    run(world, story)
    assert ask(world, "status") == Exit.CONVERGED
    assert ask(world, "status", "--strict") == Exit.DRIFT
    assert "stopped" in capsys.readouterr().out


@pytest.mark.parametrize("gone", [True, False])
def test_a_generation_that_cannot_be_read_is_said(world: World, capsys: Any, gone: bool) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")

    run(world, story)
    (stored,) = (world.base / "state/sets/web/gen").iterdir()
    if gone:
        stored.unlink()
    else:
        stored.write_text("junk\n")
    for words in (("explain", f"{world.root}/a.conf"), ("explain", "--key", "/prod/web/n")):
        assert ask(world, *words) == Exit.USAGE
        assert "generation 1 of web: " in capsys.readouterr().err
    assert ask(world, "diff", "web", "1", "1") == Exit.USAGE
    assert ("is not stored here" if gone else "is damaged") in capsys.readouterr().err
    world.put("/n", "2")
    assert ask(world, "plan") == Exit.WOULD_CHANGE
    out = capsys.readouterr().out
    assert "generation 1 cannot be read" in out
    assert "+n=2" in out


def test_who_may_not_ask_is_told_so(world: World, capsys: Any, monkeypatch: Any) -> None:
    """Root may always: what the kernel would say to others is said by a stand-in."""

    def ask_nobody(path: str, request: dict[str, Any]) -> dict[str, Any]:
        raise PermissionError(13, "Permission denied")

    world.new_agent()
    monkeypatch.setattr("configagent.questions.ask", ask_nobody)
    assert ask(world, "status") == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, "not for this account" in err) == ("", True)


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--rev", "9" * 30), ("plan", "--rev", "-1"), ("rollback", "web", "--to", "x"),
        ("diff", "web", "1", "-2"), ("plan", "--timeout", "nan"),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_usage(world: World, capsys: Any, words: tuple[str, ...]) -> None:
    world.new_agent()
    assert ask(world, *words) == Exit.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_watch_shows_each_change_once(world: World, capsys: Any, monkeypatch: Any) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")

    run(world, story)
    looks: list[dict[str, Any]] = []
    record = world.base / "state/sets/web/record.json"

    def sleep(seconds: float) -> None:
        looks.append({})
        if len(looks) == 2:
            found = json.loads(record.read_text())
            record.write_text(json.dumps(found | {"outcome": "held", "attempts": 7}))
        if len(looks) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("configagent.questions.time.sleep", sleep)
    assert ask(world, "status", "--watch") == Exit.CONVERGED
    out = capsys.readouterr().out
    assert (out.count(" converged "), out.count(" held ")) == (1, 1)


# --- doctor ---------------------------------------------------------------------------------------

WEAK = [
    ("store", "heartbeat = '300ms'", "heartbeat = '11s'", "heartbeat 11s"),
    ("store", "heartbeat = '300ms'", "reconcile = '6m'", "reconcile 360s"),
    ("env", "ALLOW", "ALLOW", "allow_env: templates may read AGENT_TEST_COLOR"),
    ("plain", "", "", "without TLS"),
    ("cert", "", "", "tls.cert: none"),
    ("set", "", "drift = { policy = 'report' }", "drift.policy report"),
    ("set", "", "drift = { interval = '61s' }", "drift.interval 61s"),
    ("set", "", "keep_generations = 2", "keep_generations 2"),
    ("set", "", "guard = { max_shrink = '60%' }", "guard.max_shrink 60%"),
    ("set", "", "guard = { max_grow = '0%' }", "guard.max_grow off"),
    ("set", "", "guard = { forbid_empty = false }", "guard.forbid_empty is off"),
    ("set", "", "guard = { max_bytes = '2MiB' }", "guard.max_bytes 2097152"),
    ("file", "", "mode = '0644'", "a.conf: mode 0644 is wider than 0640"),
]


@pytest.mark.parametrize(("part", "old", "new", "said"), WEAK, ids=[w[3] for w in WEAK])
def test_each_weaker_setting_is_named(
    world: World, part: str, old: str, new: str, said: str
) -> None:
    before = weak(world)
    if part in ("set", "file"):
        world.parts[part] = new
    text = world.config()
    if part == "store":
        text = text.replace(old.replace("'", '"'), new)
    world.config = lambda: text  # type: ignore[method-assign]
    assert any(said in one for one in weak(world))
    if part in ("store", "set", "file"):
        assert not any(said in one for one in before)


def weak(w: World) -> list[str]:
    return [note.text for note in weak_settings(settings_of(w))]


def settings_of(w: World) -> Settings:
    path = w.base / "agent.toml"
    path.write_text(w.config())
    path.chmod(0o600)
    return load(str(path))


def test_doctor_asks_a_real_render_worker_and_says_what_it_got(world: World, capsys: Any) -> None:
    notes = {note.what: note for note in examine(settings_of(world))}
    assert {"landlock", "file events", "render worker", "account", "node key"} <= notes.keys()
    assert notes["account"].weaker is (os.geteuid() == 0)
    assert ask(world, "doctor") == Exit.WOULD_CHANGE
    assert "weaker   settings: endpoints" in capsys.readouterr().out


def test_doctor_reports_a_worker_without_confinement(world: World, monkeypatch: Any) -> None:
    async def start(self: Any, opening: Any = None) -> dict[str, Any]:
        return {"level": [0, False, True]}

    monkeypatch.setattr("configagent.child.Child.start", start)
    note = next(note for note in examine(settings_of(world)) if note.what == "render worker")
    assert note == (
        "render worker", True, "without Landlock and the filter of system calls"
    )  # fmt: skip


# --- clock ----------------------------------------------------------------------------------------


def test_a_clock_before_the_last_save_is_a_problem(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")

    run(world, story)
    settings = load(str(world.base / "agent.toml"))
    assert clock(settings).code is Exit.CONVERGED
    later = time.time() + 7200
    os.utime(world.base / "state/agent.json", (later, later))
    found = clock(settings)
    assert found.code is Exit.REFUSED
    assert "2.0 h before the agent's last save" in found.text


def clock(settings: Any) -> Any:
    return next(one for one in check_node(settings) if one.what == "clock")
