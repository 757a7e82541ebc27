"""A member is one busy thread: no worker process, and no thread that computes beside the loop (H4).

The threads that there are wait for disks, databases or a password's memory, with the interpreter
given up; each is named here with what it does.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "configsvc"
# The command line tools and the client are processes of their own.
MEMBER = ("raft", "mvcc", "lease", "auth", "audit", "apply", "http2", "codec", "net", "identity",
          "storage", "transport", "runtime", "api", "gateway", "frontend", "server")  # fmt: skip
PROCESSES = {"multiprocessing", "subprocess"}
THREADS = {
    ("identity/passwords.py", "ThreadPoolExecutor"): "argon2 gives the interpreter up",
    ("runtime/watchdog.py", "Thread"): "sleeps",
    ("runtime/worker.py", "Thread"): "installs: SQL and file syncs",
    ("server/composing.py", "ThreadPoolExecutor"): "readers of the history: SQL",
    ("server/loading.py", "ThreadPoolExecutor"): "one sum in SQL, before the loop runs",
    ("storage/history/writer.py", "Thread"): "SQL",
    ("storage/local/writer.py", "Thread"): "SQL",
    ("storage/wal/writer.py", "Thread"): "writes and syncs",
}
MAKERS = {"Thread", "ThreadPoolExecutor", "ProcessPoolExecutor", "fork", "popen", "system"}


def sources() -> list[Path]:
    return [path for room in MEMBER for path in sorted((ROOT / room).rglob("*.py"))]


def test_no_worker_process() -> None:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module.split(".")[0]}
            assert not names & PROCESSES, path


def test_every_thread_is_known() -> None:
    found = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                name = (
                    called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                )
                if name in MAKERS:
                    found.add((str(path.relative_to(ROOT)), name))
    assert found == set(THREADS)
