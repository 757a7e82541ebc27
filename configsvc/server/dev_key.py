"""The key of a throwaway store: made beside the data directory on the first start.

etcd's start-up scripts name no key file, and nothing at rest is plaintext, not even under
--insecure-dev (DEV-5). A key is never made for a directory that was used before: what was sealed
under a lost key stays closed, and says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from configsvc.config import ServerConfig, dev_key_path
from configsvc.server.stores import has_stores
from configsvc.storage.disk import check_parents
from configsvc.storage.seal.keyfile import KeyFile


def make_dev_key(config: ServerConfig) -> None:
    """Create the default key file of --insecure-dev; nothing in any other case.

    Raises:
        ConfigError: exit 78, the file cannot be written there, or others may write beside it.
    """
    wanted = config.insecure_dev and config.key_file == dev_key_path(config.data_dir)
    if not wanted or os.path.lexists(config.key_file) or has_stores(config):
        return
    check_parents(Path(os.path.abspath(config.key_file)), "key file")
    KeyFile.create(config.key_file)
