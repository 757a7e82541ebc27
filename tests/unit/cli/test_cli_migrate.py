"""The pure parts of ``migrate``: spans, merging, verdicts, events, groups, the state file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc import limits
from configsvc.cli.exits import CliError
from configsvc.cli.migrate_copy import Plan, Verdict, judge
from configsvc.cli.migrate_ends import EVERYTHING, in_spans, spans_of
from configsvc.cli.migrate_follow import change_of
from configsvc.cli.migrate_pages import Pair, merge, rest_of
from configsvc.cli.migrate_progress import Progress, counted
from configsvc.cli.migrate_rights import Rights, differences
from configsvc.cli.migrate_state import State, StateFile
from configsvc.cli.migrate_verify import Compared, prefix_of
from configsvc.cli.migrate_write import Change
from configsvc.proto import auth_pb2, kv_pb2
from configsvc.proto import rpc_pb2 as rpc

READ, WRITE = auth_pb2.Permission.READ, auth_pb2.Permission.WRITE
KEYS = st.lists(st.binary(min_size=1, max_size=3), unique=True, max_size=20).map(sorted)


def kv(key: bytes = b"k", value: bytes = b"v", lease: int = 0, **more: int) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(key=key, value=value, lease=lease, **more)


def test_spans() -> None:
    assert spans_of([]) == spans_of(["/a", ""]) == [EVERYTHING]
    assert spans_of(["/b", "/a/b", "/a"]) == [(b"/a", b"/b"), (b"/b", b"/c")]
    spans = spans_of(["/a/", "/c/"])
    assert in_spans(b"/a/x", spans)
    assert not in_spans(b"/b/x", spans)
    assert rest_of(spans, b"") == spans
    assert rest_of(spans, b"/a/x") == [(b"/a/x\0", b"/a0"), (b"/c/", b"/c0")]
    assert rest_of(spans, b"/b") == [(b"/c/", b"/c0")]
    assert rest_of([EVERYTHING], b"\xff") == [(b"\xff\0", b"\0")]


@given(KEYS, KEYS)
def test_merging_joins_by_key(ours: list[bytes], theirs: list[bytes]) -> None:
    pairs = list(merge(map(kv, ours), map(kv, theirs)))
    assert [pair.key for pair in pairs] == sorted({*ours, *theirs})
    for pair in pairs:
        assert (pair.source is not None) == (pair.key in ours)
        assert (pair.target is not None) == (pair.key in theirs)


@pytest.mark.parametrize(
    ("source", "target", "verdict"),
    [
        (kv(), kv(), Verdict.SAME),
        (kv(), None, Verdict.NEW),
        (kv(lease=1), kv(), Verdict.LEASE),
        (kv(value=b"w"), kv(), Verdict.OTHER),
        (None, kv(), Verdict.EXTRA),
        (kv(key=b"k" * (limits.KEY_BYTES_MAX + 1)), None, Verdict.TOO_LARGE),
        (kv(value=bytes(limits.REQUEST_BYTES_MAX)), None, Verdict.TOO_LARGE),
    ],
)
def test_verdicts(
    source: kv_pb2.KeyValue | None, target: kv_pb2.KeyValue | None, verdict: Verdict
) -> None:
    assert judge(Pair(b"k", source, target)) is verdict


def test_a_plan_refuses_what_is_in_the_way() -> None:
    plan = Plan()
    for n in range(limits.MIGRATE_SHOWN_MAX + 5):
        plan.add(Verdict.OTHER, b"k%d" % n)
    plan.add(Verdict.EXTRA, b"x")
    assert plan.seen == limits.MIGRATE_SHOWN_MAX + 5
    plan.check(overwrite=True)
    with pytest.raises(CliError, match=r"k0, .* and 5 more: --overwrite"):
        plan.check(overwrite=False)
    plan.add(Verdict.TOO_LARGE, b"large")
    with pytest.raises(CliError, match="too large"):
        plan.check(overwrite=True)


def test_events_become_guarded_changes() -> None:
    put, delete = kv_pb2.Event.PUT, kv_pb2.Event.DELETE
    made = kv(create_revision=7, mod_revision=7)
    change = change_of(kv_pb2.Event(type=put, kv=made), 0)
    assert change.guard is not None
    assert (change.guard.target, change.guard.version) == (rpc.Compare.VERSION, 0)
    changed = kv(create_revision=7, mod_revision=9)
    change = change_of(kv_pb2.Event(type=put, kv=changed, prev_kv=kv(value=b"old")), 5)
    assert change.guard is not None
    assert change.guard.value == change.before == b"old"
    assert change.lease == 5
    # Without the value before it (compacted) the writer has to look.
    assert change_of(kv_pb2.Event(type=put, kv=changed), 0).guard is None
    gone = change_of(kv_pb2.Event(type=delete, kv=kv(mod_revision=10)), 0)
    assert gone.value is None
    assert gone.guard is None


def test_what_counts_as_done() -> None:
    put = Change(b"k", b"v", 3, None, None)
    assert put.done(kv(lease=3))
    assert not put.done(kv())
    assert not put.done(None)
    delete = Change(b"k", None, 0, None, None)
    assert delete.done(None)
    assert not delete.done(kv())


@pytest.mark.parametrize(
    ("key", "depth", "prefix"),
    [
        (b"/a/b/c", 1, b"/a/"),
        (b"/a/b/c", 2, b"/a/b/"),
        (b"/a/b/c", 9, b"/a/b/"),
        (b"/a/b/c", 0, b""),
        (b"/a", 1, b"/"),
        (b"a/b", 1, b"a/"),
        (b"a", 1, b""),
        (b"//a", 1, b"//"),
    ],
)
def test_prefixes(key: bytes, depth: int, prefix: bytes) -> None:
    assert prefix_of(key, depth) == prefix
    assert key.startswith(prefix)


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), min_size=1, max_size=6))
def test_equal_hashes_mean_equal_contents(pairs: list[tuple[bytes, bytes]]) -> None:
    """Moving a byte between key and value, or dropping a key, changes the hash."""
    same, moved, fewer = Compared((1, 1)), Compared((1, 1)), Compared((1, 1))
    for at, (key, value) in enumerate(pairs):
        one = kv(key, value)
        same.add(Pair(key, one, one), 0)
        other = kv(key + value[:1], value[1:]) if value else kv(key, b"x")
        moved.add(Pair(key, one, other), 0)
        fewer.add(Pair(key, one, one if at else None), 0)
    assert same.same
    assert not moved.same
    assert not fewer.same
    assert fewer.groups[b""].named == [(pairs[0][0], "only in etcd")]


def test_rights_of_our_own_are_no_difference() -> None:
    etcd = Rights({"app": {(b"a", b"b"): READ}}, {"root": frozenset(), "dana": frozenset({"app"})})
    assert not differences(etcd, etcd)
    ours = Rights(
        {"app": {(b"a", b"b"): WRITE}, "operator": {}},
        {"root": frozenset({"root"}), "alice": frozenset()},
    )
    found = {one.what: (one.where, one.counts) for one in differences(etcd, ours)}
    assert found == {
        "role app": ("differs", True),
        "role operator": ("only in configsvc", False),
        "user dana": ("only in etcd", True),
        "user alice": ("only in configsvc", False),
    }


def test_the_state_file(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "deep" / "state.json")
    state = file.load(10, 11, ["/b", "/a"])
    assert state == State("a", "b", ["/a", "/b"])
    state.revision, state.last_key = 7, b"/a/\xff"
    file.save(state)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.load(10, 11, ["/a", "/b"]) == state
    for other in ((9, 11, ["/a", "/b"]), (10, 12, ["/a", "/b"]), (10, 11, [])):
        with pytest.raises(CliError, match="belongs to other"):
            file.load(*other)
    for text in ("", "[]", "{}", '{"format": 2}', '{"format": 1, "last_key": "!"}'):
        file.path.write_text(text)
        with pytest.raises(CliError, match="no state of a migration"):
            file.load(10, 11, [])
    with pytest.raises(CliError):
        StateFile(tmp_path).save(state)


def test_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    for second in range(12):
        now[0] = float(second)
        progress.step(lambda s: counted(int(s) * 1000, 40_000, "keys copied", s))
    progress.end()
    assert capsys.readouterr().err.splitlines() == [
        "5,000 of 40,000 keys copied, 1,000/s",
        "10,000 of 40,000 keys copied, 1,000/s",
    ]
