"""`python -m bench.profile`: where the microseconds of a put go, on the leader.

    PROFILE_OPERATION=put|range|serializable   PROFILE_SHAPE=10x20   PROFILE_MEMBERS=3
    PROFILE_SECONDS=4

Starts a cluster whose members run under ``bench.sampler``, loads its leader, and prints CPU per
request: the process's, by thread, and by function of the event loop's thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from typing import Any, Final

from bench import tools
from bench.clusters import Member, Ours
from bench.frames import BenchFault
from bench.load import Load, Shape

PORT: Final = 13_600
ROWS: Final = 45
WORK: Final = tools.ROOT / ".dev" / "bench-profile"


class Sampled(Ours):
    """Members under the sampler."""

    def argv(self, member: Member) -> list[str]:
        _, *flags = super().argv(member)
        out = self.folder / f"{member.name}.json"
        return [sys.executable, "-m", "bench.sampler", str(out), *flags]

    def launch(self, member: Member) -> None:
        os.environ["PYTHONPATH"] = str(tools.ROOT)
        super().launch(member)

    def samples(self, member: Member) -> dict[str, Any]:
        """What was gathered since the last call."""
        out = self.folder / f"{member.name}.json"
        out.unlink(missing_ok=True)
        os.kill(member.pid, signal.SIGUSR2)
        deadline = time.perf_counter() + 10.0
        while not out.exists():
            if time.perf_counter() > deadline:
                raise BenchFault("the sampler does not answer")
            time.sleep(0.01)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def main() -> int:
    """Profile one shape of load."""
    operation = os.environ.get("PROFILE_OPERATION", "put")
    shape = Shape(*(int(n) for n in os.environ.get("PROFILE_SHAPE", "10x20").split("x")))
    size = int(os.environ.get("PROFILE_MEMBERS", "3"))
    seconds = float(os.environ.get("PROFILE_SECONDS", "4"))
    if WORK.exists():
        shutil.rmtree(WORK)
    cluster = Sampled(WORK, size, PORT)
    try:
        cluster.start()
        leader = cluster.leader()
        load = Load(cluster.target(leader), operation, shape, 1)
        load.run(0.5, 0.5)
        for member in cluster.members:
            cluster.samples(member)
        outcome = load.run(0.0, seconds)
        count = outcome.rate * seconds
        print(
            f"{operation} {shape}, {size} members: "
            f"{outcome.rate:,.0f}/s, p50 {outcome.p50_ms:.2f} ms"
        )
        for member in sorted(cluster.members, key=lambda m: m is not leader):
            found = cluster.samples(member)
            role = "leader" if member is leader else "follower"
            _show(role, found, count, ROWS)
        load.close()
    finally:
        cluster.stop()
    return 0


def _show(role: str, found: dict[str, Any], count: float, rows: int) -> None:
    scale = 1e6 / count
    threads = sorted(found["threads"].values(), reverse=True)
    print(
        f"\n{role}: process {found['process_s'] * scale:.1f} µs per request, "
        f"event loop {found['main_s'] * scale:.1f}; threads: "
        + ", ".join(f"{cpu * scale:.1f}" for cpu in threads if cpu)
    )
    print("  by room:")
    for room, spent in sorted(found["rooms"].items(), key=lambda each: -each[1]):
        print(f"        {spent * scale:7.2f}  {room}")
    print(f"{'own':>7} {'whole':>7}  function")
    whole = found["whole"]
    for place, spent in sorted(found["own"].items(), key=lambda each: -each[1])[:rows]:
        print(f"{spent * scale:7.2f} {whole[place] * scale:7.2f}  {place}")
    print("  by whole:")
    for place, spent in sorted(whole.items(), key=lambda each: -each[1])[:rows]:
        print(f"        {spent * scale:7.2f}  {place}")


if __name__ == "__main__":
    sys.exit(main())
