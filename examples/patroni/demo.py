"""`make demo-patroni`: PostgreSQL kept available by Patroni, with configsvc as its store.

Two nodes and three members on loopback, apart from the cluster of `make up`. Each step is one line
with its time; the first that fails ends the demonstration. Whatever happens, nothing is left
running, and the logs are in ``.dev/patroni/log``.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import DEV, Machine, prepare
from nodes import Node, Passwords, left_over, until
from store import Store

from configsvc.errors import ConfigError, ConfigServiceError

TTL_S: Final = 20.0  # as in patroni.yml
FORM_S: Final = 90.0
PROMOTE_S: Final = TTL_S + 20.0
REJOIN_S: Final = 60.0
LEFT_OVER_S: Final = 10.0
WATCHED_S: Final = TTL_S + 10.0  # longer than a lease: a lost one would have shown


class Demo:
    """The steps, and the nodes by their present parts."""

    def __init__(self) -> None:
        self.store = Store()
        self.nodes: list[Node] = []
        self.machine: Machine | None = None
        self.steps = 0
        self.failed = 0
        self.began = time.monotonic()

    def step(self, title: str, work: Callable[[], str]) -> bool:
        """Do one step and print its line; False when it failed."""
        self.steps += 1
        began = time.monotonic()
        try:
            result, mark = work(), "ok  "
        except (ConfigServiceError, TimeoutError, OSError) as error:
            remedy = getattr(error, "remedy", "")
            result, mark = f"{error}" + (f"; {remedy}" if remedy else ""), "FAIL"
            self.failed += 1
        spent = time.monotonic() - began
        say(f"{self.steps:>2} {mark} {title:<44} {spent:6.1f} s  {result}")
        return mark == "ok  "

    def run(self) -> None:
        """All steps up to the first that fails."""
        steps = (
            ("Patroni and PostgreSQL are there", self.prepare),
            ("the store forms", self.store.start),
            ("Patroni's certificate writes nothing else", self.store.refuses_other_keys),
            ("the PostgreSQL cluster forms", self.form),
            ("psql writes a row, the standby has it", self.write_row),
            ("primary killed -9: the standby is promoted", self.primary_dies),
            ("the killed node comes back as a standby", self.rejoin),
            ("the store's leader killed -9: no failover", self.store_leader_dies),
            ("switchover", self.switchover),
            ("the store's history names who did it", self.store.history),
        )
        for title, work in steps:
            if not self.step(title, work):
                return

    def prepare(self) -> str:
        self.machine = prepare()
        old, note = None, DEV / "work"
        if note.exists():
            old = Path(note.read_text())
        note.write_text(str(self.machine.work))
        passwords = Passwords()
        self.nodes = [Node(self.machine, n, passwords) for n in (1, 2)]
        for node in self.nodes:
            node.stop()  # one that a demonstration that was killed left running
            node.log.unlink(missing_ok=True)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        return f"{self.machine.binaries} as user {self.machine.user}"

    def form(self) -> str:
        first, second = self.nodes
        for node in self.nodes:
            node.write(self.store)
        first.start()
        until(lambda: first.alive() and first.is_primary(), FORM_S)
        second.start()
        until(lambda: second.alive() and second.streams(), FORM_S)
        return f"primary {first.name}, standby {second.name}"

    def parts(self) -> tuple[Node, Node]:
        """The primary, and the other node.

        Raises:
            ConfigError: not exactly one node is primary.
        """
        primaries = [node for node in self.nodes if node.is_primary()]
        if len(primaries) != 1:
            raise ConfigError(f"{len(primaries)} nodes say that they are primary", f"see {DEV}/log")
        return primaries[0], next(node for node in self.nodes if node is not primaries[0])

    def write_row(self) -> str:
        primary, standby = self.parts()
        made = primary.sql(
            "CREATE TABLE demo (word text); INSERT INTO demo VALUES ('kept') RETURNING 1"
        )
        if made != "1":
            raise ConfigError(f"psql could not write at {primary.name}", f"see {primary.log}")
        until(lambda: standby.sql("SELECT word FROM demo") == "kept", 10.0)
        return f"written at {primary.name}, read at {standby.name}"

    def primary_dies(self) -> str:
        primary, standby = self.parts()
        primary.kill()
        killed = time.monotonic()
        until(standby.is_primary, PROMOTE_S)
        promoted = time.monotonic() - killed
        until(lambda: _write(standby), 10.0)
        if standby.sql("SELECT count(*) FROM demo WHERE word = 'kept'") != "1":
            raise ConfigError("the row is lost", "")
        return (
            f"{standby.name} is primary after {promoted:.1f} s (ttl {TTL_S:.0f} s), "
            f"takes writes after {time.monotonic() - killed:.1f} s, the row is there"
        )

    def rejoin(self) -> str:
        primary, dead = self.parts()
        dead.start()
        until(lambda: dead.alive() and dead.streams(), REJOIN_S)
        return f"{dead.name} streams from {primary.name}"

    def store_leader_dies(self) -> str:
        """Writes for longer than a lease lasts: role, timeline and lease must stay."""
        primary, standby = self.parts()
        before = (self.store.lock(), primary.status().get("timeline"))
        name = self.store.kill_leader()
        killed = last = time.monotonic()
        gap, count = 0.0, 0
        while time.monotonic() - killed < WATCHED_S:
            if _write(primary):
                gap, last, count = max(gap, time.monotonic() - last), time.monotonic(), count + 1
            if standby.is_primary():
                raise ConfigError(f"{standby.name} was promoted", f"see {standby.log}")
            time.sleep(0.2)
        gap = max(gap, time.monotonic() - last)
        after = (self.store.lock(), primary.status().get("timeline"))
        if before != after or not primary.is_primary():
            raise ConfigError(f"the leader key was {before}, is {after}", f"see {primary.log}")
        if gap > 2.0:
            raise ConfigError(f"no write for {gap:.1f} s", f"see {primary.log}")
        self.store.revive()
        return (
            f"{name} killed; {primary.name} stays primary on the same lease for {WATCHED_S:.0f} s, "
            f"{count} writes, longest wait {gap:.2f} s"
        )

    def switchover(self) -> str:
        primary, standby = self.parts()
        began = time.monotonic()
        primary.ctl(
            "switchover", "demo", "--leader", primary.name, "--candidate", standby.name, "--force"
        )
        until(lambda: _write(standby), 30.0)
        spent = time.monotonic() - began
        until(primary.streams, REJOIN_S)
        back = time.monotonic() - began
        return (
            f"{standby.name} takes writes {spent:.1f} s after the command, "
            f"{primary.name} is its standby after {back:.1f} s"
        )

    def clean_up(self) -> str:
        """Stop everything and look whether that is so."""
        problems = []
        for stop in (*(node.stop for node in reversed(self.nodes)), self.store.stop):
            try:
                stop()
            except (ConfigServiceError, TimeoutError, OSError) as error:
                problems.append(str(error))
        places = [self.store.layout.root] + ([self.machine.work] if self.machine else [])
        for place in places:
            until(functools.partial(_is_quiet, place), LEFT_OVER_S)
            shutil.rmtree(place, ignore_errors=True)
        (DEV / "work").unlink(missing_ok=True)
        if problems:
            raise ConfigError("; ".join(problems), f"see {DEV}/log")
        return "nothing runs, nothing is kept but the logs"


def _is_quiet(place: Path) -> bool:
    return not left_over(place)


def _write(node: Node) -> bool:
    return node.sql("INSERT INTO demo VALUES ('more') RETURNING 1") == "1"


def say(line: str) -> None:
    """One line for the person who watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _interrupted(signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def only_one() -> IO[str]:
    """Hold the result open: no second demonstration runs meanwhile.

    Raises:
        ConfigError: one runs.
    """
    DEV.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (DEV / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError("another demonstration runs", "let it end first") from None
    return lock


def main() -> int:
    """0 when every step did what it should."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        lock, demo = only_one(), Demo()
    except ConfigError as error:
        say(f"error: {error}; {error.remedy}")
        return 1
    with lock:
        try:
            demo.run()
        except KeyboardInterrupt:
            demo.failed += 1
            say("   interrupted")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # a second one must not leave things running
            demo.step("clean-up", demo.clean_up)
    spent = time.monotonic() - demo.began
    say(f"\n{demo.steps} steps, {demo.failed} failed, {spent:.0f} s; logs: .dev/patroni/log")
    return 1 if demo.failed else 0


if __name__ == "__main__":
    sys.exit(main())
