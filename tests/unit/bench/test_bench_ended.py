"""A bench that is told to end stops what it started."""

import signal
import subprocess
import sys

PROGRAM = """
import signal, sys, tempfile
from pathlib import Path
import bench.__main__ as bench

def run(report, wanted, *, quick):
    try:
        print("started", flush=True)
        signal.pause()
    finally:
        print("stopped", flush=True)

bench.WORK = Path(tempfile.mkdtemp()) / "bench"
bench.port_free = lambda port: True
bench.tools.etcd = lambda: None
bench.tools.etcd_version = lambda: "0"
bench._run = run
sys.exit(bench.main())
"""


def test_a_terminated_bench_stops_its_clusters() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "started\n" in iter(process.stdout.readline, "")
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()
    assert process.returncode == 143
