"""Whose store a database is: stamped once, compared at every start.

Not here: how far it has been written (the progress row is ``store``'s).
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, select

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.history import loading
from configsvc.storage.history.engine import open_reader
from configsvc.storage.history.mark import UNMARKED
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.migrate import refuse_newer
from configsvc.storage.history.schema import FORMAT, PROGRESS, STORE
from configsvc.storage.history.seeds import load_sealers
from configsvc.storage.history.soundness import refuse_damaged
from configsvc.storage.seal.keyfile import KeyFile


def stamped_identity(path: Path) -> StoreIdentity | None:
    """Whose store lies there, for who cannot know it beforehand; None: there is none."""
    if not path.is_file():
        return None
    engine = open_reader(path, alone=True)
    try:
        with engine.connect() as connection:
            if not loading.is_complete(connection):
                return None
            refuse_damaged(connection, path)
            return loading.read_identity(connection)
    finally:
        engine.dispose()


def precheck(path: Path, identity: StoreIdentity, key_file: KeyFile) -> None:
    """Everything that can refuse an existing store, on a connection that cannot write."""
    engine = open_reader(path, alone=True)
    try:
        with engine.connect() as connection:
            if not loading.is_complete(connection):
                return
            refuse_newer(connection, path)
            refuse_damaged(connection, path)
            _compare(loading.read_identity(connection), identity, path)
            load_sealers(connection, identity, key_file, path)
    finally:
        engine.dispose()


def _compare(stamped: StoreIdentity, expected: StoreIdentity, path: Path) -> None:
    for field, found, wanted in zip(StoreIdentity._fields, stamped, expected, strict=True):
        if found != wanted:
            shown = "" if field == "store_id" else f" ({found!r}, expected {wanted!r})"
            raise FatalError(
                ExitCode.WRONG_IDENTITY,
                f"history {path} belongs to another {field.removesuffix('_id')}{shown}",
                "point --data-dir at the directory of this member",
            )


def stamp(connection: Connection, identity: StoreIdentity, generation: int) -> None:
    """First start: whose store this is, and where it begins."""
    if connection.execute(select(STORE.c.id)).first() is not None:
        return
    connection.execute(
        insert(STORE).values(
            id=1,
            format=FORMAT,
            minimum_reader=FORMAT,
            cluster_id=identity.cluster_id.to_bytes(8, "big"),
            member_id=identity.member_id.to_bytes(8, "big"),
            store_id=identity.store_id,
            insecure=int(identity.insecure),
            epoch=identity.epoch,
            generation=generation,
        )
    )
    connection.execute(
        insert(PROGRESS).values(
            id=1,
            applied=0,
            term=0,
            visible_revision=1,
            conf_state=b"",
            digest=bytes(16),
            tree_size=0,
            last_batch=0,
            sealed=0,
            folded=0,
            owner_epoch=0,
            mark=UNMARKED,
        )
    )
