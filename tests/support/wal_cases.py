"""Logs for tests: small segments, counted entropy, a model of what must be recovered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from configsvc.codec.records import encode_entries
from configsvc.raft.messages import Entry, HardState
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.wal import Recovered, SqlApplied, Wal, WalOptions
from configsvc.types import LogIndex, NodeId, Term
from tests.support.simdisk import SimDisk

KEY = KeyFile(b"k" * 32, "/keys/kek")
OTHER_KEY = KeyFile(b"o" * 32, "/keys/new")
IDENTITY = WalIdentity(0xC1, 0xA1, b"store-id-16bytes")


class Counted:
    """Bytes that differ each time and are the same in each run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, length: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(4, "big") * (length // 4)


def options(segment_bytes: int = 16384) -> WalOptions:
    return WalOptions(segment_bytes, Counted())


def hard(term: int, vote: int = 0, commit: int = 0) -> HardState:
    return HardState(Term(term), NodeId(vote), LogIndex(commit))


def entry(index: int, term: int, size: int = 20) -> Entry:
    return Entry(Term(term), LogIndex(index), 0, (f"{index}.{term} ".encode() * size)[:size])


def run_of(first: int, count: int, term: int, size: int = 20) -> list[Entry]:
    return [entry(index, term, size) for index in range(first, first + count)]


class Model(NamedTuple):
    """A log as it should be, entry by entry; index 0 stands for "before the log"."""

    hard_state: HardState = HardState()
    base: int = 0  # last index that is no longer in the log
    base_term: int = 0
    entries: tuple[Entry, ...] = ()
    generation: int = 0

    def append(self, hard_state: HardState, entries: Sequence[Entry]) -> Model:
        if not entries:
            return self._replace(hard_state=hard_state)
        keep = entries[0].index - self.base - 1
        return self._replace(hard_state=hard_state, entries=(*self.entries[:keep], *entries))

    def install(self, hard_state: HardState, installed: Installed) -> Model:
        return Model(hard_state, installed.index, installed.term, (), installed.generation)

    @property
    def last(self) -> int:
        return self.base + len(self.entries)


def same_log(recovered: Recovered, model: Model, compacted: int) -> bool:
    """Whether the entries are ``model``'s, but for a head at or below ``compacted``."""
    if recovered.last_index != model.last or recovered.generation != model.generation:
        return False
    if recovered.first_index - 1 > max(compacted, model.base):
        return False
    terms = {model.base: model.base_term} | {e.index: e.term for e in model.entries}
    if recovered.first_prev_term != terms.get(recovered.first_index - 1, recovered.first_prev_term):
        return False
    known = {e.index: e for e in model.entries}
    return all(known.get(e.index, e) == e for e in recovered.entries) and all(
        e.index > model.base or e.index <= compacted for e in recovered.entries
    )


def same_promise(recovered: HardState, model: HardState) -> bool:
    return (recovered.term, recovered.vote) == (model.term, model.vote)


class Story:
    """Drives a log and keeps the model beside it.

    ``acked`` is what was durable when a call returned, ``target`` what a call under way writes,
    ``between`` what it may leave half done.
    """

    def __init__(self, disk: SimDisk, segment_bytes: int = 16384) -> None:
        self.disk = disk
        self.options = options(segment_bytes)
        self.acked = Model()
        self.target = Model()
        self.between: tuple[Model, ...] = ()
        self.compacted = 0
        self.created = False
        self.incarnation = 0
        self.wal: Wal

    def create(self) -> None:
        self.wal = Wal.create(self.disk, IDENTITY, KEY, options=self.options)
        self.created = True
        self.incarnation = self.wal.incarnation

    def reopen(self, *, clean: bool) -> Recovered:
        if clean:
            self.wal.close_clean()
        else:
            self.wal.close()
        self.wal, recovered = Wal.open(
            self.disk,
            KEY,
            expect=IDENTITY,
            older_keys=[OTHER_KEY],
            sql_applied=max(self.compacted, self.acked.base),
            options=self.options,
        )
        self.incarnation = self.wal.incarnation
        return recovered

    def append(self, hard_state: HardState, entries: Sequence[Entry] = ()) -> None:
        self.target = self.acked.append(hard_state, entries)
        if len(entries) > 1 and sum(len(e.data) for e in entries) > 3_900:
            # Too much for one frame of a small segment: frame after frame becomes durable.
            whole = [self.acked.append(hard_state, entries[:n]) for n in range(1, len(entries))]
            self.between = tuple(whole)
        first = entries[0].index if entries else 0
        blob = encode_entries(entries)
        self._do(lambda: self.wal.append(hard_state, first, len(entries), blob))

    def install(self, hard_state: HardState, installed: Installed) -> None:
        self.target = self.acked.install(hard_state, installed)
        self._do(lambda: self.wal.install(hard_state, installed))

    def compact(self, up_to: int) -> None:
        self.compacted = up_to
        self.wal.compact(up_to)

    def rewrap(self, between: Callable[[int], None] = lambda step: None) -> None:
        """Change the key; ``between`` is called after each step, as a running member writes on."""
        for step, _ in enumerate(self.wal.rewrapping(OTHER_KEY)):
            between(step)

    def seal(self) -> None:
        self.wal.seal_idle()

    def prepare(self) -> None:
        while self.wal.prepare_step():
            pass

    def _do(self, write: Callable[[], None]) -> None:
        write()
        self.acked, self.between = self.target, ()


def random_step(story: Story, random: Random) -> None:
    """Do one thing that a member could do now."""
    model = story.acked
    state = model.hard_state
    commit = max(model.base, min(state.commit, model.last))
    size = random.choice((5, 300, 1_500, 3_500))
    what = random.choice(
        ("append",) * 4 + ("supersede", "vote", "vote", "commit", "seal", "prepare", "install")
        + ("reopen", "rewrap")
    )  # fmt: skip
    if what == "append":
        fresh = run_of(model.last + 1, random.randint(1, 3), max(1, state.term), size)
        story.append(hard(max(1, state.term), state.vote, commit), fresh)
    elif what == "supersede":
        first = random.randint(commit, model.last) + 1
        term = state.term + 1
        story.append(hard(term, 0, commit), run_of(first, random.randint(1, 2), term, size))
    elif what == "vote":
        story.append(hard(state.term + 1, random.choice((0, 0xA1, 0xA2)), commit))
    elif what == "commit":
        commit = random.randint(commit, model.last)
        story.append(hard(state.term, state.vote, commit))
        story.compact(max(story.compacted, random.randint(model.base, commit)))
    elif what == "install":
        index = model.last + random.randint(1, 5)
        installed = Installed(index, max(1, state.term), b"conf", model.generation + 1)
        story.install(hard(max(1, state.term), state.vote, index), installed)
        story.compact(index)
    elif what == "reopen":
        story.reopen(clean=random.random() < 0.3)
    else:
        {"seal": story.seal, "prepare": story.prepare, "rewrap": story.rewrap}[what]()


def open_image(image: dict[str, bytes], sql_applied: SqlApplied) -> tuple[SimDisk, Recovered]:
    """Recover from a directory."""
    disk = SimDisk(image, record=False)
    wal, recovered = Wal.open(
        disk,
        KEY,
        expect=IDENTITY,
        older_keys=[OTHER_KEY],
        sql_applied=sql_applied,
        options=options(),
    )
    wal.close()
    return disk, recovered
