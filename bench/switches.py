"""What was switched on: looked at in the running members, not believed from flags.

Without all of it a ratio would compare something that nobody ships.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import requests
from bench.calls import call, calling
from bench.clusters import Ours
from bench.frames import BenchFault
from bench.link import Target
from configsvc.proto import v1_pb2

_MARK: Final = requests.value(0)[:20]
_WRITES: Final = 20
_FLUSH_S: Final = 5.0


def look(ours: Ours) -> dict[str, bool]:
    """Each protection, and whether it was seen at work."""
    leader = ours.leader()
    argv = ours.argv(leader)
    found = {
        "shipped defaults: no flag that weakens anything but --allow-root": not any(
            flag.startswith(("--insecure", "--unsafe", "--listen-any")) for flag in argv
        ),
        "client certificates are required": _refused(
            Target("127.0.0.1", leader.client_port, ours.target(leader).cafile)
        ),
        "member to member: mutual TLS": _refused(
            Target("127.0.0.1", leader.peer_port, str(ours.pki / "ca-peer.pem"))
        ),
        "rights: a user writes where its role says and nowhere else": _denied(ours),
    }
    before_leaves, before_rows = _leaves(ours), _rows(ours)
    for number in range(_WRITES):
        body = requests.put(requests.key(93, number), requests.value(number))
        call(ours.target(leader), requests.PUT, body)
    found["audit: a leaf per write"] = _leaves(ours) - before_leaves >= _WRITES
    found["SQL: a row per write"] = _soon(lambda: _rows(ours) - before_rows >= _WRITES)
    found["values are sealed in log and tables"] = not _in_clear(ours.folder)
    return found


def _refused(target: Target) -> bool:
    try:
        with calling(target):
            return False
    except BenchFault:
        return True


def _denied(ours: Ours) -> bool:
    try:
        call(ours.target(ours.leader()), requests.PUT, requests.put(b"elsewhere", b"1"))
    except BenchFault as fault:
        return "permission denied" in str(fault)
    return False


def _leaves(ours: Ours) -> int:
    answer = call(ours.admin(ours.leader()), "/configsvc.v1.Audit/Checkpoint")
    return int(v1_pb2.CheckpointResponse.FromString(answer).size)


def _rows(ours: Ours) -> int:
    data = ours.folder / f"{ours.leader().name}.data" / "sql"
    total = 0
    for path in data.rglob("*.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            total += database.execute("SELECT count(*) FROM revisions").fetchone()[0]
        database.close()
    return total


def _in_clear(folder: Path) -> bool:
    """Whether any file of a member holds the mark that every value begins with."""
    return any(path.is_file() and _MARK in path.read_bytes() for path in folder.glob("*.data/**/*"))


def _soon(true: Callable[[], bool]) -> bool:
    deadline = time.perf_counter() + _FLUSH_S
    while not true():
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.1)
    return True
