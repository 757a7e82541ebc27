"""From a put to the file on a node's disk, through the agent; etcd has none to compare with.

One agent, one set with one file whose content is one key's value, no settling time. Time runs from
before the put until the file at its destination holds the value (looked at every 0.2 ms).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench import requests
from bench.calls import CallLink
from bench.clusters import Ours
from bench.frames import BenchFault
from bench.link import Links
from bench.load import percentile
from bench.report import Measure, Report
from configsvc.identity.pki import issue

NODE: Final = "bench-node"
KEY: Final = f"/agents/{NODE}/value".encode()  # what the shipped policy lets this agent read
FIRST_S: Final = 15.0
EACH_S: Final = 5.0
LOOK_EVERY_S: Final = 0.0002
_RUN: Final = "import sys; from configagent.cli import main; sys.exit(main())"


def measure(report: Report, ours: Ours, count: int) -> None:
    """Both percentiles, or why not."""
    name = "put → file on disk, through the agent"
    if importlib.util.find_spec("configagent.cli") is None:
        report.miss(name, "the agent has no command yet")
        return
    try:
        times = sorted(_times(ours, count))
    except (BenchFault, OSError) as fault:
        report.miss(name, str(fault))
        return
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        report.add(Measure(f"{name}, {label}", "ms", "lower", [percentile(times, share) * 1e3]))


def settings(ours: Ours, folder: Path) -> str:
    """The agent's configuration."""
    endpoints = ", ".join(f'"{member.client_url}"' for member in ours.members)
    return f"""version = 1
[agent]
node = "{NODE}"
state_dir = "{folder}/state"
socket = "{folder}/agent.sock"
[store]
endpoints = [{endpoints}]
tls = {{ ca = "{ours.pki}/ca-server.pem", cert = "{folder}/agent.pem", key = "file:{folder}/agent.key" }}
[security]
allow_roots = ["{folder}/files"]
[defaults]
settle = {{ min = "0ms", max = "1s" }}
guard = {{ max_shrink = "0%", max_grow = "0%" }}
[[set]]
name = "bench"
prefix = "/agents/{NODE}"
[[set.file]]
key = "/value"
dest = "{folder}/files/value"
owner = "{_owner()}"
group = "{_group()}"
"""  # noqa: E501  # one line of TOML


def _owner() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _group() -> str:
    import grp

    return grp.getgrgid(os.getegid()).gr_name


def _times(ours: Ours, count: int) -> list[float]:
    folder = ours.folder / "agent"
    for each in (folder, folder / "files", folder / "state"):
        each.mkdir(mode=0o700)
    issue(ours.pki, "agent", NODE, out=folder, stem="agent")
    config = folder / "agent.toml"
    config.write_text(settings(ours, folder))
    config.chmod(0o600)
    destination = folder / "files" / "value"
    links = Links()
    target = ours.admin(ours.leader())
    writer = CallLink(target, target.context())
    writer.answers = {}
    log = (folder / "agent.log").open("ab")
    agent: subprocess.Popen[bytes] | None = None
    try:
        links.open([writer])
        _put(links, writer, b"first")
        environ = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'agent'}"}
        agent = subprocess.Popen(
            [sys.executable, "-c", _RUN, "run", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
        )
        _wait(destination, b"first", FIRST_S, agent)
        times = []
        for number in range(count):
            value = requests.value(number) + b"%d\n" % number
            began = time.perf_counter()
            _put(links, writer, value)
            _wait(destination, value, EACH_S, agent)
            times.append(time.perf_counter() - began)
        return times
    finally:
        links.close()
        if agent is not None:
            agent.terminate()
            try:
                agent.wait(5.0)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
        log.close()


def _put(links: Links, writer: CallLink, value: bytes) -> None:
    stream = writer.ask(requests.PUT, requests.put(KEY, value))
    if not links.run_until(lambda: stream in writer.answers, EACH_S):
        raise BenchFault("a put was not answered")
    trouble = writer.answers.pop(stream)[1]
    if trouble:
        raise BenchFault(f"put: {trouble}")


def _wait(path: Path, content: bytes, seconds: float, agent: subprocess.Popen[bytes]) -> None:
    deadline = time.perf_counter() + seconds
    while True:
        try:
            if path.read_bytes() == content:
                return
        except FileNotFoundError:
            pass
        if agent.poll() is not None:
            raise BenchFault(f"the agent ended with {agent.returncode}; see {path.parent.parent}")
        if time.perf_counter() > deadline:
            raise BenchFault("the file was not written in time")
        time.sleep(LOOK_EVERY_S)
