"""audit verify on a bare database, debug log on a bare log: no member runs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from configsvc.apply import commands as c
from configsvc.audit.checkpoint import (
    Checkpoint,
    NoteKey,
    encode_checkpoint,
    encode_key,
    log_origin,
)
from configsvc.codec.records import encode_entries
from configsvc.proto import command_pb2
from configsvc.raft.messages import Entry, EntryKind, HardState
from configsvc.storage.disk import OsDisk
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot.generations import generation_path, prepare
from configsvc.storage.wal.wal import Wal, WalIdentity
from tests.support.cli_runner import Shell
from tests.support.fake_audit import public
from tests.unit.apply.apply_world import MEMBERS, ROOT, SYSTEM, World, delete, put

IDENTITY = StoreIdentity(cluster_id=0xC1, member_id=MEMBERS[0], store_id=bytes(16))
ORIGIN = log_origin("corp", 0xC1, 0, insecure=False)


class Store:
    """A member's data directory with a signed history in it."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o700)
        self.directory = directory / "m1"
        self.directory.mkdir(mode=0o700)
        self.key = directory / "kek"
        key_file = KeyFile.create(self.key)
        secrets = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
        world = World()
        for number in range(30):
            world.ok(ROOT, put(b"/a/%d" % (number % 5), b"v%d" % number), reason="r")
        world.ok(ROOT, delete(b"/a/", b"/a0"))
        for member, secret in zip(MEMBERS, secrets, strict=True):
            op = c.SigningKeyOp(f"log-{member}", "log", member, public(secret), "active")
            world.ok(SYSTEM, op, accepted_by=member)
        frontier = world.state.recorder.frontier
        head = Checkpoint(ORIGIN, frontier.size, frontier.root())
        for member, secret in list(zip(MEMBERS, secrets, strict=True))[:2]:
            signature = secret.sign(encode_checkpoint(head).encode())
            op = c.CheckpointSignatureOp(member, head.size, head.root, signature)
            world.ok(SYSTEM, op, accepted_by=member)
        prepare(self.directory)
        self.db = generation_path(self.directory, 1)
        history = History.open(self.db, IDENTITY, key_file, create=True)
        history.write(world.effects)
        history.close()
        self.pins = directory / "pins"
        keys = [NoteKey(ORIGIN, public(secret)) for secret in secrets]
        self.pins.write_text("".join(f"{encode_key(key)}\n" for key in keys))

    def verify(self, shell: Shell, *words: str) -> tuple[int, str]:
        base = ["audit", "verify", "--data-dir", str(self.directory), "--seal-key", str(self.key)]
        ran = shell.run(*base, *words)
        assert ("OK" in ran.out) == (ran.code == 0)
        return ran.code, ran.out + ran.err


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_database_is_verified_without_its_member(shell: Shell, store: Store) -> None:
    code, said = store.verify(shell, "--keys", str(store.pins))
    assert code == 0, said
    assert "31 revisions compared" in said
    code, said = store.verify(shell)
    assert code == 0
    assert "pin yours" in said
    words = ("--db", str(store.db), "--seal-key", str(store.key), "--keys", str(store.pins))
    assert shell.run("audit", "verify", *words).code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update revisions set value = x'00' where revision = 7", "row 7.0"),
        ("update revisions set key = x'2f62' where revision = 7", "row 7.0"),
        ("delete from revisions where revision = 7", "0 revision rows where the leaf has 1"),
        ("update commits set leaf = cast(substr(leaf, 1, 40) as blob) where seq = 9", "seq"),
        ("update commits set time_ns = time_ns - 1 where seq = 9", "at seq 9: column time_ns"),
        ("delete from commits where seq = 9", "leaf 9 is missing"),
        ("update openings set sealed = x'00' where seq = 9", "seq 9: "),
    ],
)
def test_an_edited_row_is_named(shell: Shell, store: Store, change: str, said: str) -> None:
    connection = sqlite3.connect(store.db)
    try:
        assert connection.execute(change).rowcount == 1
        connection.commit()
    finally:
        connection.close()
    code, out = store.verify(shell, "--keys", str(store.pins))
    assert code == 1, out
    assert said in out


