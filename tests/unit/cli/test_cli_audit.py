"""audit verify and what it needs: export, proof, keys, checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import StatusCode as Code

from configsvc.audit.checkpoint import Checkpoint
from configsvc.audit.merkle import root_of
from configsvc.cli import audit_online
from tests.support.audit_cases import Log, sample
from tests.support.cli_runner import Shell
from tests.support.fake_audit import SignedLog
from tests.support.fake_cluster import FakeCluster


@pytest.fixture
def audit(cluster: FakeCluster) -> SignedLog:
    cluster.store.audit = SignedLog(sample())
    return cluster.store.audit


@pytest.fixture
def pins(audit: SignedLog, tmp_path: Path) -> str:
    path = tmp_path / "pins"
    path.write_text(audit.pins)
    return str(path)


def verify(shell: Shell, *words: str) -> tuple[int, str]:
    ran = shell.run("audit", "verify", *words)
    assert ("OK" in ran.out) == (ran.code == 0)
    return ran.code, ran.out + ran.err


def test_every_member_is_verified(shell: Shell, audit: SignedLog, pins: str) -> None:
    code, said = verify(shell, "--keys", pins)
    assert code == 0, said
    assert said.count("intact ") == 2
    assert "11 records, 6 revisions compared" in said
    found = shell.ok("audit", "verify", "--keys", pins, "--json").json
    assert found["verdict"] == "intact"
    assert found["logs"][0]["signed"]


def test_keys_of_the_server_itself_are_only_a_stand_in(shell: Shell, audit: SignedLog) -> None:
    code, said = verify(shell)
    assert code == 0
    assert "pin yours" in said


@pytest.mark.parametrize("member", [1, 2])
def test_an_altered_record_is_named(shell: Shell, audit: SignedLog, pins: str, member: int) -> None:
    entry = audit.entries[member][5]
    audit.entries[member][5] = entry._replace(leaf=entry.leaf[:-1] + b"\x7f")
    code, said = verify(shell, "--keys", pins)
    assert code == 1
    assert "TAMPERED" in said


def test_an_altered_value_is_named(shell: Shell, audit: SignedLog, pins: str) -> None:
    entry = audit.entries[1][2]
    assert entry.rows
    audit.entries[1][2] = entry._replace(rows=(entry.rows[0]._replace(value=b"tw0"),))
    code, said = verify(shell, "--keys", pins)
    assert code == 1
    assert "at seq 2: " in said
    assert "differs from its commitment" in said


def test_a_left_out_record_is_noticed(shell: Shell, audit: SignedLog, pins: str) -> None:
    del audit.entries[2][4]
    assert verify(shell, "--keys", pins)[0] == 1
    audit.entries[2] = list(audit.log_.entries[:-1])
    code, said = verify(shell, "--keys", pins)
    assert code == 3
    assert "1 leaves" in said


def test_a_split_view_is_noticed(shell: Shell, audit: SignedLog, pins: str) -> None:
    """One member signs another past: with two of two pinned keys, or alone."""
    other = root_of([b"x", b"y"])
    audit.heads[2] = audit.heads[2]._replace(size=2, root=other)
    code, said = verify(shell, "--keys", pins)
    assert code == 1
    assert "another root at size 2" in said


def test_a_head_that_too_few_signed_is_not_good(shell: Shell, audit: SignedLog, pins: str) -> None:
    audit.signers = {1: (0,), 2: (0,)}
    code, said = verify(shell, "--keys", pins)
    assert code == 3
    assert "no checkpoint is signed by 2" in said
    assert verify(shell, "--keys", pins, "--threshold", "1")[0] == 0
    audit.signers = {1: (0,), 2: (1,)}  # together they are enough
    assert verify(shell, "--keys", pins)[0] == 0
    assert verify(shell, "--keys", pins, "--threshold", "3")[0] == 2


def test_members_of_a_busy_cluster_sign_a_common_size(
    shell: Shell, audit: SignedLog, pins: str
) -> None:
    audit.signers = {1: (0,), 2: (1,)}
    audit.log_.put(b"/new", b"v")
    audit.entries[2] = list(audit.log_.entries)
    audit.heads[2] = audit.log_.checkpoint()
    code, said = verify(shell, "--keys", pins)
    assert code == 0, said
    assert "11 records" in said


def test_a_wrong_signature_is_tampering(shell: Shell, audit: SignedLog, pins: str) -> None:
    good = audit.note(1)
    last = good.split()[-1]
    audit.note = lambda member, size=0: good.replace(last[8:20], "A" * 12)  # type: ignore[method-assign]
    code, said = verify(shell, "--keys", pins)
    assert code == 1
    assert "wrong signature of a known key" in said


def test_an_older_head_must_still_hold(
    shell: Shell, audit: SignedLog, pins: str, tmp_path: Path
) -> None:
    kept = tmp_path / "head"
    text = shell.ok("audit", "checkpoint").out
    kept.write_text(text)
    audit.log_.put(b"/new", b"v")
    for member in (1, 2):
        audit.entries[member] = list(audit.log_.entries)
        audit.heads[member] = audit.log_.checkpoint()
    assert verify(shell, "--keys", pins, "--checkpoint", str(kept))[0] == 0
    rewritten = SignedLog(Log())
    for number in range(15):
        rewritten.log_.put(b"/%d" % number, b"v")
    audit.log_, audit.entries = rewritten.log_, dict.fromkeys((1, 2), rewritten.log_.entries)
    audit.heads = {n: rewritten.log_.checkpoint() for n in (1, 2)}
    assert verify(shell, "--keys", pins)[0] == 0  # nothing wrong in itself
    code, said = verify(shell, "--keys", pins, "--checkpoint", str(kept))
    assert code == 1
    assert "root at size 11 differs" in said


def test_what_may_not_be_seen_makes_it_incomplete(
    shell: Shell, audit: SignedLog, pins: str
) -> None:
    audit.show_openings = False
    code, said = verify(shell, "--keys", pins)
    assert code == 3
    assert "openings" in said
    assert verify(shell, "--keys", pins, "--records-only")[0] == 0


def test_a_silent_member_makes_it_incomplete(
    shell: Shell, cluster: FakeCluster, audit: SignedLog, pins: str
) -> None:
    cluster.members[1].stop()
    code, said = verify(shell, "--keys", pins)
    assert code == 3
    assert said.count("intact ") == 1


def test_a_member_that_cannot_read_its_rows(
    shell: Shell, cluster: FakeCluster, audit: SignedLog, pins: str
) -> None:
    path = "/configsvc.v1.History/Log"
    cluster.store.refuse(path, Code.DATA_LOSS, "etcdserver: corrupt cluster", times=10)
    code, said = verify(shell, "--keys", pins)
    assert code == 1
    assert "cannot read its rows after revision 0" in said


def test_a_record_that_cannot_be_read_back_is_named(
    shell: Shell, audit: SignedLog, pins: str
) -> None:
    audit.unreadable = 6
    code, said = verify(shell, "--keys", pins)
    assert code == 1
    assert "seq 6: the member cannot read it back (6 records" in said


def test_other_failures_are_no_verdict(
    shell: Shell, cluster: FakeCluster, audit: SignedLog, pins: str
) -> None:
    path = "/configsvc.v1.History/Log"
    cluster.store.refuse(path, Code.PERMISSION_DENIED, "etcdserver: permission denied", times=2)
    code, said = verify(shell, "--keys", pins)
    assert code == 4
    assert "permission denied" in said
    cluster.store.audit = None
    assert verify(shell, "--keys", pins)[0] == 4
    assert verify(shell, "--keys", "/no/such")[0] in (2, 4)


def test_any_exception_is_4(
    shell: Shell, audit: SignedLog, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boom(*_: object) -> Iterator[object]:
        raise ZeroDivisionError

    monkeypatch.setattr(audit_online.MemberLog, "entries", boom)
    assert verify(shell, "--keys", pins)[0] == 4


def test_rows_of_one_revision_are_never_split_over_pages(
    shell: Shell, cluster: FakeCluster, audit: SignedLog, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_online, "_PAGE", 2)
    assert verify(shell, "--keys", pins)[0] == 0


# --- export ---------------------------------------------------------------------------------------


def exported(shell: Shell, tmp_path: Path, *words: str) -> Path:
    directory = tmp_path / "export"
    shell.ok("audit", "export", str(directory), *words)
    return directory


def test_an_export_is_verified_without_the_cluster(
    shell: Shell, cluster: FakeCluster, audit: SignedLog, pins: str, tmp_path: Path
) -> None:
    for number in range(300):  # more than one tile
        audit.log_.put(b"/k", b"%d" % number)
    for member in (1, 2):
        audit.entries[member] = list(audit.log_.entries)
        audit.heads[member] = audit.log_.checkpoint()
    directory = exported(shell, tmp_path, "--values")
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert {"checkpoint", "keys", "tile/0/000", "tile/0/001.p/55", "tile/1/000.p/1"} <= names
    assert {"tile/entries/000", "tile/entries/001.p/55", "revisions.jsonl"} <= names
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.rglob("*"))
    for member in cluster.members:
        member.stop()
    code, said = verify(shell, "--from", str(directory), "--keys", pins)
    assert code == 0, said
    assert "311 records, 306 revisions compared" in said
    assert shell.run("audit", "export", str(directory)).code == 2  # never overwritten


def test_an_export_without_values_is_incomplete_or_records_only(
    shell: Shell, audit: SignedLog, pins: str, tmp_path: Path
) -> None:
    directory = exported(shell, tmp_path)
    assert not (directory / "revisions.jsonl").exists()
    assert verify(shell, "--from", str(directory), "--keys", pins)[0] == 3
    assert verify(shell, "--from", str(directory), "--keys", pins, "--records-only")[0] == 0


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tile/entries/000.p/11", lambda data: data[:40] + b"\xff" + data[41:]),
        ("tile/entries/000.p/11", lambda data: data[:-5]),
        ("tile/0/000.p/11", lambda data: b"\0" * 32 + data[32:]),
        ("checkpoint", lambda data: data.replace(b"\n11\n", b"\n10\n")),
        ("openings.jsonl", lambda data: data.replace(b"rotate", b"rotten")),
        ("openings.jsonl", lambda data: b"x" + data),
        ("openings.jsonl", lambda data: b"\n".join(data.split(b"\n")[::-1])),
        ("revisions.jsonl", lambda data: data.replace(b'"lease": 9', b'"lease": 8')),
        ("revisions.jsonl", lambda data: data.replace(b'"sub": 0', b'"sub": "0"', 1)),
        ("actors.jsonl", lambda data: data.replace(b'"record": "A', b'"record": "B')),
        ("actors.jsonl", lambda data: data.replace(b'"hash": "', b'"hash": "x')),
        ("actors.jsonl", lambda data: b"[" * 100_000 + data),
        ("checkpoint", lambda data: b"\xff" + data),
    ],
)
def test_an_altered_export_is_noticed(
    shell: Shell,
    audit: SignedLog,
    pins: str,
    tmp_path: Path,
    name: str,
    change: object,
) -> None:
    directory = exported(shell, tmp_path, "--values")
    path = directory / name
    before = path.read_bytes()
    after = change(before)  # type: ignore[operator]
    assert after != before
    path.write_bytes(after)
    code, said = verify(shell, "--from", str(directory), "--keys", pins)
    assert code == 1, said
    path.unlink()
    assert verify(shell, "--from", str(directory), "--keys", pins)[0] != 0


def test_keys_of_an_export_that_are_no_text_are_no_keys(
    shell: Shell, audit: SignedLog, tmp_path: Path
) -> None:
    directory = exported(shell, tmp_path, "--values")
    (directory / "keys").write_bytes(b"\xff")
    assert verify(shell, "--from", str(directory))[0] == 1


def test_an_export_names_the_keys_of_its_members(
    shell: Shell, audit: SignedLog, tmp_path: Path
) -> None:
    directory = exported(shell, tmp_path, "--values")
    assert (directory / "keys").read_text().splitlines() == audit.pins.splitlines()[1:]
    code, said = verify(shell, "--from", str(directory))
    assert (code, "pin yours" in said) == (0, True)


def test_a_short_export_is_not_kept(shell: Shell, audit: SignedLog, tmp_path: Path) -> None:
    audit.entries[1] = audit.entries[1][:-2]
    assert shell.run("audit", "export", str(tmp_path / "export")).code == 1
    assert [one.name for one in tmp_path.iterdir()] == ["home"]


def test_records_after_the_head_wait_for_the_next_export(
    shell: Shell, audit: SignedLog, pins: str, tmp_path: Path
) -> None:
    old = audit.log_.checkpoint()
    audit.log_.put(b"/new", b"v")
    audit.entries[1] = list(audit.log_.entries)
    audit.heads[1] = Checkpoint(old.origin, old.size, old.root)
    directory = exported(shell, tmp_path, "--values")
    assert verify(shell, "--from", str(directory), "--keys", pins)[0] == 0


# --- single proofs, keys --------------------------------------------------------------------------


def test_a_single_proof(shell: Shell, audit: SignedLog, pins: str, tmp_path: Path) -> None:
    proof, leaf = tmp_path / "proof", tmp_path / "leaf"
    proof.write_text(shell.ok("audit", "proof", "3", "--leaf", str(leaf)).out)
    words = ("--proof", str(proof), "--leaf", str(leaf), "--keys", pins)
    assert verify(shell, *words)[0] == 0
    leaf.write_bytes(leaf.read_bytes() + b"x")
    assert verify(shell, *words)[0] == 1
    proof.write_text("nonsense")
    assert verify(shell, *words)[0] == 1
    assert verify(shell, "--proof", str(proof))[0] == 2


def test_a_proof_that_is_no_text_proves_nothing(
    shell: Shell, audit: SignedLog, pins: str, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    proof.write_bytes(b"\xff\xfe")
    code, said = verify(shell, "--proof", str(proof), "--leaf", str(proof), "--keys", pins)
    assert (code, "TAMPERED" in said) == (1, True)


def test_keys_are_printed_to_be_pinned(shell: Shell, audit: SignedLog, tmp_path: Path) -> None:
    path = tmp_path / "printed"
    path.write_text(shell.ok("audit", "keys").out)
    assert verify(shell, "--keys", str(path))[0] == 0
    assert shell.ok("audit", "keys", "--json").json == audit.pins.splitlines()[1:]
    path.write_text("nonsense\n")
    assert verify(shell, "--keys", str(path))[0] == 2


def test_keys_of_members_that_left_are_not_waited_for(
    shell: Shell, audit: SignedLog, tmp_path: Path
) -> None:
    audit.retired = [bytes([n]) * 32 for n in range(5)]
    assert verify(shell)[0] == 0
    path = tmp_path / "printed"
    path.write_text(shell.ok("audit", "keys").out)
    assert verify(shell, "--keys", str(path))[0] == 0


def test_checkpoint(shell: Shell, audit: SignedLog) -> None:
    assert shell.ok("audit", "checkpoint").out == audit.note(1)
    assert json.loads(shell.ok("audit", "checkpoint", "--json").out)["size"] == 11
