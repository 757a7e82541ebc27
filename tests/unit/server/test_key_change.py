"""Which key file a start uses while one is being replaced, and what it ends first (ENC-5)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from configsvc.config import ServerConfig
from configsvc.errors import ConfigError
from configsvc.server.logs import Log
from configsvc.server.rotation import finish
from configsvc.server.stores import Stores, load_key, new_key_path, open_stores
from configsvc.storage.seal.keyfile import KeyFile

URL = "http://127.0.0.1:19004"


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    KeyFile.create(tmp_path / "a.key")
    return ServerConfig(
        name="a",
        data_dir=str(tmp_path / "a"),
        key_file=str(tmp_path / "a.key"),
        insecure_dev=True,
        initial_cluster=(("a", URL),),
        initial_advertise_peer_urls=(URL,),
    )


def close(stores: Stores) -> None:
    stores.reader.close()
    stores.history.close()
    stores.wal.close()
    stores.local.close()


def finished(config: ServerConfig) -> str:
    stream = io.StringIO()
    finish(config, Log("info", stream))
    return stream.getvalue()


def test_a_first_start_uses_the_key_that_is_named(config: ServerConfig) -> None:
    KeyFile.create(new_key_path(config))
    assert load_key(config).key_id == KeyFile.load(config.key_file).key_id
    assert finished(config) == ""


def test_without_a_new_one_nothing_happens(config: ServerConfig) -> None:
    close(open_stores(config))
    assert finished(config) == ""
    close(open_stores(config))


def test_a_start_ends_the_change_and_goes_on_under_the_new_key(config: ServerConfig) -> None:
    close(open_stores(config))
    new = KeyFile.create(new_key_path(config))
    with pytest.raises(ConfigError):
        open_stores(config)  # nobody has wrapped anything yet
    assert "all stores are under the new key" in finished(config)
    assert load_key(config).key_id == new.key_id
    close(open_stores(config))
    assert "all stores are under the new key" in finished(config), "until it has its name"
    os.replace(new_key_path(config), config.key_file)
    assert finished(config) == ""
    close(open_stores(config))


def test_the_same_key_twice_is_no_change(config: ServerConfig) -> None:
    close(open_stores(config))
    Path(new_key_path(config)).write_bytes(Path(config.key_file).read_bytes())
    os.chmod(new_key_path(config), 0o600)
    assert "all stores are under the new key" in finished(config)
    close(open_stores(config))


def test_when_the_old_file_is_gone_the_new_one_must_do(config: ServerConfig) -> None:
    close(open_stores(config))
    KeyFile.create(new_key_path(config))
    finished(config)
    os.unlink(config.key_file)
    assert finished(config) == ""
    close(open_stores(config))


def test_a_new_file_that_is_no_key_is_refused_and_nothing_is_touched(config: ServerConfig) -> None:
    close(open_stores(config))
    path = Path(new_key_path(config))
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        finished(config)
    path.unlink()
    close(open_stores(config))
