"""A change of the key-encryption key, stopped at each of its writes (ENC-5)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configsvc.codec.records import encode_entries
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.raft.messages import Entry, EntryKind, HardState
from configsvc.server import rekeying
from configsvc.server.rekeying import rekey
from configsvc.server.stores import Stores, open_stores
from configsvc.storage.history.store import History
from configsvc.storage.local.store import LocalStore
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.wal import Wal
from configsvc.types import LogIndex, NodeId, Term

URL = "http://127.0.0.1:19001"


class Member:
    """A member's data directory and two key files."""

    def __init__(self, place: Path) -> None:
        self.data = place / "a"
        self.old = KeyFile.create(place / "old.key")
        self.new = KeyFile.create(place / "new.key")
        stores = self.start(self.old)
        self.public = stores.token_key.public_bytes, stores.log_key.public_bytes
        entry = Entry(LogIndex(1), Term(1), EntryKind.NORMAL, b"")
        hard = HardState(Term(1), NodeId(0), LogIndex(0))
        stores.wal.append(hard, entry.index, 1, encode_entries([entry]))
        close(stores)

    def start(self, key: KeyFile) -> Stores:
        return open_stores(
            ServerConfig(
                name="a",
                data_dir=str(self.data),
                key_file=key.path,
                insecure_dev=True,
                initial_cluster=(("a", URL),),
                initial_advertise_peer_urls=(URL,),
            )
        )

    def check(self) -> None:
        """It is what it was, under the new key and no more under the old one."""
        assert refused(self, self.old) == ExitCode.CONFIG
        stores = self.start(self.new)
        assert (stores.token_key.public_bytes, stores.log_key.public_bytes) == self.public
        assert stores.last_index == 1
        close(stores)


def close(stores: Stores) -> None:
    stores.reader.close()
    stores.history.close()
    stores.wal.close()
    stores.local.close()


def refused(member: Member, key: KeyFile) -> int:
    with pytest.raises((FatalError, ConfigError)) as caught:
        member.start(key)
    return int(caught.value.code)


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


def test_everything_opens_under_the_new_key_alone(member: Member) -> None:
    done = rekey(member.data, member.old, member.new)
    assert (done.segments, done.signing_keys) == (1, 2)
    assert done.seeds >= 1
    member.check()


def test_a_second_run_finds_it_done(member: Member) -> None:
    rekey(member.data, member.old, member.new)
    assert rekey(member.data, member.old, member.new)[1:] == (0, 0)
    member.check()


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (Wal, "rewrap"),
        (History, "rewrap"),
        (LocalStore, "rewrap"),
        (rekeying, "write_file"),
    ],
)
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_is_mended_by_the_same_command(
    member: Member, owner: object, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child ends as by kill -9 before or after the step: nothing is closed or flushed."""
    inner = getattr(owner, step)

    def killed(*args: object) -> None:
        if after:
            inner(*args)
        os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(owner, step, killed)
            rekey(member.data, member.old, member.new)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert refused(member, member.new) == ExitCode.CONFIG
    rekey(member.data, member.old, member.new)
    member.check()


def test_a_key_that_never_was_this_members_changes_nothing(member: Member, tmp_path: Path) -> None:
    foreign = KeyFile.create(tmp_path / "foreign.key")
    before = {path: path.read_bytes() for path in member.data.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError):
        rekey(member.data, foreign, member.new)
    assert before == {path: path.read_bytes() for path in member.data.rglob("*") if path.is_file()}
    close(member.start(member.old))


def test_a_member_that_runs_is_left_alone(member: Member) -> None:
    stores = member.start(member.old)
    try:
        with pytest.raises(FatalError) as caught:
            rekey(member.data, member.old, member.new)
        assert caught.value.code == ExitCode.STORES_DISAGREE
    finally:
        close(stores)
    close(member.start(member.old))


def test_a_directory_without_a_member_is_named(tmp_path: Path) -> None:
    keys = KeyFile.create(tmp_path / "1.key"), KeyFile.create(tmp_path / "2.key")
    for place in (tmp_path / "empty", tmp_path / "empty" / "log"):
        place.mkdir()
        with pytest.raises(ConfigError, match="no member's data directory"):
            rekey(tmp_path / "empty", *keys)
