"""Damaged images of one small history database, and what becomes of each.

An image is the undamaged file with one bit turned or one page zeroed. It is opened as a start does
it, then asked as clients ask it, then verified as an auditor does it:

  * ``refused``: the start or a read ended with an error;
  * ``equal``: every answer was that of the undamaged file, and the verifier said so;
  * ``told``: an answer differed, and the verifier found the damage;
  * ``wrong``: an answer differed, and nothing told. There must be none.

Anything that ends otherwise than by one of ``REFUSALS`` is a surprise, and raised.
``test_history_damage`` takes a sample, ``run`` (``make damage``) as many as asked for. For every
single bit there is a smaller file (``SMALL``): fewer changes, SQLite's smallest pages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

from sqlalchemy.exc import SQLAlchemyError

from configsvc.apply import commands as c
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.merkle import root_of
from configsvc.audit.verify import Verdict, verify_log
from configsvc.errors import ConfigServiceError, InvariantViolationError
from configsvc.limits import HISTORY_PAGE_BYTES
from configsvc.mvcc.messages import RangeOp
from configsvc.runtime.restore import read_stored
from configsvc.storage.history import engine
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import KeySpan
from tests.unit.apply.apply_world import ADA, MEMBERS, ROOT, SYSTEM, World, delete, put

IDENTITY = StoreIdentity(cluster_id=2**64 - 5, member_id=2**63 + 7, store_id=bytes(range(16)))
EVERYTHING = KeySpan(b"\0", b"\0")
# What damage may end with.
REFUSALS = (ConfigServiceError, InvariantViolationError, SQLAlchemyError, sqlite3.Error)


class Size(NamedTuple):
    """Of a case: how many puts it has, and the bytes of a page."""

    puts: int = 40
    page: int = HISTORY_PAGE_BYTES


SMALL = Size(puts=4, page=512)


class Damage(NamedTuple):
    """``bit`` of the byte at ``offset`` turned; ``bit`` 8: the whole page at ``offset`` zeroed."""

    offset: int
    bit: int

    def done_to(self, whole: bytes, page: int) -> bytes:
        data = bytearray(whole)
        if self.bit == 8:
            data[self.offset : self.offset + page] = bytes(page)
        else:
            data[self.offset] ^= 1 << self.bit
        return bytes(data)


class Found(NamedTuple):
    """What became of an image, and by what it was noticed."""

    outcome: str
    why: str


class Case:
    """A small history with changes of every kind, and what it answers when it is whole."""

    def __init__(self, folder: Path, size: Size = Size()) -> None:  # noqa: B008
        folder.chmod(0o700)
        self._path = folder / "history.db"
        self.key_file = KeyFile.create(folder / "key")
        world = _small_world(size.puts)
        with mock.patch.object(engine, "HISTORY_PAGE_BYTES", size.page):
            history = History.open(self._path, IDENTITY, self.key_file, create=True)
        for at in range(0, len(world.effects), 9):
            history.write(world.effects[at : at + 9])
        history.close()
        leaves = [effect.leaf for effect in world.effects if effect.commit]
        self._head = Checkpoint("corp/1/audit/0", len(leaves), root_of(leaves))
        self._revision = world.state.store.revision
        self.whole = self._path.read_bytes()
        self.page = int.from_bytes(self.whole[16:18], "big")
        assert self.page == size.page
        self.answers = self.start() | self._asked()
        assert self._verified() is Verdict.INTACT

    def at(self, folder: Path) -> Case:
        """The same case with its images elsewhere, for another process."""
        folder.mkdir(mode=0o700)
        other = copy(self)
        other._path = folder / "history.db"
        other._path.touch(mode=0o600)
        other._path.write_bytes(self.whole)
        assert other.start() | other._asked() == self.answers
        return other

    def judge(self, damage: Damage) -> Found:
        """Put the image there, and ask it everything."""
        self.put(damage)
        try:
            answers = self.start() | self._asked()
        except REFUSALS as error:
            return Found("refused", type(error).__name__)
        try:
            intact = self._verified() is Verdict.INTACT
        except REFUSALS:
            intact = False
        if answers == self.answers:
            return Found("equal" if intact else "refused", "" if intact else "verifier")
        differs = [name for name in answers if answers[name] != self.answers[name]]
        return Found("wrong" if intact else "told", ", ".join(differs))

    def put(self, damage: Damage) -> None:
        """Put the image where the database lies."""
        for side in ("-wal", "-shm"):
            Path(f"{self._path}{side}").unlink(missing_ok=True)
        self._path.write_bytes(damage.done_to(self.whole, self.page))

    # --- what is asked ----------------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """All that a start takes out of the database."""
        history = History.open(self._path, IDENTITY, self.key_file, create=False)
        try:
            stored = read_stored(history)._asdict()
            # How often it was opened is nobody's answer.
            stored["meta"] = stored["meta"]._replace(owner_epoch=0)
            found = stored | {"live": list(history.load_live()), "root": history.tree_root()}
            history.close()
        except BaseException:
            history.abandon()
            raise
        return found

    def _asked(self) -> dict[str, Any]:
        """All that clients read from it, every old revision included."""
        reader = HistoryReader(self._path, IDENTITY, self.key_file)
        try:
            whole = RangeOp(EVERYTHING)
            return {
                "range": [reader.range_at(whole, at) for at in range(2, self._revision + 1)],
                "events": reader.events(EVERYTHING, 2, self._revision, 1000),
                "log": reader.key_history(EVERYTHING, limit=1000),
                "blame": reader.blame(EVERYTHING),
                "hash": reader.hash_kv(self._revision, 0),
            }
        finally:
            reader.close()

    def _verified(self) -> Verdict:
        reader = HistoryReader(self._path, IDENTITY, self.key_file)
        try:
            entries = reader.verify_entries(0, self._head.size)
            return verify_log(entries, reader.actors(), self._head).verdict
        finally:
            reader.close()


def damages(case: Case, chance: Random, bits: int) -> Iterator[Damage]:
    """Every page zeroed, and so many bits turned; 0: every bit, in order."""
    for offset in range(0, len(case.whole), case.page):
        yield Damage(offset, 8)
    if not bits:
        for bit in range(8 * len(case.whole)):
            yield Damage(*divmod(bit, 8))
    for _ in range(bits):
        yield Damage(chance.randrange(len(case.whole)), chance.randrange(8))


@contextmanager
def one_query_cache() -> Iterator[None]:
    """Engines share what they compiled: an image opens five, and compiling was half of its time."""
    real, compiled, dialects = engine.create_engine, dict[Any, Any](), list[Any]()

    def create(*args: Any, **options: Any) -> Any:
        made = real(*args, **options, execution_options={"compiled_cache": compiled})
        if not dialects:
            with real("sqlite://").connect() as first:  # which is what fills the dialect in
                dialects.append(first.dialect)
        made.dialect = dialects[0]  # the cache goes by it
        return made

    with mock.patch.object(engine, "create_engine", create):
        yield


def _small_world(puts: int) -> World:
    """Puts, deletes, a transaction, a refusal, a lease and rows in the small tables."""
    world = World()
    world.user(ADA, (2, b"/app/", b"/app0"))
    world.ok(ADA, c.LeaseGrantOp(30, 7))
    for number in range(puts):
        world.ok(ADA, put(b"/app/%d" % (number % 6), b"v%d" % number, lease=7 * (number % 3 == 0)))
    world.ok(ADA, delete(b"/app/1", b"/app/2"), reason="cleaning", ticket="T-1")
    world.refused(ADA, put(b"/secret", b"x"))
    world.ok(SYSTEM, c.SigningKeyOp("k1", "log", MEMBERS[0], b"p" * 32, "pending"))
    world.ok(ROOT, c.RevokeOp("serial", "ab", 0))
    world.ok(ROOT, put(b"/b", b"2"))
    return world
