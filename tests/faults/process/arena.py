"""A cluster of real processes on faulty ground, and clients that write down what they saw.

Every member's peers reach it through a proxy, and its syncs go through a preloaded library, when
this machine has a compiler. Histories are judged by the simulator's checkers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configsvc.client import operations
from configsvc.client.errors import OutcomeUnknownError
from configsvc.client.operations import prefix_end
from configsvc.client.sync_streams import Watch
from configsvc.client.watching import WatchOptions
from configsvc.errors import ConfigServiceError
from configsvc.types import KeySpan
from tests.faults.process.fault_proxy import FaultProxy, socket_owner
from tests.simulation.checkers.history import Change, Operation, WatchHistory
from tests.simulation.checkers.revision_checker import check, check_watch
from tests.support.members import MemberCluster, MemberProcess, free_ports

HERE = Path(__file__).resolve().parent
PREFIX = b"/f/"
SPAN = KeySpan(PREFIX, prefix_end(PREFIX))
KEYS = [PREFIX + b"%d" % n for n in range(5)]
ELECTION_S = 1.0


class FaultyMember(MemberProcess):
    """Listens behind the proxy; its syncs obey ``faults``."""

    real_port = 0
    shim: Path | None = None
    clocks: Path | None = None  # the library that moves this member's wall clock

    @property
    def undo(self) -> Path:
        """Where ``recorder.c`` writes, when it is this member's library."""
        return self.cluster.root / f"{self.name}.undo"

    @property
    def clock(self) -> Path:
        return self.cluster.root / f"{self.name}.clock"

    @property
    def faults(self) -> Path:
        return self.cluster.root / f"{self.name}.faults"

    def argv(self) -> list[str]:
        argv = super().argv()
        argv[argv.index("--listen-peer-urls") + 1] = f"https://127.0.0.1:{self.real_port}"
        return argv

    def start(self) -> None:
        self.environ = {"FAULT_FILE": str(self.faults), "UNDO_FILE": str(self.undo)}
        libraries = [str(library) for library in (self.shim, self.clocks) if library is not None]
        if libraries:
            self.environ["LD_PRELOAD"] = ":".join(libraries)
        if self.clocks is not None:
            if not self.clock.exists():
                self.clock.write_text("+0s")
            self.environ |= {
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_CACHE_DURATION": "1",  # seconds
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        super().start()


def build_shim(folder: Path, source: str = "shim.c") -> Path | None:
    """The library for sync faults, or another one; None: no compiler here."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    out = folder / f"{source}.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(out), str(HERE / source), "-ldl"]
    done = subprocess.run(command, capture_output=True)
    return out if done.returncode == 0 else None


def clock_library() -> Path | None:
    """libfaketime for threads: of the system, or unpacked by ``make faketime``."""
    here = HERE.parents[2] / "build" / "faketime"
    for root in (Path("/"), here):
        for found in sorted(root.glob("usr/lib/*/faketime/libfaketimeMT.so.1")):
            return found
    return None


class Arena(MemberCluster):
    """The cluster with its proxy. ``mend`` puts everything right again."""

    def __init__(self, root: Path, pki: Path, size: int, *, clocks: Path | None = None) -> None:
        super().__init__(root, pki, size)
        shim = build_shim(root)
        self.shim = shim
        members: list[MemberProcess] = []
        self.proxy = FaultProxy(self._owner)
        for old, real in zip(self.members, free_ports(size), strict=True):
            client_port = int(old.client_url.rpartition(":")[2])
            peer_port = int(old.peer_url.rpartition(":")[2])
            member = FaultyMember(self, int(old.name[1:]), client_port, peer_port)
            member.real_port, member.shim, member.clocks = real, shim, clocks
            members.append(member)
            self.proxy.serve(member.name, peer_port, real)
        self.members = members

    def _owner(self, port: int) -> str | None:
        pids = {m.name: m.process.pid for m in self.members if m.process is not None}
        return socket_owner(port, pids)

    def cut(self, *links: tuple[MemberProcess, MemberProcess]) -> None:
        """Cut these directed links, and heal all others."""
        self.proxy.cut = {(one.name, other.name) for one, other in links}

    def apart(self, one: MemberProcess, *others: MemberProcess) -> list[Any]:
        """Both directions between ``one`` and ``others``."""
        return [(one, o) for o in others] + [(o, one) for o in others]

    def sync_fault(self, member: MemberProcess, word: str) -> None:
        assert isinstance(member, FaultyMember)
        if word:
            member.faults.write_text(word)
        else:
            member.faults.unlink(missing_ok=True)

    def set_clock(self, member: MemberProcess, offset: str) -> None:
        """Put its wall clock so far from the true one; heard of within a second."""
        assert isinstance(member, FaultyMember)
        new = member.clock.with_suffix(".new")
        new.write_text(offset)
        new.replace(member.clock)

    def mend(self) -> None:
        self.proxy.cut = set()
        for member in self.members:
            self.sync_fault(member, "")
            if member.running:
                member.signal(signal.SIGCONT)
            else:
                member.process = None
        self.start()

    def stop(self) -> None:
        super().stop()
        self.proxy.stop()


class Load:
    """Clients under way: each on its own member first, all on the same few keys."""

    def __init__(self, arena: Arena, clients: int = 3, seed: int = 1) -> None:
        self.arena = arena
        self.operations: list[Operation] = []
        self.watch = WatchHistory(SPAN, start=0)
        self._halt = threading.Event()
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        self._prefix = f"{time.time_ns():x}"
        with arena.client(timeout=10.0) as client:
            first = client.do(operations.put(b"/mark/begin", self._prefix.encode()))
        self.start = first.header.revision + 1
        self.watch = WatchHistory(SPAN, start=self.start)
        self._threads = [
            threading.Thread(target=self._client, args=(n, random.Random(seed + n)), daemon=True)
            for n in range(clients)
        ]
        self._watcher = threading.Thread(target=self._watching, daemon=True)
        for thread in (*self._threads, self._watcher):
            thread.start()

    def acknowledged(self) -> int:
        return sum(op.acknowledged and op.kind != "read" for op in self.operations)

    def wait_for(self, more: int, within: float = 15.0) -> float:
        """Until that many more writes were acknowledged; seconds that it took."""
        began, target = time.monotonic(), self.acknowledged() + more
        while self.acknowledged() < target:
            assert time.monotonic() - began < within, f"writes did not go on within {within} s"
            time.sleep(0.01)
        return time.monotonic() - began

    def longest_gap(self, since_ns: int) -> float:
        """Longest time without an acknowledged write, in seconds."""
        ends = sorted(
            op.returned for op in self.operations if op.acknowledged and op.kind != "read"
        )
        times = [since_ns, *(t for t in ends if t >= since_ns), time.monotonic_ns()]
        return max((b - a) / 1e9 for a, b in itertools.pairwise(times))

    def judge(self) -> str:
        """Stop, and compare everything with the committed history; a line of figures."""
        self._halt.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive(), "a client did not end"
        with self.arena.client(timeout=15.0) as client:
            last = client.do(operations.put(b"/mark/end", b"")).header.revision
            changes = self._history(client, last)
        deadline = time.monotonic() + 15
        newest = changes[-1].revision if changes else self.start
        while self.watch.next_revision <= newest and time.monotonic() < deadline:
            time.sleep(0.05)
        self._watch.close()
        judged = check(self.operations, changes, last=last, others_may_delete=False)
        watched = check_watch(self.watch, changes, complete_to=newest)
        unknown = sum(not op.acknowledged and not op.impossible for op in self.operations)
        return f"{judged} operations judged ({unknown} unknown), {watched} watch events"

    def _history(self, client: Any, last: int) -> list[Change]:
        options = WatchOptions(PREFIX, prefix_end(PREFIX), start_revision=self.start)
        changes: list[Change] = []
        with Watch(client, options, connect_timeout_s=10.0) as watch:
            watch.request_progress()
            for batch in watch:
                changes += [
                    Change(e.kv.mod_revision, e.kv.key, None if e.type == e.DELETE else e.kv.value)
                    for e in batch.events
                ]
                if batch.revision >= last and not batch.events:
                    break
                watch.request_progress()
        return changes

    # --- threads ---------------------------------------------------------------------------------

    def _client(self, number: int, rng: random.Random) -> None:
        members = self.arena.members
        mine = [members[(number + i) % len(members)] for i in range(len(members))]
        with self.arena.client(members=mine, timeout=3.0) as client:
            while not self._halt.is_set():
                op = self._next(number, rng)
                self.operations.append(op)
                op.called = time.monotonic_ns()
                try:
                    self._do(client, op)
                except OutcomeUnknownError:
                    continue
                except ConfigServiceError:
                    op.impossible = True
                    time.sleep(0.02)
                else:
                    op.acknowledged = True
                op.returned = time.monotonic_ns()

    def _next(self, number: int, rng: random.Random) -> Operation:
        key, what = rng.choice(KEYS), rng.random()
        if what < 0.45:
            value = f"{self._prefix}.{number}.{next(self._numbers)}".encode()
            return Operation("put", key, value=value)
        return Operation("delete" if what < 0.55 else "read", key)

    def _do(self, client: Any, op: Operation) -> None:
        if op.kind == "put":
            op.revision = client.do(operations.put(op.key, op.value)).header.revision
        elif op.kind == "delete":
            answer = client.do(operations.delete(op.key))
            op.revision, op.succeeded = answer.header.revision, bool(answer.deleted)
        else:
            answer = client.do(operations.range_(op.key))
            op.revision = answer.header.revision
            found = answer.kvs[0] if answer.kvs else None
            # What was there before this load began is not in its history.
            op.seen = found.value if found and found.mod_revision >= self.start else None

    def _watching(self) -> None:
        options = WatchOptions(PREFIX, prefix_end(PREFIX), start_revision=self.start, prev_kv=True)
        with self.arena.client(timeout=60.0) as client, contextlib.suppress(ConfigServiceError):
            self._watch = Watch(client, options)
            for batch in self._watch:
                events = [
                    (
                        e.kv.mod_revision,
                        e.kv.key,
                        None if e.type == e.DELETE else e.kv.value,
                        e.prev_kv.value
                        if e.HasField("prev_kv") and e.prev_kv.mod_revision >= self.start
                        else None,
                    )
                    for e in batch.events
                ]
                if events:
                    self.watch.batch(max(batch.revision, events[-1][0]), events)


@contextlib.contextmanager
def load(arena: Arena, clients: int = 3) -> Iterator[Load]:
    """Clients around a fault; judged at the end, unless the test failed already."""
    made = Load(arena, clients)
    try:
        made.wait_for(5)
        yield made
        made.wait_for(5)
    except BaseException:
        made._halt.set()
        raise
    print(made.judge())


@contextlib.contextmanager
def small_disk(where: Path, mib: int) -> Iterator[bool]:
    """A file system of its own for a directory, where this user may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", str(where)]
    able = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = able and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(where)], capture_output=True)


def long_run(short: int, long: int) -> int:
    """How often a loop runs: ``long`` under ``make faults``, else ``short``."""
    return int(os.environ.get("FAULT_LOOPS", 0)) or (long if "FAULTS_LONG" in os.environ else short)
