"""A disk in memory that knows what is in the page cache and what is durable.

``SimDisk`` implements ``storage.disk.Disk``. It writes down every operation; ``replay`` runs a
prefix of them again, and ``crash_images`` lists the directories that a power loss after that
prefix may leave: names applied in part, un-synced sectors written in part. Faults are injected by
operation number: an ``OSError``, or a sync that fails and marks its pages clean.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

SECTOR = 512

Image = dict[str, bytes]


class Op(NamedTuple):
    """One operation: kind, name or inode number, and what it needs."""

    kind: str  # create, write, sync, rename, unlink, sync_dir
    name: str = ""
    other: str = ""
    inode: int = 0
    offset: int = 0
    data: bytes = b""


@dataclass
class Inode:
    live: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    dirty: set[int] = field(default_factory=set)  # sectors written since the last sync

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.live):
            self.live.extend(bytes(end - len(self.live)))
        self.live[offset:end] = data
        self.dirty.update(range(offset // SECTOR, -(-end // SECTOR)))

    def sync(self) -> None:
        self.durable = bytes(self.live)
        self.dirty.clear()

    def with_sectors(self, sectors: Iterator[int] | set[int] | list[int]) -> bytes:
        """The durable content, with some of the dirty sectors as they were last written."""
        out = bytearray(self.durable)
        for sector in sectors:
            start = sector * SECTOR
            part = self.live[start : start + SECTOR]
            if start + len(part) > len(out):
                out.extend(bytes(start + len(part) - len(out)))
            out[start : start + len(part)] = part
        return bytes(out)


class State:
    """Directory and inodes; operations change it."""

    def __init__(self, image: Image | None = None) -> None:
        self.inodes: dict[int, Inode] = {}
        self.live: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.pending: list[Op] = []  # of names, since the last directory sync
        for number, (name, content) in enumerate(sorted((image or {}).items()), start=1):
            self.inodes[number] = Inode(bytearray(content), content)
            self.live[name] = number
        self.durable = dict(self.live)

    def apply(self, op: Op) -> None:
        if op.kind == "create":
            self.inodes[op.inode] = Inode()
        elif op.kind == "write":
            self.inodes[op.inode].write(op.offset, op.data)
            return
        elif op.kind == "sync":
            self.inodes[op.inode].sync()
            return
        elif op.kind == "clean":  # a failed sync: the pages count as written, and are not
            self.inodes[op.inode].dirty.clear()
            return
        if op.kind == "sync_dir":
            self.durable = dict(self.live)
            self.pending.clear()
            return
        name_op(self.live, op)
        self.pending.append(op)


def name_op(names: dict[str, int], op: Op) -> None:
    """Apply an operation on names; one whose source was lost is lost too."""
    if op.kind == "create":
        names[op.name] = op.inode
    elif op.kind == "rename":
        if op.name in names:
            names[op.other] = names.pop(op.name)
    elif op.kind == "unlink":
        names.pop(op.name, None)


class SimFile:
    def __init__(self, disk: SimDisk, inode: int) -> None:
        self._disk = disk
        self._inode = inode
        self.closed = False

    def pwrite(self, data: bytes, offset: int) -> None:
        assert not self.closed
        self._disk.do(Op("write", inode=self._inode, offset=offset, data=bytes(data)))

    def pread(self, length: int, offset: int) -> bytes:
        assert not self.closed
        return bytes(self._disk.state.inodes[self._inode].live[offset : offset + length])

    def sync(self) -> None:
        assert not self.closed
        self._disk.do(Op("sync", inode=self._inode))

    def size(self) -> int:
        return len(self._disk.state.inodes[self._inode].live)

    def close(self) -> None:
        self.closed = True


class SimDisk:
    """One directory. ``note`` is called before each operation is recorded."""

    def __init__(self, image: Image | None = None, *, record: bool = True) -> None:
        self.state = State(image)
        self.start: Image = dict(image or {})
        self.trace: list[Op] = []
        self.record = record
        self.note: Callable[[], None] = lambda: None
        self.fail_at: int | None = None  # number of the operation that fails, from 0
        self.fail_errno = errno.EIO
        self.done = 0
        self.locked = False
        self.free = 1 << 40

    def do(self, op: Op) -> None:
        if self.fail_at == self.done:
            self.done += 1
            if op.kind == "sync":
                self.state.apply(op._replace(kind="clean"))
            raise OSError(self.fail_errno, os.strerror(self.fail_errno))
        self.done += 1
        if self.record:
            self.note()
            self.trace.append(op)
        self.state.apply(op)

    def lock(self) -> bool:
        if self.locked:
            return False
        self.locked = True
        return True

    def close(self) -> None:
        self.locked = False

    def open(self, name: str) -> SimFile:
        if name not in self.state.live:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return SimFile(self, self.state.live[name])

    def create(self, name: str) -> SimFile:
        inode = max(self.state.inodes, default=0) + 1
        self.do(Op("create", name=name, inode=inode))
        return SimFile(self, inode)

    def rename(self, old: str, new: str) -> None:
        assert old in self.state.live, old
        self.do(Op("rename", name=old, other=new))

    def unlink(self, name: str) -> None:
        assert name in self.state.live, name
        self.do(Op("unlink", name=name))

    def sync_dir(self) -> None:
        self.do(Op("sync_dir"))

    def names(self) -> list[str]:
        return sorted(self.state.live)

    def free_bytes(self) -> int:
        return self.free

    def image(self) -> Image:
        """What a process that was killed leaves: the page cache survives."""
        return {n: bytes(self.state.inodes[i].live) for n, i in self.state.live.items()}

    def durable_image(self) -> Image:
        """What a power loss leaves at the least."""
        state = self.state
        return {n: state.inodes[i].durable for n, i in state.durable.items()}


# --- images of a power loss ----------------------------------------------------------------------


def crash_images(
    state: State, random: Random, samples: int, exhaustive: int = 6
) -> Iterator[Image]:
    """Directories that a power loss in ``state`` may leave, each once.

    Names: every prefix of the pending operations, and every subset of up to four. Content: every
    subset of up to ``exhaustive`` un-synced sectors of a file, else none, all, torn at
    4 KiB and 512 B, each one missing or alone, and ``samples`` random subsets.
    """
    seen: set[int] = set()
    for names in name_choices(state):
        dirty = sorted({i for i in names.values() if state.inodes[i].dirty})
        options = [
            list(sector_choices(state.inodes[i], random, samples, exhaustive)) for i in dirty
        ]
        for chosen in itertools.product(*options):
            content = dict(zip(dirty, chosen, strict=True))
            image = {n: content.get(i, state.inodes[i].durable) for n, i in names.items()}
            mark = hash(tuple(sorted(image.items())))
            if mark not in seen:
                seen.add(mark)
                yield image


def name_choices(state: State) -> Iterator[dict[str, int]]:
    pending = state.pending
    if len(pending) <= 4:
        picks = [p for n in range(len(pending) + 1) for p in itertools.combinations(pending, n)]
    else:
        picks = [tuple(pending[:n]) for n in range(len(pending) + 1)]
    for pick in picks:
        names = dict(state.durable)
        for op in pick:
            name_op(names, op)
        yield names


def sector_choices(inode: Inode, random: Random, samples: int, exhaustive: int) -> Iterator[bytes]:
    dirty = sorted(inode.dirty)
    if len(dirty) <= exhaustive:
        for count in range(len(dirty) + 1):
            for chosen in itertools.combinations(dirty, count):
                yield inode.with_sectors(list(chosen))
        return
    yield inode.durable
    yield inode.with_sectors(dirty)
    pages = sorted({s * SECTOR // 4096 for s in dirty})
    for page in pages[:: max(1, len(pages) // 4)]:  # one page of 4 KiB missing, or alone
        yield inode.with_sectors([s for s in dirty if s * SECTOR // 4096 != page])
        yield inode.with_sectors([s for s in dirty if s * SECTOR // 4096 == page])
    edges = dirty[:8] + dirty[-8:]
    for sector in edges:
        yield inode.with_sectors([s for s in dirty if s < sector])
        yield inode.with_sectors([s for s in dirty if s != sector])
    for _ in range(samples):
        yield inode.with_sectors([s for s in dirty if random.random() < 0.5])
