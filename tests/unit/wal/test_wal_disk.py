"""The real disk, and who may reach our paths (DEF-6, N11)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configsvc.errors import ConfigError, ExitCode
from configsvc.storage.disk import OsDisk, check_private_path


def test_files_of_the_real_disk(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path)
    file = disk.create("one")
    file.pwrite(b"abc", 5)
    file.sync()
    assert file.size() == 8
    assert file.pread(100, 4) == b"\0abc"
    file.close()
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    disk.rename("one", "two")
    disk.sync_dir()
    assert disk.names() == ["two"]
    again = disk.open("two")
    again.pwrite(b"x", 0)
    assert again.pread(1, 0) == b"x"
    again.close()
    disk.create("two").close()
    assert (tmp_path / "two").stat().st_size == 0
    disk.unlink("two")
    assert disk.names() == []
    assert disk.free_bytes() > 0
    with pytest.raises(FileNotFoundError):
        disk.open("two")
    disk.close()


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    inside = tmp_path / "wal"
    inside.mkdir()
    (inside / "file").symlink_to(tmp_path / "secret")
    disk = OsDisk(inside)
    with pytest.raises(OSError, match="symbolic links"):
        disk.open("file")
    with pytest.raises(OSError, match="symbolic links"):
        disk.create("file")
    disk.close()
    assert (tmp_path / "secret").read_bytes() == b"s"


def test_the_lock_is_exclusive_and_given_back(tmp_path: Path) -> None:
    one, two = OsDisk(tmp_path), OsDisk(tmp_path)
    assert one.lock()
    assert not two.lock()
    one.close()
    assert two.lock()
    two.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory whose parents are private enough, wherever the tests run."""
    tmp_path.chmod(0o700)
    return tmp_path


def refused(path: Path, what: str, fix: str, **more: int | None) -> None:
    before = os.lstat(path) if os.path.lexists(path) else None
    with pytest.raises(ConfigError, match=what) as caught:
        check_private_path(path, **more)  # type: ignore[arg-type]
    assert caught.value.code is ExitCode.CONFIG
    assert fix in caught.value.remedy
    if before is not None:
        assert os.lstat(path).st_mode == before.st_mode, "modes of what exists are never changed"


def test_a_missing_directory_is_made_private(home: Path) -> None:
    made = check_private_path(home / "a" / "data")
    assert made == home / "a" / "data"
    assert made.stat().st_mode & 0o777 == 0o700
    assert check_private_path(made) == made


def test_every_name_that_was_made_on_the_way_is_on_the_disk(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    check_private_path(home / "a" / "b" / "data")
    assert synced == [str(home), str(home / "a"), str(home / "a" / "b")]


def test_a_missing_path_that_must_exist(home: Path) -> None:
    refused(home / "none", "No such file", "exists", create_mode=None)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770, 0o777])
def test_loose_modes(home: Path, mode: int) -> None:
    data = home / "data"
    data.mkdir()
    data.chmod(mode)
    refused(data, "lets others in", f"chmod 700 {data}")


def test_a_loose_file(home: Path) -> None:
    key = home / "key"
    key.write_bytes(b"k")
    key.chmod(0o640)
    refused(key, "lets others in", f"chmod 600 {key}", create_mode=None)
    key.chmod(0o600)
    assert check_private_path(key, create_mode=None) == key


def test_a_symlink(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    link = home / "link"
    link.symlink_to(home / "real")
    refused(link, "symlink", str(home / "real"))
    (home / "dangling").symlink_to(home / "nowhere")
    refused(home / "dangling", "symlink", "nowhere")
    assert not (home / "nowhere").exists()


def test_a_parent_that_others_may_write(home: Path) -> None:
    shared = home / "shared"
    (shared / "data").mkdir(parents=True)
    (shared / "data").chmod(0o700)
    shared.chmod(0o777)
    refused(shared / "data", "others may write", f"chmod go-w {shared}")
    refused(shared / "new", "others may write", f"chmod go-w {shared}")
    assert not (shared / "new").exists()
    shared.chmod(0o1777)
    assert check_private_path(shared / "data")


def test_a_link_on_the_way_is_judged_by_where_it_leads(home: Path) -> None:
    shared = home / "shared"
    (shared / "data").mkdir(parents=True)
    (shared / "data").chmod(0o700)
    (home / "way").symlink_to(shared)
    assert check_private_path(home / "way" / "data")
    shared.chmod(0o777)
    refused(home / "way" / "data", "others may write", "chmod go-w")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_foreign_owners(home: Path) -> None:
    data = home / "data"
    data.mkdir(mode=0o700)
    os.chown(data, 65_534, 65_534)
    refused(data, "belongs to user id 65534", f"chown {os.geteuid()} {data}")
    inner = data / "inner"
    inner.mkdir(mode=0o700)
    refused(inner, "its parent", "move it")


def test_other_kinds_of_files(home: Path) -> None:
    pipe = home / "pipe"
    os.mkfifo(pipe, 0o600)
    refused(pipe, "neither directory nor file", "another path")
