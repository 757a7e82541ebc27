"""The key file: made once, private, and never mistaken."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from configsvc.errors import ConfigError, ExitCode
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import FILE_BYTES_MAX, KeyFile


def test_made_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    made = KeyFile.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    read = KeyFile.load(path)
    assert read.key_id == made.key_id
    assert read.path == str(path)
    assert len(read.key_id) == 16
    assert read.unwrap(made.wrap(b"seed", b"what"), b"what") == b"seed"


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    KeyFile.create(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        KeyFile.create(path)
    assert path.read_bytes() == before


def test_two_keys_differ(tmp_path: Path) -> None:
    one, two = KeyFile.create(tmp_path / "1"), KeyFile.create(tmp_path / "2")
    assert one.key_id != two.key_id
    with pytest.raises(SealBroken):
        two.unwrap(one.wrap(b"seed", b""), b"")


def refused(path: Path, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        KeyFile.load(path)
    assert caught.value.code is ExitCode.CONFIG
    assert caught.value.remedy
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none", "No such file")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_file_that_others_reach(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "kek"
    KeyFile.create(path)
    path.chmod(mode)
    refused(path, "others may reach it")


def test_a_symlink_and_a_directory(tmp_path: Path) -> None:
    KeyFile.create(tmp_path / "kek")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "kek")
    refused(link, "key file")
    refused(tmp_path, "not a regular file")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    KeyFile.create(path)
    os.chown(path, 65_534, 65_534)
    refused(path, "somebody else")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"configsvc-kek-v1",
        b"configsvc-kek-v2 0123456789abcdef " + base64.b64encode(b"k" * 32),
        b"configsvc-kek-v1 0123456789abcdef " + base64.b64encode(b"k" * 32),
        b"configsvc-kek-v1 0123456789abcdef not-base64!",
        b"configsvc-kek-v1 0123456789abcdef " + base64.b64encode(b"k" * 31),
        b"\xff\xfe\x00" * 40,
        b"x" * (FILE_BYTES_MAX + 10),
    ],
)
def test_what_is_no_key_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kek"
    path.write_bytes(content)
    path.chmod(0o600)
    refused(path, "not a configsvc-kek-v1 file")


def test_a_key_inside_the_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    KeyFile.create(data / "kek")
    with pytest.raises(ConfigError, match="inside the data directory"):
        KeyFile.load(data / "kek", data_dir=data)
    KeyFile.create(tmp_path / "kek")
    assert KeyFile.load(tmp_path / "kek", data_dir=data)


def test_the_key_is_never_shown(tmp_path: Path) -> None:
    made = KeyFile(b"k" * 32, str(tmp_path))
    shown = repr(made) + str(made)
    assert base64.b64encode(b"k" * 32).decode() not in shown
    assert "kkkk" not in shown


@pytest.mark.parametrize("spoil", range(0, 64, 7))
def test_a_spoiled_wrapping_does_not_open(spoil: int) -> None:
    key = KeyFile(b"k" * 32)
    blob = bytearray(key.wrap(b"s" * 32, b"aad"))
    assert len(blob) == 60
    blob[spoil % 60] ^= 1
    with pytest.raises(SealBroken):
        key.unwrap(bytes(blob), b"aad")


def test_wrapping_is_bound_to_its_context() -> None:
    key = KeyFile(b"k" * 32)
    with pytest.raises(SealBroken):
        key.unwrap(key.wrap(b"s" * 32, b"one"), b"other")
    with pytest.raises(SealBroken):
        key.unwrap(b"short", b"")
