"""The development cluster's agent: its files, its start, whether it runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from configsvc.cli.devcluster import processes
from configsvc.cli.devcluster.calls import client
from configsvc.cli.devcluster.cluster import AGENT
from configsvc.cli.devcluster.first_change import FIRST_KEY
from configsvc.cli.devcluster.layout import Layout
from configsvc.errors import ConfigError

OUT_DIR: Final = "out"
RELOAD_SWITCH: Final = "reload-fails"  # while this file exists, the demo service's reload fails
FIRST_FILE_S: Final = 10.0

_CONFIG = """\
# The development cluster's agent. Written by `make up`; docs/agent-guide.md explains each line.
version = 1

[agent]
node      = "{node}"
state_dir = "{agent}/state"
socket    = "{agent}/agent.sock"

[store]
endpoints = [{endpoints}]
tls       = {{ ca = "{ca}", cert = "{cert}", key = "file:{key}" }}

[security]
allow_roots = ["{out}"]

[defaults]
settle = {{ min = "0ms", max = "1s" }}
drift  = {{ policy = "repair", interval = "5s" }}

[[service]]
name   = "demo"
reload = ["{reload}"]

[[set]]
name   = "demo"
prefix = "/demo"
commit = "files"
notify = ["demo"]

  [[set.file]]
  src  = "file:greeting.txt.j2"
  dest = "{out}/greeting.txt"
"""
_TEMPLATE = """\
# {{ banner() }}
greeting = {{ getv("/greeting") }}
color = {{ getv("/color", "none") }}
"""
_RELOAD = """\
#!/bin/sh
# A stand-in for `systemctl reload`: fails while the switch file exists and has not been undone.
grep -q breaks-the-service "{out}/greeting.txt" && [ -e "{switch}" ] && exit 1
exit 0
"""


def write_files(layout: Layout) -> None:
    """Configuration, template and the demo service's reload command."""
    agent = layout.agent
    for path in (agent, agent / OUT_DIR, agent / "state"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    pair = layout.pki / "agents" / AGENT
    reload = agent / "reload.sh"
    _put(agent / "greeting.txt.j2", _TEMPLATE, 0o600)
    _put(
        reload,
        _RELOAD.format(out=agent / OUT_DIR, switch=agent / RELOAD_SWITCH),
        0o700,
    )
    text = _CONFIG.format(
        node=AGENT,
        agent=agent,
        endpoints=", ".join(f'"{m.client_url}"' for m in layout.members),
        ca=layout.pki / "ca-server.pem",
        cert=f"{pair}.pem",
        key=f"{pair}.key",
        out=agent / OUT_DIR,
        reload=reload,
    )
    _put(agent / "agent.toml", text, 0o600)


def _put(path: Path, text: str, mode: int) -> None:
    path.write_text(text)
    path.chmod(mode)


def agent_running(layout: Layout) -> bool:
    return bool(processes.running(layout.pid_file("agent")))


def start_agent(layout: Layout) -> str:
    """Start it if it does not run; wait for its first file."""
    write_files(layout)
    if not agent_running(layout):
        program = Path(sys.executable).with_name("configagent")
        processes.launch(
            [str(program), "--config", str(layout.agent / "agent.toml"), "run"],
            layout.log_file("agent"),
            layout.pid_file("agent"),
            layout.root,
        )
    began = time.monotonic()
    wanted = layout.agent / OUT_DIR / "greeting.txt"
    while not wanted.exists():
        if not agent_running(layout):
            raise ConfigError("the agent ended", f"see {layout.log_file('agent')}")
        if time.monotonic() - began > FIRST_FILE_S:
            raise ConfigError("the agent rendered nothing", f"see {layout.log_file('agent')}")
        time.sleep(0.02)
    return f"{wanted.relative_to(layout.root)} after {(time.monotonic() - began) * 1000:.0f} ms"


def file_follows(layout: Layout) -> str:
    """A change by alice, and how long after its answer the agent's file has it."""
    word = f"hello at {time.strftime('%H:%M:%S')}"
    rendered = layout.agent / OUT_DIR / "greeting.txt"
    with client(layout, "alice") as c:
        c.put(FIRST_KEY, word.encode(), reason="the agent's file should follow")
    answered = time.monotonic()
    while word not in rendered.read_text():
        if time.monotonic() - answered > FIRST_FILE_S:
            raise ConfigError("the agent's file did not follow", f"see {layout.log_file('agent')}")
        time.sleep(0.001)
    return f"{(time.monotonic() - answered) * 1000:.0f} ms after the answer to the put"
