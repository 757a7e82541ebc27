"""A history looked at before anything may be written: whose it is, how far it goes, does it open.

A start judges every store first; only when none of them refuses is one of them changed (2.2).

Not here: opening for good (``store``), which generation counts (``snapshot.generations``).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.history import loading
from configsvc.storage.history.engine import check_private, open_reader, private_files
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.migrate import refuse_newer
from configsvc.storage.history.schema import PROGRESS
from configsvc.storage.history.seeds import load_sealers
from configsvc.storage.history.soundness import refuse_damaged
from configsvc.storage.seal.keyfile import KeyFile


class Found(NamedTuple):
    """What a history says of itself."""

    identity: StoreIdentity
    applied: int
    configured: bool  # it holds a configuration: some entry was applied


def look(path: Path, key_file: KeyFile) -> Found | None:
    """Read on a connection that cannot write; None: no store, or a first start that got not far.

    Raises:
        ConfigError: 78, another key wrapped its seeds, or others can reach the file.
        FatalError: 80 it cannot be read, 86 a newer program wrote it.
    """
    if not path.is_file():
        return None
    check_private(path)
    engine = open_reader(path, alone=True)
    try:
        with private_files(), engine.connect() as connection:
            if not loading.is_complete(connection):
                return None
            refuse_newer(connection, path)
            refuse_damaged(connection, path)
            identity = loading.read_identity(connection)
            load_sealers(connection, identity, key_file, path)
            columns = select(PROGRESS.c.applied, PROGRESS.c.conf_state)
            applied, conf_state = connection.execute(columns).one()
            return Found(identity, applied, bool(conf_state))
    except (sqlite3.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        raise FatalError(
            ExitCode.STORAGE,
            f"history {path} cannot be read ({type(cause).__name__}: {cause})",
            "check the disk; if the file is damaged, wipe the data directory and join again",
        ) from None
    finally:
        engine.dispose()
