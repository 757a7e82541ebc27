"""Every bad input at once on one node: files stay, the agent lives, and the reports say why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from agent_world import World, run

from configsvc.client import Client, ClientSettings, parse_endpoints
from tests.support.fake_cluster import FakeCluster

GOOD = "v={{ getv('/v') }}\n"
CANARY = "canary-4711"
SET = """\
[[set]]
name = "{name}"
prefix = "/prod/{name}"
{extra}
  [[set.file]]
  src = "store:/prod/{name}/t"
  dest = "{dest}"
"""
SERVICE = """\
[[service]]
name = "fragile"
reload = ["{base}/fragile.sh"]
"""


class Fault(NamedTuple):
    """A set of its own: what goes wrong in the store, and what must be said about it."""

    outcome: str
    why: str
    keys: dict[str, bytes | None]  # None: deleted
    extra: str = ""
    dest: str = ""


def template(text: str) -> dict[str, bytes | None]:
    return {"/t": text.encode()}


FAULTS = {
    "syntax": Fault("render_failed", "line 2", template("x\n{% if %}")),
    "missing": Fault("render_failed", "/v: does not exist", {"/v": None}),
    "notemplate": Fault("render_failed", "/t", {"/t": None}),
    "scope": Fault("render_failed", "/../other", template("{{ getv('/../other') }}")),
    "loop": Fault(
        "render_failed",
        "render",
        template("{% for a in 'x' * 30000 %}{% for b in 'x' * 30000 %}{% endfor %}{% endfor %}"),
    ),
    "memory": Fault("render_failed", "memory", template("{{ 'a' * 300000000 }}")),
    "huge": Fault(
        "render_failed",
        "larger than",
        template("{% for a in 'x' * 3000 %}{{ 'a' * 100000 }}{% endfor %}"),
    ),
    "lines": Fault("render_failed", "holds a line break", {"/v": f"{CANARY};\n evil on;".encode()}),
    "nul": Fault("render_failed", "control character", {"/v": CANARY.encode() + b"\0x"}),
    "binary": Fault("render_failed", "/v", {"/v": b"\xff\xfe"}),
    "shrunk": Fault("held", "min_bytes", {"/v": b""}, "guard = { min_bytes = 4 }"),
    "format": Fault("render_failed", "json", {"/v": b"nonsense"}, extra="FORMAT"),
    "link": Fault("refused", "symlink", {"/v": b"2"}, dest="linked/f.conf"),
    "check": Fault(
        "check_failed",
        "exit 1",
        {"/v": b"bad"},
        "check = { cmd = ['/bin/sh', '-c', '! grep -q bad \"$0\"', '{{file}}'] }",
    ),
    "reload": Fault("rolled_back", "fragile", {"/v": b"bad"}, "notify = ['fragile']"),
    "disk": Fault("write_failed", "space", {"/v": b"2"}, dest="full/f.conf"),
}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[bool]:
    """A filesystem of 64 KiB below the root; False where none can be mounted."""
    place = tmp_path / "root" / "full"
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode
    yield mounted
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def world(tmp_path: Path, full_disk: bool) -> Iterator[World]:
    (tmp_path / "root").mkdir(exist_ok=True)
    (tmp_path / "root" / "linked").mkdir()
    with FakeCluster(1) as cluster:
        made = World(tmp_path, cluster)
        made.script("fragile.sh", "! grep -q bad {base}/root/reload.conf")
        faults = {n: f for n, f in FAULTS.items() if full_disk or n != "disk"}
        made.parts["more"] = "".join(
            [
                SERVICE.format(base=tmp_path),
                *(the_set(made, name, fault) for name, fault in faults.items()),
            ]
        )
        yield made


def path_of(w: World, name: str, fault: Fault) -> Path:
    return w.root / (fault.dest or f"{name}.conf")


def the_set(w: World, name: str, fault: Fault) -> str:
    extra = fault.extra.replace("{{file}}", "{file}")
    text = SET.format(name=name, extra=extra, dest=path_of(w, name, fault))
    return text.replace("FORMAT\n", "") + "  format = 'json'\n" if "FORMAT" in text else text


def write(w: World, name: str, keys: dict[str, bytes | None]) -> None:
    with Client(ClientSettings(endpoints=parse_endpoints(w.cluster.urls))) as client:
        for key, value in keys.items():
            full = f"/prod/{name}{key}".encode()
            if value is None:
                client.delete(full)
            else:
                client.put(full, value)


def seed(w: World, names: list[str]) -> None:
    for name in names:
        good = '{{ getv("/v") }}' if name == "format" else GOOD
        write(w, name, {"/v": b"1", "/t": good.encode()})


def spoil(w: World, names: list[str]) -> None:
    real = w.root / "linked"
    real.rename(w.base / "elsewhere")
    real.symlink_to(w.base / "elsewhere")
    if "disk" in names:
        with open(w.root / "full" / "ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
    for name in names:
        write(w, name, FAULTS[name].keys)


def test_all_faults_at_once(world: World, full_disk: bool) -> None:
    names = [name for name in FAULTS if full_disk or name != "disk"]

    async def story(w: World) -> None:
        assert w.agent is not None
        for name in names:
            await w.outcome("converged", name)
        before = {name: path_of(w, name, FAULTS[name]).read_bytes() for name in names}
        elsewhere_before = sorted(os.listdir(w.root / "linked"))
        writer = w.agent._writer_child.pid
        await w.in_thread(spoil, w, names)
        for name in names:
            await w.outcome(FAULTS[name].outcome, name)
        # The last good file of each is there, byte for byte, and nothing beside it.
        for name in names:
            assert path_of(w, name, FAULTS[name]).read_bytes() == before[name], name
        assert sorted(os.listdir(w.base / "elsewhere")) == elsewhere_before
        assert not [one for one in w.root.rglob("*") if ".configagent" in one.name]
        # Others go on, with the same processes.
        await w.in_thread(w.put, "/n", "2")
        await w.until(lambda: w.text().startswith("n=2"))
        assert w.agent._writer_child.pid == writer
        assert not [event for event in w.events() if event["event"] == "bug"]
        # The fleet view is told which and why, without a value.
        await w.until(lambda: not unreported(w, names), "reported")
        for report in w.reports():
            assert CANARY not in str(report)
        assert CANARY not in w.log.getvalue()

    seed(world, names)
    run(world, story)


def unreported(w: World, names: list[str]) -> dict[str, str]:
    """Sets that the newest report tells otherwise."""
    said = {one.name: f"{one.outcome}: {one.reason}" for one in w.reports()[-1].sets}
    return {
        name: said[name]
        for name in names
        if not said[name].startswith(FAULTS[name].outcome) or FAULTS[name].why not in said[name]
    }


def test_a_destination_outside_the_roots_ends_before_anything_starts(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from configagent import cli

    path = world.base / "agent.toml"
    path.write_text(world.config().replace(f'"{world.root}/a.conf"', f'"{world.base}/a.conf"'))
    path.chmod(0o600)
    assert cli.main(["run", "--config", str(path)]) == 20
    assert "lies outside allow_roots" in capsys.readouterr().err
    assert not (world.base / "state").exists()
