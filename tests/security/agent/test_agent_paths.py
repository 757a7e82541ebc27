"""Destinations: whatever an attacker puts in the way, nothing is written through it."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from configagent.commits import FilesProtocol, Item
from configagent.disk import Seen, Together, digest
from configagent.errors import RefusedError
from configagent.paths import Roots

KEY = b"k" * 32
BEFORE = b"precious"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir(mode=0o755)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f.conf").write_bytes(BEFORE)
    return made


def item(path: object, content: bytes = b"new") -> Item:
    return Item(str(path), content, 0o640, os.geteuid(), os.getegid(), "", digest(KEY, content))


def protocol(root: Path) -> FilesProtocol:
    return FilesProtocol(Roots((str(root),)), "s", KEY, lambda step: None, Seen())


def stage(protocol: FilesProtocol, generation: int, items: list[Item]) -> list[dict[str, Any]]:
    with Together() as written:
        moves = protocol.stage(generation, items, written)
        written.sync()
    return moves


def all_files(base: Path) -> list[str]:
    return sorted(os.path.join(d, f) for d, _, files in os.walk(base) for f in files)


def symlinked_parent(root: Path) -> str:
    (root / "sub").symlink_to(root.parent / "outside")
    return f"{root}/sub/f.conf"


def symlinked_leaf(root: Path) -> str:
    (root / "f.conf").symlink_to(root.parent / "outside" / "f.conf")
    return f"{root}/f.conf"


def hard_link(root: Path) -> str:
    os.link(root.parent / "outside" / "f.conf", root / "f.conf")
    return f"{root}/f.conf"


def fifo(root: Path) -> str:
    os.mkfifo(root / "f.conf")
    return f"{root}/f.conf"


def folder(root: Path) -> str:
    (root / "f.conf").mkdir()
    return f"{root}/f.conf"


def unix_socket(root: Path) -> str:
    path = root / "f.conf"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
    return str(path)


def dots(root: Path) -> str:
    return f"{root}/../outside/f.conf"


def outside(root: Path) -> str:
    return str(root.parent / "outside" / "f.conf")


def sibling_with_the_same_start(root: Path) -> str:
    (root.parent / "root2").mkdir()
    return f"{root}2/f.conf"


def descriptor(root: Path) -> str:
    return "/proc/self/fd/1"


def missing_parent(root: Path) -> str:
    return f"{root}/nothing/f.conf"


def symlinked_root(root: Path) -> str:
    root.rename(root.parent / "real")
    root.symlink_to(root.parent / "real")
    return f"{root}/f.conf"


def root_that_others_may_write(root: Path) -> str:
    root.chmod(0o777)
    return f"{root}/f.conf"


@pytest.mark.parametrize(
    "trap",
    [
        symlinked_parent, symlinked_leaf, hard_link, fifo, folder, unix_socket, dots, outside,
        sibling_with_the_same_start, descriptor, missing_parent, symlinked_root,
        root_that_others_may_write,
    ],
)  # fmt: skip
@pytest.mark.timeout(20)  # whoever opens the fifo waits for a writer that never comes
def test_traps_are_refused_and_nothing_is_written(root: Path, trap: object) -> None:
    path = trap(root)  # type: ignore[operator]
    before = all_files(root.parent)
    with pytest.raises(RefusedError):
        stage(protocol(root), 1, [item(path)])
    assert all_files(root.parent) == before
    assert (root.parent / "outside" / "f.conf").read_bytes() == BEFORE


def test_a_good_file_before_a_trap_leaves_nothing_staged(root: Path) -> None:
    path = fifo(root)
    with pytest.raises(RefusedError):
        stage(protocol(root), 1, [item(root / "ok.conf"), item(path)])
    assert sorted(os.listdir(root)) == ["f.conf"]


def test_a_race_of_folder_and_symlink_never_writes_outside(root: Path) -> None:
    """An attacker exchanges the folder for a symlink all the time."""
    sub, spare, evil = root / "sub", root / "spare", root / "evil"
    spare.mkdir()
    evil.symlink_to(root.parent / "outside")
    spare.rename(sub)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            sub.rename(spare)
            evil.rename(sub)
            sub.rename(evil)
            spare.rename(sub)

    attacker = threading.Thread(target=flip)
    attacker.start()
    written = refused = 0
    try:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            try:
                stage(protocol(root), written, [item(sub / "x.conf", os.urandom(8))])
                written += 1
            except RefusedError:
                refused += 1
    finally:
        stop.set()
        attacker.join()
    assert written
    assert refused
    assert sorted(os.listdir(root.parent / "outside")) == ["f.conf"]
    assert (root.parent / "outside" / "f.conf").read_bytes() == BEFORE


def test_mode_is_never_wider_even_for_a_moment(root: Path) -> None:
    """A watcher that opens everything it sees never meets a file wider than it will be."""
    seen: set[int] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for entry in os.scandir(root):
                try:
                    seen.add(entry.stat(follow_symlinks=False).st_mode & 0o777)
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for n in range(100):
            writer = protocol(root)
            writer.unstage(stage(writer, n, [item(root / "s.conf", b"%d" % n)]))
    finally:
        stop.set()
        watcher.join()
    assert seen <= {0o600, 0o640}
