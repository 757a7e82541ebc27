"""What apply makes, written, loaded and verified: the rooms meet in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from history_world import IDENTITY

from configsvc.apply import commands as c
from configsvc.apply.applier import Applier
from configsvc.apply.state import ApplyState
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.verify import Verdict, verify_log
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.messages import PutOp, RangeOp, TxnOp
from configsvc.mvcc.window import ROW_BYTES
from configsvc.runtime.restore import adopt, read_stored
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.sink import InstallSink
from configsvc.storage.snapshot.source import InstallSource
from configsvc.types import KeySpan
from tests.unit.apply.apply_world import ADA, MEMBERS, ROOT, SYSTEM, World, delete, put


def busy_world() -> World:
    """At least one row in every small table, changes of every kind, refusals."""
    world = World()
    world.user(ADA, (2, b"/app/", b"/app0"))
    world.ok(ADA, c.LeaseGrantOp(30, 7))
    for number in range(300):
        world.ok(ADA, put(b"/app/%d" % (number % 20), b"v%d" % number, lease=7 * (number % 3 == 0)))
        if number % 50 == 0:
            world.ok(ADA, delete(b"/app/1", b"/app/2"), reason="cleaning", ticket="T-1")
            world.refused(ADA, put(b"/secret", b"x"))
    both = (PutOp(b"/a", b"1"), PutOp(b"/b", b"2"), RangeOp(KeySpan(b"/a", b"/c")))
    world.ok(ROOT, TxnOp((), both, ()))
    world.entry(None)
    world.ok(SYSTEM, c.SigningKeyOp("k1", "log", MEMBERS[0], b"p" * 32, "pending"))
    world.ok(ROOT, c.RevokeOp("serial", "ab", 0))
    world.ok(ROOT, c.RevokeOp("serial", "cd", 0))
    world.ok(ROOT, c.UnrevokeOp("serial", "cd"))
    world.ok(SYSTEM, c.AlarmOp(True, MEMBERS[1], 1), accepted_by=MEMBERS[1])
    world.ok(SYSTEM, c.AuditAnchorOp(MEMBERS[0], "corp/1/local/11/0", 5, b"r" * 32))
    for member in MEMBERS[:2]:
        urls = (f"https://10.0.0.{member}:2379",)
        op = c.MemberAttributesOp(member, f"m{member}", urls, b"s" * 16, "0.1")
        world.ok(SYSTEM, op, accepted_by=member)
    world.ok(ROOT, c.MemberChangeOp("remove", MEMBERS[2], (), False))
    world.ok(ROOT, c.CompactOp(150))
    return world


@pytest.fixture(scope="module")
def world() -> World:
    return busy_world()


def stored(world: World, history: History) -> None:
    for at in range(0, len(world.effects), 37):
        history.write(world.effects[at : at + 37])


def loaded(history: History) -> ApplyState:
    """A state machine that starts from what SQL holds."""
    state = ApplyState()
    adopt(state, read_stored(history), history.load_live())
    return state


def test_q3_a_restarted_state_machine_goes_on_as_if_it_had_never_stopped(
    history: History, reopen: Callable[[], History]
) -> None:
    world = busy_world()
    stored(world, history)
    history.close()
    history = reopen()
    state = loaded(history)
    assert state.snapshot_tables() == world.state.snapshot_tables()
    assert state.store.live == world.store.live
    assert state.recorder.frontier.state() == world.state.recorder.frontier.state()
    again = Applier(state)
    for number in range(20):
        if number == 0:
            before = world.ok(ROOT, c.AlarmOp(False, MEMBERS[1], 1))
        else:
            before = world.ok(ADA, put(b"/app/%d" % number, b"after"))
        after = again.apply(state.applied + 1, world.term, world.log[-1])
        assert after == before


def test_an_installed_state_machine_is_the_senders(
    world: World, history: History, reader: HistoryReader, key_file, tmp_path: Path
) -> None:
    stored(world, history)
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    generations.prepare(directory)
    sink = InstallSink(directory, IDENTITY._replace(member_id=5), key_file, 1)
    for chunk in InstallSource(reader).chunks():
        sink.feed(chunk)
    sink.finish()
    state = loaded(sink.history)
    assert state.snapshot_tables() == world.state.snapshot_tables()
    assert state.store.live == world.store.live
    assert (state.digest, state.applied) == (world.state.digest, world.state.applied)
    sink.discard()


def test_the_superseded_size_is_the_windows(
    world: World, history: History, reader: HistoryReader
) -> None:
    stored(world, history)
    history.checkpoint()  # folds: live rows are the newest
    floor = world.store.compact_revision
    rows = [row for effect in world.effects for row in effect.rows if row.revision > floor]
    dead = [row for row in rows if _live_revision(world, row.key) != row.revision]
    expected = sum(ROW_BYTES + len(row.key) + len(row.value) for row in dead)
    living = LiveRows(history.load_live()).size_above(floor)
    assert history.window_bytes(floor, ROW_BYTES) - living == expected
    assert reader.window_bytes(floor, ROW_BYTES) - living == expected
    again = loaded(history).store.window
    assert again.total == again.live_bytes + expected


def _live_revision(world: World, key: bytes) -> int:
    kv = world.store.live.get(key)
    return kv.mod_revision if kv else 0


# --- the verifier on the database -----------------------------------------------------------------


def verdict(world: World, reader: HistoryReader):
    size, _ = world.state.recorder.frontier.state()
    head = Checkpoint("corp/1/audit/0", size, world.state.recorder.frontier.root())
    return verify_log(reader.verify_entries(0, size), reader.actors(), head)


def test_te7_an_untouched_history_is_intact(world: World, history: History, reader) -> None:
    stored(world, history)
    report = verdict(world, reader)
    assert (report.verdict, report.problem) == (Verdict.INTACT, "")
    assert report.revisions > 300


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("UPDATE commits SET leaf = (SELECT leaf FROM commits WHERE seq = 9) WHERE seq = 40", 40),
        ("UPDATE commits SET time_ns = time_ns + 1 WHERE seq = 41", 41),
        ("UPDATE commits SET outcome = 'PERMISSION_DENIED' WHERE seq = 42", 42),
        ("UPDATE commits SET event = 'kv.delete' WHERE seq = 43", 43),
        ("DELETE FROM commits WHERE seq = 44", 44),
        ("UPDATE actors SET record = record || x'00'", None),
        ("DELETE FROM revisions WHERE revision = 60", None),
        ("DELETE FROM commits WHERE seq >= 290", None),
    ],
)
def test_te7_an_edited_history_is_not(
    world: World, history: History, reader, statement: str, bad: int | None
) -> None:
    stored(world, history)
    if "||" in statement:
        statement = statement.replace("record || x'00'", "CAST(record || 'x' AS BLOB)")
    with sqlite3.connect(history.path) as raw:
        raw.execute(statement)
    raw.close()
    report = verdict(world, reader)
    assert report.verdict in (Verdict.TAMPERED, Verdict.INCOMPLETE)
    if bad is not None:
        assert report.verdict is Verdict.TAMPERED
        assert report.bad_seq in (bad, bad + 1), report


def test_te7_a_row_sealed_again_by_the_key_holder_is_found(
    world: World, history: History, reader, key_file, tmp_path: Path, template: Path
) -> None:
    """Whoever has the key can seal any value; the leaf's commitment still tells."""
    effects = list(world.effects)
    at = next(n for n, effect in enumerate(effects) if len(effect.rows) == 1 and n > 100)
    forged = effects[at].rows[0]._replace(value=b"forged")
    effects[at] = effects[at]._replace(rows=(forged,))
    history.write(effects)
    report = verdict(world, reader)
    assert report.verdict is Verdict.TAMPERED
    assert report.bad_seq == effects[at].commit.seq
