"""The commit protocols: stopped at every step, killed at random, and always whole afterwards."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from configagent.commits import Item
from configagent.disk import Mounts, Seen, Wanted, digest
from configagent.paths import read_regular
from configagent.records import Record, generation_numbers, load_record, parse_record
from configagent.writer import Writer, items_root, make_item

KEY = b"k" * 32
NAMES = ("a.conf", "b.conf", "c.conf")


class World:
    """A root, a state directory, and one set of three files."""

    def __init__(self, base: Path, commit: str) -> None:
        self.root, self.state, self.commit = base / "root", base / "state", commit
        for path in (self.root, self.state):
            path.mkdir(mode=0o755, exist_ok=True)
        self.dir = str(self.root / "managed") if commit == "dir" else ""

    def writer(self, mark: Callable[[str], None] = lambda step: None) -> Writer:
        return Writer((str(self.root),), str(self.state), KEY, mark)

    def names(self) -> list[str]:
        return list(NAMES) if self.dir else [str(self.root / name) for name in NAMES]

    def items(self, text: str) -> list[Item]:
        owner = (os.geteuid(), os.getegid())
        return [
            make_item(KEY, name, f"{text} of {place}\n".encode() * 20, 0o640, owner, "")
            for place, name in enumerate(self.names())
        ]

    def place(self) -> dict[str, Any]:
        return {"set": "s", "commit": self.commit, "dir": self.dir}

    def recover(self, writer: Writer) -> dict[str, Any]:
        destinations = [] if self.dir else self.names()
        return writer.handle({"op": "recover", **self.place(), "destinations": destinations})

    def commit_text(self, writer: Writer, text: str, **changes: Any) -> dict[str, Any]:
        old = load_record(str(self.state), "s")
        number = old.last_generation + 1
        items = changes.pop("items", None) or self.items(text)
        record = Record(
            "s", generation=number, last_generation=number, root=items_root(items),
            to_notify=["svc"], good=old.generation,
        )  # fmt: skip
        request = self.place() | {
            "op": "stage", "generation": number, "items": [tuple(i) for i in items],
            "tree": False, "sidecar": b"{}", "sealed": text.encode(), "keep": 3,
            "record": asdict(record),
        }  # fmt: skip
        answer = writer.handle(request | changes)
        if "error" not in answer:  # the agent says that it is done
            done = asdict(load_record(str(self.state), "s")) | {"swap": None}
            writer.handle({"op": "save", "record": done, "durable": False})
        return answer

    def texts(self) -> set[str]:
        """What the files say now; one element when the set is whole."""
        base = self.root / "managed" / "current" if self.dir else self.root
        return {(base / name).read_text().split(" of ")[0] for name in NAMES}

    def strays(self) -> list[str]:
        if not self.dir:
            return sorted(set(os.listdir(self.root)) - set(NAMES))
        known = {str(n) for n in generation_numbers(str(self.state), "s")}
        inner = set(os.listdir(self.root / "managed")) - {"current", "generations"}
        return sorted(inner | (set(os.listdir(self.root / "managed" / "generations")) - known))


class Crash(Exception):
    """The world stops here."""


@pytest.fixture(params=["files", "dir"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made = World(tmp_path, request.param)
    writer = made.writer()
    made.recover(writer)
    assert "error" not in made.commit_text(writer, "first")
    return made


def test_content_owner_and_mode(world: World) -> None:
    answer = world.commit_text(world.writer(), "second")
    assert "error" not in answer
    assert world.texts() == {"second"}
    base = world.root / "managed" / "current" if world.dir else world.root
    info = (base / "a.conf").stat()
    assert stat.S_IMODE(info.st_mode) == 0o640
    assert world.strays() == []


def test_stopped_at_every_step_the_set_is_old_or_new_after_recovery(world: World) -> None:
    steps: list[str] = []
    world.commit_text(world.writer(steps.append), "gen0")
    assert "record.written" in steps
    for place in range(len(steps)):
        before = next(iter(world.texts()))
        seen: list[str] = []

        def mark(step: str, seen: list[str] = seen, place: int = place) -> None:
            seen.append(step)
            if len(seen) == place + 1:
                raise Crash(step)

        with pytest.raises(Crash):
            world.commit_text(world.writer(mark), f"gen{place + 1}")
        writer = world.writer()
        world.recover(writer)
        decided = "record.written" in seen
        assert world.texts() == {f"gen{place + 1}" if decided else before}, steps[place]
        assert world.strays() == []
        record = load_record(str(world.state), "s")
        assert record.swap is None
        assert record.to_notify == ["svc"]
        assert writer.handle({"op": "scan", "set": "s"})["found"] == []


def test_unchanged_files_keep_their_inode(world: World) -> None:
    base = world.root / "managed" / "current" if world.dir else world.root
    before = os.stat(base / "a.conf").st_ino
    items = world.items("first")
    changed = items[1]._replace(content=b"other of 1\n")
    changed = make_item(KEY, changed.name, changed.content, 0o640, (changed.uid, changed.gid), "")
    world.commit_text(world.writer(), "x", items=[items[0], changed, items[2]])
    assert os.stat(base / "a.conf").st_ino == before
    assert (base / "b.conf").read_text() == "other of 1\n"


def edit_in_place(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"first", b"FIRST"))


def exchange_for_a_symlink(path: Path) -> None:
    target = path.parent.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "harm", [edit_in_place, lambda p: p.chmod(0o666), Path.unlink, exchange_for_a_symlink]
)
def test_a_file_that_somebody_changed_is_written_anew_in_the_next_generation(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    world = World(tmp_path, "dir")
    writer = world.writer()
    world.recover(writer)
    world.commit_text(writer, "first")
    current = world.root / "managed" / "current"
    harm(Path(os.path.realpath(current / "a.conf")))
    items = world.items("first")
    other = make_item(KEY, "b.conf", b"other of 1\n", 0o640, (items[1].uid, items[1].gid), "")
    assert "error" not in world.commit_text(writer, "x", items=[items[0], other, items[2]])
    assert writer.handle({"op": "scan", "set": "s"})["found"] == []
    info = os.lstat(current / "a.conf")
    assert (stat.S_ISREG(info.st_mode), stat.S_IMODE(info.st_mode)) == (True, 0o640)
    assert (current / "a.conf").read_text().startswith("first of")


def test_another_mode_is_another_file(tmp_path: Path) -> None:
    world = World(tmp_path, "dir")
    writer = world.writer()
    world.recover(writer)
    world.commit_text(writer, "first")
    current = world.root / "managed" / "current"
    with (current / "a.conf").open() as before:
        items = world.items("first")
        items[0] = items[0]._replace(mode=0o600)
        world.commit_text(writer, "x", items=items)
        assert stat.S_IMODE(os.fstat(before.fileno()).st_mode) == 0o640
    assert stat.S_IMODE(os.stat(current / "a.conf").st_mode) == 0o600


def test_a_file_that_is_known_to_be_the_same_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, item = tmp_path / "a.conf", Wanted(4, 0o640, os.geteuid(), os.getegid(), "")
    path.write_bytes(b"same")
    path.chmod(0o640)
    item = item._replace(digest=digest(KEY, b"same"))
    folder = os.open(tmp_path, os.O_RDONLY)
    reads: list[str] = []
    monkeypatch.setattr(
        "configagent.disk.read_regular", lambda *a: reads.append(a[1]) or read_regular(*a)
    )
    seen = Seen()
    try:

        def is_same() -> bool:
            return seen.is_same(folder, "a.conf", str(path), item, KEY)

        assert is_same()
        assert is_same()
        assert len(reads) == 2  # it changed a moment ago: stat may not show the next change
        monkeypatch.setattr("configagent.disk.SURE_NS", -1)
        assert is_same()
        assert is_same()
        assert len(reads) == 3
        for number, text in enumerate((b"Same", b"same")):
            path.write_bytes(text)
            os.utime(path, (number, number))  # the clock of a file system may tick slowly
            assert is_same() == (text == b"same")
        path.chmod(0o644)
        assert not is_same()
    finally:
        os.close(folder)


def test_old_generations_go_but_not_the_good_one(world: World) -> None:
    for n in range(8):
        world.commit_text(world.writer(), f"t{n}")
    numbers = generation_numbers(str(world.state), "s")
    record = load_record(str(world.state), "s")
    assert len(numbers) <= 4
    assert {record.generation, record.good} <= set(numbers)


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
def test_a_failing_disk_keeps_the_old_set(
    world: World, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if call == "write":
            for name in ("write_new", "write_unsynced"):
                patched.setattr(f"configagent.commits.{name}", full)
        else:
            patched.setattr(f"os.{call}", full)
        answer = world.commit_text(world.writer(), "second")
    assert answer["kind"] == "write_failed"
    writer = world.writer()
    world.recover(writer)
    assert len(world.texts()) == 1
    assert world.strays() == []
    assert "error" not in world.commit_text(writer, "third")
    assert world.texts() == {"third"}


@pytest.mark.parametrize("commit", ["files", "dir"])
def test_every_name_on_the_way_is_on_disk_before_the_record_decides(
    tmp_path: Path, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, commit)
    world.recover(world.writer())
    (world.root / "sub").mkdir()
    names = ["a/b/one", "a/two"] if world.dir else [str(world.root / "sub" / n) for n in "xy"]
    owner = (os.geteuid(), os.getegid())
    items = [make_item(KEY, name, b"text", 0o640, owner, "") for name in names]
    synced: dict[str, list[str]] = {}
    decided: list[dict[str, list[str]]] = []
    fsync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        fsync(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced[os.readlink(f"/proc/self/fd/{descriptor}")] = sorted(os.listdir(descriptor))

    def note_rename(source: str, target: str, **named: Any) -> None:
        if target == "record.json":
            decided.append(dict(synced))
        rename(source, target, **named)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    assert "error" not in world.commit_text(world.writer(), "first", items=items)
    assert decided[0].pop(f"{world.state}/sets/s/gen") == ["1.gen"]
    found = {os.path.relpath(path, world.root): names for path, names in decided[0].items()}
    if commit == "files":
        assert found == {"sub": [".configagent-s-1-0.new", ".configagent-s-1-1.new"]}
        return
    made = "managed/generations"
    assert found == {
        ".": ["managed", "sub"], "managed": ["generations"], made: ["1"],
        f"{made}/1": [".configagent.json", "a"], f"{made}/1/a": ["b", "two"],
        f"{made}/1/a/b": ["one"],
    }  # fmt: skip


def test_full_filesystem_under_the_destination(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", str(root)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        world = World(tmp_path, "files")
        writer = world.writer()
        world.recover(writer)
        world.commit_text(writer, "first")
        owner = (os.geteuid(), os.getegid())
        items = world.items("second")
        items[2] = make_item(KEY, items[2].name, b"x" * 200_000, 0o640, owner, "")
        answer = world.commit_text(writer, "second", items=items)
        assert answer["kind"] == "write_failed"
        assert "No space left" in answer["error"]
        assert world.texts() == {"first"}
        assert world.strays() == []
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_file_that_is_mounted_by_itself_is_refused_and_not_written_in_place(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, "files")
    writer = world.writer()
    world.recover(writer)
    world.commit_text(writer, "first")
    place, source = str(world.root / "b.conf"), tmp_path / "source"
    source.write_text("mounted")
    source.chmod(0o640)
    bound = subprocess.run(
        ["mount", "--bind", str(source), place], capture_output=True, check=False
    )
    if bound.returncode:
        pytest.skip("needs the right to mount")
    try:
        answer = world.commit_text(writer, "second")
        assert answer["kind"] == "refused"
        assert "b.conf: it is a mount point: mount its folder instead" in answer["error"]
        assert source.read_text() == "mounted"
        assert (world.root / "a.conf").read_text().startswith("first of")
        assert world.strays() == []
    finally:
        subprocess.run(["umount", place], check=True)
    assert world.texts() == {"first"}
    assert "error" not in world.commit_text(writer, "third")
    assert world.texts() == {"third"}


def test_mount_points_are_named_as_they_are(tmp_path: Path) -> None:
    place, mounts = tmp_path / "a b", Mounts()
    place.mkdir()
    assert "/" in mounts.points()
    bound = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False
    )
    if bound.returncode:
        pytest.skip("needs the right to mount")
    try:
        assert str(place) in mounts.points()
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert str(place) not in mounts.points()


CHILD = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
from test_agent_commits import World
world = World(Path(sys.argv[2]), sys.argv[3])
writer = world.writer()
world.recover(writer)
print("ready", flush=True)
n = int(sys.argv[4])
while True:
    n += 1
    assert "error" not in world.commit_text(writer, f"n{n}")
"""
KILLS = int(os.environ.get("AGENT_KILLS", "8"))


