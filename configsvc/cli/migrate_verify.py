"""``migrate verify``: both sides compared by a hash per prefix.

The hash is SHA-256 over key, value and lease id of every key in order, each with its length
before it. Both sides are read at one revision of their own each. Always true: equal hashes are
reported for equal contents only; revisions and versions are not compared, they are never carried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import closing
from typing import Any

from configsvc import limits
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.migrate_ends import Ends, Span
from configsvc.cli.migrate_pages import Pair, merge, read
from configsvc.cli.migrate_progress import Progress, counted
from configsvc.client import operations
from configsvc.proto import kv_pb2


def prefix_of(key: bytes, depth: int) -> bytes:
    """The first ``depth`` parts of a key, up to and with the slash; depth 0: one group of all."""
    if depth == 0:
        return b""
    at = -1 if not key.startswith(b"/") else 0
    for _ in range(depth):
        at = key.find(b"/", at + 1)
        if at < 0:
            return key[: key.rfind(b"/") + 1]
    return key[: at + 1]


class Side:
    """One side of a group, as it is read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.keys = 0

    def add(self, kv: kv_pb2.KeyValue) -> None:
        """Take the next key."""
        self.keys += 1
        for part in (kv.key, kv.value):
            self._hash.update(len(part).to_bytes(8))
            self._hash.update(part)
        self._hash.update(kv.lease.to_bytes(8, signed=True))

    @property
    def hash(self) -> str:
        """In hex."""
        return self._hash.hexdigest()


class Group:
    """All keys under one prefix, on both sides."""

    def __init__(self) -> None:
        self.source, self.target = Side(), Side()
        self.differing = 0
        self.named: list[tuple[bytes, str]] = []

    def add(self, pair: Pair) -> None:
        """Take the next key."""
        if pair.source is not None:
            self.source.add(pair.source)
        if pair.target is not None:
            self.target.add(pair.target)
        word = difference(pair)
        if word:
            self.differing += 1
            if len(self.named) < limits.MIGRATE_SHOWN_MAX:
                self.named.append((pair.key, word))

    @property
    def same(self) -> bool:
        """Whether the hashes agree."""
        return self.source.hash == self.target.hash


def difference(pair: Pair) -> str:
    """In words, with etcd as the source; empty: none."""
    if pair.target is None:
        return "only in etcd"
    if pair.source is None:
        return "only in configsvc"
    if pair.source.value != pair.target.value:
        return "value"
    return "lease" if pair.source.lease != pair.target.lease else ""


class Compared:
    """The outcome: revisions and groups."""

    def __init__(self, revisions: tuple[int, int]) -> None:
        self.revisions = revisions
        self.groups: dict[bytes, Group] = {}
        self.keys = 0

    @property
    def same(self) -> bool:
        """Whether all groups agree."""
        return all(group.same for group in self.groups.values())

    def add(self, pair: Pair, depth: int) -> None:
        """Sort a key into its group.

        Raises:
            CliError: more groups than memory is meant for.
        """
        self.keys += 1
        prefix = prefix_of(pair.key, depth)
        group = self.groups.get(prefix)
        if group is None:
            if len(self.groups) >= limits.MIGRATE_PREFIXES_MAX:
                raise CliError(Exit.USAGE, "too many prefixes: take a smaller --depth")
            group = self.groups[prefix] = Group()
        group.add(pair)


def compare(ends: Ends, spans: list[Span], depth: int, progress: Progress) -> Compared:
    """Read both sides.

    Raises:
        CompactedError: a side compacted what was being read: do it again.
    """
    clients = ends.source.client, ends.target.client
    revisions = tuple(one.do(operations.range_(b"\0")).header.revision for one in clients)
    compared = Compared((revisions[0], revisions[1]))

    def pairs() -> Generator[Pair, None, None]:
        for span in spans:
            yield from merge(*(
                read(one, span, revision=revision)
                for one, revision in zip(clients, revisions, strict=True)
            ))  # fmt: skip

    with closing(pairs()) as every:
        for pair in every:
            compared.add(pair, depth)
            progress.step(lambda s: counted(compared.keys, 0, "keys compared", s))
    progress.end()
    return compared


def group_json(group: Group) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "same": group.same,
        "source": {"keys": group.source.keys, "sha256": group.source.hash},
        "target": {"keys": group.target.keys, "sha256": group.target.hash},
        "differing": group.differing,
    }