def test_without_signatures_nothing_is_intact(shell: Shell, store: Store) -> None:
    connection = sqlite3.connect(store.db)
    connection.execute("delete from signatures")
    connection.commit()
    connection.close()
    code, out = store.verify(shell, "--keys", str(store.pins))
    assert code == 3
    assert "no checkpoint is signed by 2 of the pinned keys" in out


def test_wrong_files_are_usage(shell: Shell, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    KeyFile.create(other)
    verify = ("audit", "verify", "--data-dir")
    assert shell.run(*verify, str(store.directory)).code == 2
    assert shell.run(*verify, str(store.directory), "--seal-key", str(other)).code == 2
    assert shell.run(*verify, str(tmp_path / "no"), "--seal-key", str(store.key)).code == 2
    db = ("audit", "verify", "--db", str(store.pins), "--seal-key", str(store.key))
    ran = shell.run(*db)
    assert (ran.code, "not a history database" in ran.err) == (2, True)


# --- debug log ------------------------------------------------------------------------------------


def command(key: bytes, value: bytes) -> bytes:
    made = command_pb2.Command(request_id=7, time_ns=1_700_000_000_000_000_000, salt=b"s" * 32)
    made.actor.kind, made.actor.name = "user", "ada"
    made.put.key, made.put.value = key, value
    return made.SerializeToString()


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, Path]:
    tmp_path.chmod(0o700)
    key = tmp_path / "kek"
    directory = tmp_path / "m1" / "log"
    directory.mkdir(mode=0o700, parents=True)
    disk = OsDisk(directory)
    wal = Wal.create(disk, WalIdentity(0xC1, 0xA1, bytes(16)), KeyFile.create(key))
    user = command_pb2.Command(user_add=command_pb2.UserAdd(name="x", password_hash="$argon2id$"))
    first = [
        Entry(1, 1, EntryKind.NORMAL, b""),
        Entry(1, 2, EntryKind.NORMAL, command(b"/a", b"hidden")),
        Entry(1, 3, EntryKind.NORMAL, user.SerializeToString()),
        Entry(1, 4, EntryKind.NORMAL, command(b"/void", b"v")),
    ]
    second = [Entry(2, 4, EntryKind.NORMAL, b"\xff\xff")]
    for entries in (first, second):
        hard = HardState(term=entries[0].term, vote=1, commit=1)
        wal.append(hard, entries[0].index, len(entries), encode_entries(entries))
    wal.close_clean()
    return directory.parent, key


def test_debug_log(shell: Shell, log: tuple[Path, Path]) -> None:
    words = ["debug", "log", "--data-dir", str(log[0]), "--seal-key", str(log[1])]
    text = shell.ok(*words).out
    assert "2 term 1 put" in text
    assert "user/ada 2023-11-14T22:13:20" in text
    assert "4 entries, term 2" in text
    entries = [json.loads(line) for line in shell.ok(*words, "--json").out.splitlines()]
    assert [one["index"] for one in entries] == [1, 2, 3, 4]
    assert entries[1]["command"]["put"] == {"key": "L2E="}
    assert "salt" not in entries[1]["command"]
    assert entries[3]["unreadable"]
    shown = shell.ok(*words, "--json", "--values", "--from", "2", "--limit", "2").out
    assert "aGlkZGVu" in shown
    assert "argon2id" not in shown
    assert "entries 1 to 4" in shell.ok(*words, "--frames").out
    frames = [json.loads(one) for one in shell.ok(*words, "--frames", "--json").out.splitlines()]
    assert {frame["kind"] for frame in frames} >= {"start", "entries", "clean_stop"}
    bare = ["debug", "log", str(log[0] / "log")]
    assert shell.ok(*bare, "--seal-key", str(log[1])).out == text
    assert shell.run(*bare, "--data-dir", str(log[0])).code == 2
    assert shell.run("debug", "log").code == 2
    shut = shell.ok(*bare)  # no key: what is not sealed, and how to see more
    assert shut.out == shell.ok(*bare, "--frames").out == shell.ok(*words, "--frames").out
    assert "--seal-key" in shut.err
    assert shell.run(*words[:3], "/no/such", *words[4:]).code == 2
    assert shell.run(*words[:-1], "/no/such").code == 78
