"""The verifier: an honest log is intact, every alteration is found and named (TE-7, TE-13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.audit.changes import split_records
from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.leaf import decode_leaf, encode_leaf
from configsvc.audit.merkle import root_of
from configsvc.audit.verify import ActorRow, Anchor, Entry, Report, Verdict, verify_log
from tests.support.audit_cases import HANA, HOME, ORIGIN, Log, sample

LOG = sample()
ALL = LOG.entries
ROWS = tuple(ALL[5].rows or ())
GONE = [*ALL[:3], *ALL[4:]]
DOUBLED = [*ALL[:3], ALL[2], *ALL[3:]]
SWAPPED = [*ALL[:3], ALL[4], ALL[3], *ALL[5:]]


def verify(
    entries: list[Entry] | None = None,
    *,
    resigned: bool = False,
    actors: dict[bytes, ActorRow] | None = None,
    **more: Any,
) -> Report:
    """``resigned``: whoever altered the log could also sign it again, so only the rules speak."""
    entries = LOG.entries if entries is None else entries
    head = LOG.checkpoint()
    if resigned:
        head = Checkpoint(ORIGIN, len(entries), root_of(entry.leaf for entry in entries))
    return verify_log(entries, LOG.actors if actors is None else actors, head, **more)


def altered(at: int, /, **parts: Any) -> list[Entry]:
    return [e._replace(**parts) if e.seq == at else e for e in LOG.entries]


def releafed(at: int, /, **fields: Any) -> list[Entry]:
    found = decode_leaf(LOG.entries[at].leaf)
    del found["v"]
    return altered(at, leaf=encode_leaf({**found, **fields}), columns=None)


def test_an_honest_log_is_intact() -> None:
    report = verify()
    assert (report.verdict, report.problem, report.bad_seq) == (Verdict.INTACT, "", -1)
    assert report.leaves == len(LOG.entries)
    assert report.revisions == 6
    assert report.anchors == (Anchor(9, "test/local/1", 4, bytes(32)),)


@pytest.mark.parametrize("size", range(12))
def test_every_earlier_head_is_consistent(size: int) -> None:
    leaves = [entry.leaf for entry in LOG.entries[:size]]
    older = Checkpoint(ORIGIN, size, root_of(leaves))
    if size <= len(LOG.entries):
        assert verify(older=older).verdict is Verdict.INTACT
        wrong = verify(older=older._replace(root=bytes(32)))
        assert wrong.verdict is Verdict.TAMPERED
        assert wrong.bad_seq == size - 1
        assert verify_log(LOG.entries, LOG.actors, older).leaves == size


@pytest.mark.parametrize("seq", range(len(LOG.entries)))
def test_a_changed_leaf_is_found_where_it_is(seq: int) -> None:
    report = verify(releafed(seq, request_id=99))
    assert report.verdict is Verdict.TAMPERED
    # Only the signed head knows: its size is the whole log.
    assert report.bad_seq == len(LOG.entries) - 1
    older = [
        Checkpoint(ORIGIN, seq + 1, root_of(entry.leaf for entry in LOG.entries[: seq + 1])),
    ]
    assert verify(releafed(seq, request_id=99), older=older[0]).bad_seq == seq


def row(seq: int, at: int = 0, /, **parts: Any) -> list[Entry]:
    rows = list(LOG.entries[seq].rows or ())
    rows[at] = rows[at]._replace(**parts)
    return altered(seq, rows=tuple(rows))


@pytest.mark.parametrize(
    ("make", "seq", "what"),
    [
        pytest.param(
            lambda: row(1, value=b"six"), 1, "value differs from its commitment", id="value"
        ),
        pytest.param(lambda: row(1, value=b"longer"), 1, "another length", id="length"),
        pytest.param(lambda: row(1, key=b"/z"), 1, "key differs", id="key"),
        pytest.param(lambda: row(1, lease=4), 1, "lease differs", id="lease"),
        pytest.param(lambda: row(1, tombstone=True), 1, "kind differs", id="kind"),
        pytest.param(lambda: row(1, revision=9), 1, "out of place", id="revision"),
        pytest.param(lambda: row(3, key=b"/b" * 599), 3, "key differs", id="long-key"),
        pytest.param(lambda: row(5, 1, value=b"x"), 5, "another length", id="txn-value"),
        pytest.param(lambda: row(5, 2, tombstone=False), 5, "kind differs", id="txn-delete"),
        pytest.param(lambda: altered(5, rows=ROWS[:2]), 5, "2 revision rows", id="row-gone"),
        pytest.param(lambda: altered(5, rows=ROWS[::-1]), 5, "out of place", id="row-order"),
        pytest.param(
            lambda: altered(4, rows=LOG.entries[1].rows),
            4,
            "1 revision rows",
            id="row-of-a-refusal",
        ),
        pytest.param(lambda: altered(8, rows=()), 8, "0 revision rows", id="delete-row-gone"),
        pytest.param(lambda: altered(5, changes=b""), 5, "not the leaf's count", id="records-gone"),
        pytest.param(lambda: altered(1, changes=b"\0\0"), 1, "leaf has none", id="records-added"),
        pytest.param(
            lambda: altered(5, changes=b"\0\0" * 3), 5, "differ from their root", id="records"
        ),
        pytest.param(lambda: altered(5, changes=b"\xff"), 5, "cut", id="records-cut"),
    ],
)
def test_te7_rows_must_be_what_was_committed_to(
    make: Callable[[], list[Entry]], seq: int, what: str
) -> None:
    report = verify(make())
    assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, seq)
    assert what in report.problem


def opening(seq: int, **parts: Any) -> list[Entry]:
    held = LOG.entries[seq].opening
    assert held is not None
    return altered(seq, opening=held._replace(**parts))


@pytest.mark.parametrize(
    ("make", "seq", "what"),
    [
        pytest.param(lambda: opening(2, reason="other"), 2, "reason", id="reason"),
        pytest.param(lambda: opening(2, ticket=""), 2, "ticket", id="ticket-gone"),
        pytest.param(lambda: opening(1, reason="added"), 1, "reason", id="reason-added"),
        pytest.param(lambda: opening(1, salt=bytes(32)), 1, "commitment", id="salt"),
    ],
)
def test_openings_must_fit(make: Callable[[], list[Entry]], seq: int, what: str) -> None:
    report = verify(make())
    assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, seq)
    assert what in report.problem


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("raft_index", 99),
        ("raft_term", 99),
        ("revision", 99),
        ("time_ns", 1),
        ("event", "kv.delete"),
        ("actor", bytes(32)),
        ("outcome", "UNKNOWN"),
    ],
)
def test_columns_must_not_lie(column: str, value: Any) -> None:
    held = LOG.entries[1].columns
    assert held is not None
    report = verify(altered(1, columns=held._replace(**{column: value})))
    assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, 1)
    assert f"column {column}" in report.problem


@pytest.mark.parametrize(
    ("make", "seq", "what"),
    [
        pytest.param(lambda: releafed(2, seq=7), 2, "another seq", id="seq"),
        pytest.param(lambda: releafed(2, raft_index=2), 2, "raft_index goes back", id="index"),
        pytest.param(lambda: releafed(2, raft_term=1), 2, "raft_term goes back", id="term"),
        pytest.param(lambda: releafed(2, time_ns=5), 2, "time_ns goes back", id="time"),
        pytest.param(lambda: releafed(2, revision=7), 2, "out of place", id="revision-jump"),
        pytest.param(
            lambda: releafed(6, revision=9), 6, "revision 9 where 5 follows", id="revision-none"
        ),
        pytest.param(lambda: releafed(2, event=9999), 2, "unknown event", id="event"),
        pytest.param(lambda: releafed(2, code=77), 2, "unknown event or code", id="code"),
        pytest.param(lambda: releafed(2, actor=None), 2, "no actor", id="no-actor"),
        pytest.param(lambda: releafed(2, length=9), 2, "another length", id="length"),
        pytest.param(lambda: releafed(2, commit=bytes(32)), 2, "commitment", id="commit"),
        pytest.param(lambda: releafed(2, prev_commit=bytes(32)), 2, "value before", id="prev"),
        pytest.param(lambda: releafed(2, prev_mod_rev=1), 2, "another revision", id="prev-mod"),
        pytest.param(
            lambda: releafed(1, prev_commit=bytes(32), prev_mod_rev=1),
            1,
            "value before",
            id="prev-made-up",
        ),
        pytest.param(lambda: releafed(9, digest=None), 9, "no root", id="anchor"),
        pytest.param(lambda: altered(2, leaf=LOG.entries[2].leaf[:-1]), 2, "cut", id="cut-leaf"),
        pytest.param(lambda: GONE, 4, "leaf 3 is missing", id="deleted"),
        pytest.param(lambda: DOUBLED, 2, "leaf 3 is missing", id="doubled"),
        pytest.param(lambda: SWAPPED, 4, "missing", id="swapped"),
    ],
)
def test_rules_hold_even_for_whoever_can_sign(
    make: Callable[[], list[Entry]], seq: int, what: str
) -> None:
    report = verify(make(), resigned=True)
    assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, seq)
    assert what in report.problem


def test_change_records_must_be_in_order_even_under_a_new_root() -> None:
    records = list(split_records(LOG.entries[5].changes))[::-1]
    stored = b"".join(len(record).to_bytes(2, "big") + record for record in records)
    entries = [
        entry._replace(changes=stored) if entry.seq == 5 else entry
        for entry in releafed(5, root=root_of(records))
    ]
    report = verify(entries, resigned=True)
    assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, 5)
    assert "out of order" in report.problem


def test_revisions_are_contiguous_even_where_rows_are_gone() -> None:
    entries = [entry._replace(rows=None) for entry in releafed(2, revision=7)]
    report = verify(entries, resigned=True)
    assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, 2)
    assert report.problem == "revision 7 where 3 follows"


def test_a_local_stream_that_goes_back_is_found() -> None:
    log = sample()
    log.event("audit.anchor", object="test/local/1", size=3, digest=bytes(32))
    report = verify_log(log.entries, log.actors, log.checkpoint())
    assert report.verdict is Verdict.TAMPERED
    assert "test/local/1 goes back" in report.problem
    log = sample()
    log.event("audit.anchor", object="test/local/1", size=4, digest=b"\1" * 32)
    assert verify_log(log.entries, log.actors, log.checkpoint()).verdict is Verdict.TAMPERED


def test_actors_must_be_what_the_hash_says() -> None:
    hashed, held = next(iter(LOG.actors.items()))
    for bad in (held._replace(salt=bytes(32)), held._replace(record=held.record + b"x")):
        report = verify(actors={hashed: bad})
        assert (report.verdict, report.bad_seq) == (Verdict.TAMPERED, 0)
        assert "actor record" in report.problem


@pytest.mark.parametrize(
    ("make", "missing"),
    [
        pytest.param(lambda: LOG.entries[:-2], {"leaves": 2}, id="end"),
        pytest.param(list, {"leaves": 11}, id="everything"),
        pytest.param(lambda: altered(5, rows=None), {"revisions with rows and salt": 1}, id="rows"),
        pytest.param(
            lambda: altered(1, opening=None),
            {"openings": 1, "revisions with rows and salt": 1},
            id="opening",
        ),
    ],
)
def test_what_is_not_there_is_incomplete_not_intact(
    make: Callable[[], list[Entry]], missing: dict[str, int]
) -> None:
    report = verify(make())
    assert (report.verdict, report.bad_seq) == (Verdict.INCOMPLETE, -1)
    assert report.missing == missing
    assert "not held" in report.problem


def test_missing_actor_records_are_incomplete() -> None:
    assert verify(actors={}).missing == {"actor records": len(LOG.entries)}


def test_other_origins_and_longer_heads_are_refused() -> None:
    head = LOG.checkpoint()
    assert verify(older=head._replace(origin="other")).verdict is Verdict.TAMPERED
    assert verify(older=head._replace(size=99)).verdict is Verdict.TAMPERED


def test_v5_whatever_goes_wrong_is_never_ok() -> None:
    def broken() -> Iterator[Entry]:
        yield LOG.entries[0]
        raise RuntimeError("disk")

    report = verify_log(broken(), LOG.actors, LOG.checkpoint())
    assert (report.verdict, report.problem) == (Verdict.INTERNAL, "verifier failed: RuntimeError")
    garbage: Any = [None]
    assert verify_log(garbage, {}, LOG.checkpoint()).verdict is Verdict.INTERNAL
    nothing: Any = None
    assert verify_log(nothing, {}, LOG.checkpoint()).verdict is Verdict.INTERNAL


def test_a_stream_that_starts_after_a_restore() -> None:
    log = Log()
    log.revision = 41
    log.live[b"/a"] = (17, b"before the restore")
    log.put(b"/a", b"one")
    head = log.checkpoint()
    assert verify_log(log.entries, log.actors, head, first_revision=42).verdict is Verdict.INTACT
    assert verify_log(log.entries, log.actors, head).verdict is Verdict.TAMPERED


def test_a_local_stream_makes_no_revisions_and_its_time_may_stand() -> None:
    log = Log()
    for code in ("OK", "PERMISSION_DENIED"):
        envelope = log.envelope(time_ns=5, principal=HANA, source=HOME)
        leaf, values = log.recorder.record(envelope, (0, 0, 7, 1, 1), "authz.denied", code=code)
        log._keep(envelope, leaf, values, ())
    assert verify_log(log.entries, log.actors, log.checkpoint()).verdict is Verdict.INTACT


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=4)),
        st.tuples(st.just("delete"), st.sampled_from([b"a", b"b", b"c"]), st.just(b"")),
        st.tuples(st.just("txn"), st.sampled_from([b"a", b"b", b"c"]), st.binary(max_size=4)),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(plan=steps, data=st.data())
def test_any_honest_log_is_intact_and_any_changed_byte_is_found(
    plan: list[tuple[str, bytes, bytes]], data: st.DataObject
) -> None:
    log = Log()
    log.event("bootstrap")
    for kind, key, value in plan:
        if kind == "put":
            log.put(key, value)
        elif kind == "txn":
            log.txn((key, value), (b"z", value))
        elif key in log.live:
            log.delete(key)
    head = log.checkpoint()
    assert verify_log(log.entries, log.actors, head).verdict is Verdict.INTACT
    seq = data.draw(st.integers(0, len(log.entries) - 1))
    leaf = bytearray(log.entries[seq].leaf)
    at = data.draw(st.integers(0, len(leaf) - 1))
    leaf[at] ^= data.draw(st.integers(1, 255))
    log.entries[seq] = log.entries[seq]._replace(leaf=bytes(leaf))
    assert verify_log(log.entries, log.actors, head).verdict is Verdict.TAMPERED
