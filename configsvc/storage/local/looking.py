"""A member's audit stream looked at before anything may be written.

Not here: opening it for good (``store``).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import RowMapping, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.local import sealing
from configsvc.storage.local.engine import check_private, open_reader, private_files
from configsvc.storage.local.messages import LocalIdentity
from configsvc.storage.local.schema import FORMAT, STORE
from configsvc.storage.seal.keyfile import KeyFile

REMEDY: Final = (
    "move local/audit.db aside and keep it: a new one begins under a new origin, and the gap shows"
)


def judge(path: Path, identity: LocalIdentity, key_file: KeyFile) -> None:
    """Raise what ``LocalStore.open`` would; an absent stream may be made.

    Raises:
        ConfigError: exit 78: wrong key file, or others can reach the file.
        FatalError: exit 80 cannot be read; 85 another member's; 86 newer.
    """
    if not path.is_file():
        return
    check_private(path)
    engine = open_reader(path, alone=True)
    try:
        with private_files(), engine.connect() as connection:
            if not inspect(connection).has_table(STORE.name):
                return
            row = connection.execute(select(STORE)).mappings().first()
            if row is not None:
                refuse_foreign(path, row, identity)
                sealing.load_sealers(connection, identity, key_file, path)
    except (sqlite3.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        raise FatalError(
            ExitCode.STORAGE,
            f"local audit log {path} cannot be read ({type(cause).__name__})",
            f"check the disk; if the file is damaged, {REMEDY}",
        ) from None
    finally:
        engine.dispose()


def refuse_foreign(path: Path, store: RowMapping, identity: LocalIdentity) -> None:
    """Compare the row of ``STORE`` with who opens it.

    Raises:
        FatalError: exit 85 another member's; 86 newer.
    """
    if store["minimum_reader"] > FORMAT:
        raise FatalError(
            ExitCode.TOO_NEW,
            f"{path}: needs reader {store['minimum_reader']}, this program is {FORMAT}",
            "install the program version that wrote this data directory",
        )
    ids = (
        identity.cluster_id.to_bytes(8, "big"),
        identity.member_id.to_bytes(8, "big"),
        identity.store_id,
    )
    if (store["cluster_id"], store["member_id"], store["store_id"]) != ids:
        raise FatalError(ExitCode.WRONG_IDENTITY, f"{path} is another member's audit log", REMEDY)
