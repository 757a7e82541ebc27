"""The local socket answers its owner and root alone (I8)."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from configagent.control import ask, json_server

NOBODY = 65534
STRANGER = """
import json, os, socket, sys
os.setgroups([int(g) for g in sys.argv[2:3]]); os.setgid(65534); os.setuid(65534)
command = sys.argv[3] if sys.argv[3:] else "status"
door = socket.socket(socket.AF_UNIX)
door.settimeout(5)
try:
    door.connect(sys.argv[1])
    door.sendall(json.dumps({"command": command}).encode() + b"\\n")
    print(json.dumps(door.recv(100).decode()))
except OSError as error:
    print(json.dumps(type(error).__name__))
"""


def stranger(path: str, *more: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", STRANGER, path, *more], capture_output=True, text=True, check=True
    )
    answer: str = json.loads(ran.stdout)
    return answer


async def served(path: Path, asked: list[object], story: object, group: int | None = None) -> None:
    async def handle(request: dict[str, object]) -> dict[str, object]:
        asked.append(request)
        return {"ok": True}

    server = json_server(str(path), handle, group)
    await server.start()
    try:
        await asyncio.to_thread(story)  # type: ignore[arg-type]
    finally:
        await server.stop()


def test_only_its_owner_can_connect(tmp_path: Path) -> None:
    path, asked = tmp_path / "s", list[object]()

    def story() -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert ask(str(path), {"command": "status"}) == {"ok": True}

    asyncio.run(served(path, asked, story))
    assert len(asked) == 1
    assert not path.exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter; those of the test runner are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_account_is_refused_even_past_the_mode(open_folder: Path) -> None:
    """The peer's uid decides, should a mode ever be wider than it should."""
    path, asked = open_folder / "s", list[object]()

    def story() -> None:
        assert stranger(str(path)) == "PermissionError"
        path.chmod(0o666)
        assert stranger(str(path)) in ("", "ConnectionResetError", "BrokenPipeError")
        assert ask(str(path), {"command": "status"}) == {"ok": True}

    asyncio.run(served(path, asked, story))
    assert asked == [{"command": "status"}]


GROUP = 64321
OTHER = 64322


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_members_of_the_group_may_look_and_nothing_else(open_folder: Path) -> None:
    path, asked = open_folder / "s", list[object]()

    def story() -> None:
        info = os.stat(path)
        assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o660, GROUP)
        assert json.loads(stranger(str(path), str(GROUP))) == {"ok": True}
        for command in ("reload", "retry", "approve", "rollback", ""):
            assert "may only look" in stranger(str(path), str(GROUP), command)
        assert stranger(str(path), str(OTHER)) == "PermissionError"
        path.chmod(0o666)  # the mode alone is not relied on
        assert stranger(str(path), str(OTHER)) in ("", "ConnectionResetError", "BrokenPipeError")
        assert ask(str(path), {"command": "reload"}) == {"ok": True}

    asyncio.run(served(path, asked, story, GROUP))
    assert asked == [{"command": "status"}, {"command": "reload"}]
