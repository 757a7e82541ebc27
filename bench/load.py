"""Closed-loop load: every connection keeps ``streams`` requests under way.

One process per core; each has its share of the connections and reports what it counted in the
measured window. A request's latency is from the write that carried it to the read that held the
end of its answer.
"""

from __future__ import annotations

import math
import multiprocessing as mp
import os
import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from bench import requests
from bench.frames import BenchFault, Template
from bench.link import Link, Links, Target

STREAM_ID_MAX: Final = 2**31 - 1
GRACE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How many connections, and how many requests under way on each."""

    connections: int
    streams: int

    def __str__(self) -> str:
        return f"{self.connections}×{self.streams}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one window showed."""

    rate: float  # answers per second
    p50_ms: float
    p99_ms: float
    errors: int
    trouble: str  # the first error
    client_us: float  # CPU of the generator per answer
    answers: int  # in the whole run, warm-up and emptying included


class LoadLink(Link):
    """A connection that answers every answer with a new request."""

    streams = 1
    work: Template
    running = False
    measuring = False
    sending = True

    def prepare(self, streams: int) -> None:
        """Before ``begin``."""
        self.streams = streams
        self.started: dict[int, float] = {}
        self.latencies = array("d")
        self.done = 0
        self.answered = 0
        self.errors = 0
        self.trouble = ""
        self.now = 0.0
        self._owed = 0

    def begin(self) -> None:
        """Fill the pipe."""
        self.running = True
        self.sending = True
        self._owed = min(self.streams, self.reader.max_streams)
        self.after_read()

    def readable(self) -> None:
        self.now = time.perf_counter()
        super().readable()

    def on_answer(self, stream: int, message: bytes, trouble: str) -> None:
        begun = self.started.pop(stream, None)
        if begun is None:
            return  # the request that filled the header table
        self._owed += 1
        self.answered += 1
        if trouble:
            self.errors += 1
            self.trouble = self.trouble or trouble
        elif self.measuring:
            self.done += 1
            self.latencies.append(self.now - begun)

    def after_read(self) -> None:
        owed = self._owed
        if not owed or not self.running or not self.sending:
            return
        reader, work = self.reader, self.work
        fitting = min(owed, reader.send_window // work.window_bytes)
        if fitting <= 0:
            return
        reader.send_window -= fitting * work.window_bytes
        self._owed = owed - fitting
        stream = self.next_stream
        end = stream + 2 * fitting
        self.next_stream = end
        if end >= STREAM_ID_MAX:
            raise BenchFault("out of stream ids")
        ids = range(stream, end, 2)
        self.started.update(dict.fromkeys(ids, time.perf_counter()))
        self.send(b"".join([work.build(each) for each in ids]))


def percentile(ordered: list[float], share: float) -> float:
    """Nearest rank; 0 for nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def _worker(
    pipe: Connection, target: Target, operation: str, shape: Shape, worker: int, count: int
) -> None:
    """One load process: open, say so, wait for the word, run, report."""
    try:
        share = shape.connections // count + (1 if worker < shape.connections % count else 0)
        links = Links()
        context = target.context()
        made: list[LoadLink] = []
        for _ in range(share):
            link = LoadLink(target, context)
            link.prepare(shape.streams)
            made.append(link)
        links.open(list(made))
        path, bodies = requests.bodies(operation, worker)
        for number, link in enumerate(made):
            at = number * len(bodies) // max(1, share)
            link.work = link.template(path, bodies[at:] + bodies[:at])
        pipe.send("open")
        while True:
            order = pipe.recv()
            if order is None:
                break
            pipe.send(_run(links, made, *order))
        links.close()
    except (BenchFault, OSError) as fault:
        pipe.send(f"{type(fault).__name__}: {fault}")


def _run(links: Links, made: list[LoadLink], warm_s: float, seconds: float) -> dict[str, Any]:
    for link in made:
        if link.running:
            link.sending = True
            link.after_read()
        else:
            link.begin()
    _turn(links, warm_s)
    for link in made:
        link.measuring = True
    cpu, began = time.process_time(), time.perf_counter()
    _turn(links, seconds)
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    latencies = array("d")
    for link in made:
        link.measuring = link.sending = False
        latencies.extend(link.latencies)
        link.latencies = array("d")
    if not links.run_until(lambda: not any(link.started for link in made), GRACE_S):
        raise BenchFault("answers are missing")
    result = {
        "done": sum(link.done for link in made),
        "answered": sum(link.answered for link in made),
        "errors": sum(link.errors for link in made),
        "trouble": next((link.trouble for link in made if link.trouble), ""),
        "seconds": spent,
        "cpu": cpu,
        "latencies": latencies,
    }
    for link in made:
        link.done = link.errors = link.answered = 0
        link.trouble = ""
    return result


def _turn(links: Links, seconds: float) -> None:
    deadline = time.perf_counter() + seconds
    while (left := deadline - time.perf_counter()) > 0:
        links.run_once(left)


class Load:
    """Processes that stand ready to load one target; ``run`` may be called again and again."""

    def __init__(self, target: Target, operation: str, shape: Shape, processes: int = 0) -> None:
        """``processes`` 0: one per core, never more than connections.

        Raises:
            BenchFault: the connections did not open.
        """
        count = min(processes or os.cpu_count() or 1, shape.connections)
        fork = mp.get_context("fork")
        self._workers: list[tuple[Any, Connection]] = []
        for worker in range(count):
            ours, theirs = fork.Pipe()
            process = fork.Process(
                target=_worker, args=(theirs, target, operation, shape, worker, count), daemon=True
            )
            process.start()
            theirs.close()
            self._workers.append((process, ours))
        for _, pipe in self._workers:
            word = self._hear(pipe, 30.0)
            if word != "open":
                self.close()
                raise BenchFault(str(word))

    def run(self, warm_s: float, seconds: float) -> Outcome:
        """One window.

        Raises:
            BenchFault: a worker met a fault.
        """
        for _, pipe in self._workers:
            pipe.send((warm_s, seconds))
        rate = cpu = 0.0
        done = errors = answers = 0
        trouble = ""
        latencies: list[float] = []
        for _, pipe in self._workers:
            result = self._hear(pipe, warm_s + seconds + 2 * GRACE_S)
            if isinstance(result, str):
                raise BenchFault(result)
            rate += result["done"] / result["seconds"]
            done += result["done"]
            errors += result["errors"]
            answers += result["answered"]
            cpu += result["cpu"]
            trouble = trouble or result["trouble"]
            latencies += result["latencies"]
        latencies.sort()
        return Outcome(
            rate=rate,
            p50_ms=percentile(latencies, 0.50) * 1e3,
            p99_ms=percentile(latencies, 0.99) * 1e3,
            errors=errors,
            trouble=trouble,
            client_us=cpu / done * 1e6 if done else 0.0,
            answers=answers,
        )

    @staticmethod
    def _hear(pipe: Connection, seconds: float) -> Any:
        if not pipe.poll(seconds):
            raise BenchFault("a load process does not answer")
        try:
            return pipe.recv()
        except EOFError:
            raise BenchFault("a load process ended") from None

    def close(self) -> None:
        """End the processes."""
        for process, pipe in self._workers:
            try:
                pipe.send(None)
            except OSError:
                pass
            process.join(2.0)
            if process.is_alive():
                process.kill()
            pipe.close()