@pytest.mark.timeout(60 + 2 * KILLS)
@pytest.mark.parametrize("commit", ["files", "dir"])
def test_killed_at_random_no_partial_file_and_no_mixed_set(tmp_path: Path, commit: str) -> None:
    world = World(tmp_path, commit)
    writer = world.writer()
    world.recover(writer)
    world.commit_text(writer, "n0")
    chance = random.Random(7)
    path = ":".join([*sys.path, os.path.dirname(__file__)])
    mixed_before_recovery = 0
    for kill in range(KILLS // 2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, str(tmp_path), commit, str(kill * 1000)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(chance.random() * 0.05)
            child.send_signal(signal.SIGKILL)
            child.wait()
        if commit == "dir":
            assert len(world.texts()) == 1  # never mixed, not even for a moment
        else:
            mixed_before_recovery += len(world.texts()) > 1
        for place, name in enumerate(NAMES):
            base = world.root / "managed" / "current" if world.dir else world.root
            lines = (base / name).read_text().splitlines()
            assert len(lines) == 20  # whole, always
            assert all(line.endswith(f" of {place}") for line in lines)
        writer = world.writer()
        world.recover(writer)
        assert len(world.texts()) == 1
        assert world.strays() == []
        assert writer.handle({"op": "scan", "set": "s"})["found"] == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"files": 3}', '{"generation": "x"}', '{"swap": 1}', '{"generation": true}'],
)
def test_a_damaged_record_is_an_empty_one(text: str) -> None:
    assert parse_record("web", text.encode()) == Record("web")
