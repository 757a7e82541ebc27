"""Writes that never stop: what clients see while a cluster is looked after.

A ``Writing`` puts through several members at once from a thread of its own. Where an answer does
not come within ``EVERY_S`` the next put is sent all the same, as other clients would do.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from bench import requests
from bench.calls import template_free
from bench.frames import BenchFault, grpc_message
from bench.link import Link, Links, Target

EVERY_S: Final = 0.02
UNDER_WAY: Final = 64  # puts without an answer on one connection; then none is sent
FIRST_S: Final = 10.0  # within this time the first put must be accepted


class PutLink(Link):
    """Puts one key; keeps when each was sent and answered."""

    def start(self, number: int) -> None:
        """Before the first put; ``number`` tells the keys of connections apart."""
        self.accepted: list[tuple[float, float]] = []  # sent, answered
        self.refused: list[tuple[float, str]] = []  # answered, why
        self._sent: dict[int, float] = {}
        self._newest = 0.0
        self._body = requests.put(requests.key(91, number), requests.value(number))

    def on_answer(self, stream: int, message: bytes, trouble: str) -> None:
        now, sent = time.perf_counter(), self._sent.pop(stream)
        if trouble:
            self.refused.append((now, trouble))
        else:
            self.accepted.append((sent, now))

    def tick(self, now: float) -> None:
        """Send the next put if it is time."""
        waited = now - self._newest
        retry = bool(self.refused) and now - self.refused[-1][0] < EVERY_S
        if (waited < EVERY_S and (self._sent or retry)) or len(self._sent) >= UNDER_WAY:
            return
        stream = self.take_stream()
        self._sent[stream] = self._newest = now
        self.reader.send_window -= len(grpc_message(self._body))
        template_free(self, stream, requests.PUT, self._body)


class Writing:
    """Puts through every target until closed."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.links = Links()
        self.puts = [PutLink(target, target.context()) for target in targets]
        for number, link in enumerate(self.puts):
            link.start(number)
        self.links.open([*self.puts])
        self.fault = ""
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._halt.is_set():
                now = time.perf_counter()
                for link in self.puts:
                    link.tick(now)
                self.links.run_once(EVERY_S / 4)
        except BenchFault as fault:
            self.fault = str(fault)

    def close(self) -> None:
        """Stop and disconnect."""
        self._halt.set()
        self._thread.join(5.0)
        self.links.close()

    # --- what was seen ---------------------------------------------------------------------------

    def answered(self, since: float) -> list[float]:
        """When puts sent at ``since`` or later were accepted, in order."""
        return sorted(
            done for link in self.puts for sent, done in [*link.accepted] if sent >= since
        )

    def gap(self, since: float) -> float:
        """Longest time from ``since`` until now without an accepted put, in seconds.

        Raises:
            BenchFault: a connection was lost.
        """
        if self.fault:
            raise BenchFault(self.fault)
        ends = sorted(done for link in self.puts for _, done in [*link.accepted] if done >= since)
        times = [since, *ends, time.perf_counter()]
        return max(later - sooner for sooner, later in itertools.pairwise(times))

    def times(self, since: float, until: float) -> list[float]:
        """Milliseconds of accepted puts that were sent then, in ascending order."""
        return sorted(
            (done - sent) * 1e3
            for link in self.puts
            for sent, done in [*link.accepted]
            if since <= sent < until
        )

    def refusals(self, since: float) -> Counter[str]:
        """Why puts were refused from ``since`` on, and how many for each reason."""
        return Counter(why for link in self.puts for at, why in [*link.refused] if at >= since)

    def wait(self, since: float, seconds: float) -> float:
        """Until a put sent at ``since`` or later is accepted; the time from ``since``.

        Raises:
            BenchFault: not in time, or a connection was lost.
        """
        while time.perf_counter() - since < seconds:
            ends = self.answered(since)
            if ends:
                return ends[0] - since
            if self.fault:
                raise BenchFault(self.fault)
            time.sleep(EVERY_S / 10)
        raise BenchFault("no write was accepted")


@contextmanager
def writing(targets: Sequence[Target]) -> Iterator[Writing]:
    """Puts under way, the first of them accepted.

    Raises:
        BenchFault: nothing is accepted.
    """
    made = Writing(targets)
    try:
        made.wait(time.perf_counter(), FIRST_S)
        yield made
    finally:
        made.close()
