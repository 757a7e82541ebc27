"""A member's history database, read without the member: for the most suspicious of auditors.

The database is opened read-only; the member may be running. Heads come from the checkpoint
signatures that the database holds, keys from the signing keys in it, unless pinned elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from configsvc.audit.checkpoint import Checkpoint, NoteKey, merge
from configsvc.audit.merkle import HASH_BYTES
from configsvc.audit.proofs import root_at
from configsvc.audit.verify import ActorRow, Entry
from configsvc.cli.exits import CliError, Exit
from configsvc.errors import DecodeError, InvariantViolationError

if TYPE_CHECKING:
    from configsvc.storage.history.reader import HistoryReader

_NO_ROOT: Final = bytes(HASH_BYTES)
_SQLITE: Final = b"SQLite format 3\0"


def find_database(directory: Path) -> Path:
    """The newest generation under a data directory.

    Raises:
        CliError: usage; there is none.
    """
    from configsvc.storage.snapshot.generations import generation_path, present

    found = present(directory)
    if not found:
        raise CliError(Exit.USAGE, f"{directory}: holds no history: name the database with --db")
    return generation_path(directory, max(found))


class DatabaseLog:
    """The log in one database file."""

    def __init__(self, path: Path, key_path: str) -> None:
        """Open.

        Raises:
            CliError: usage; there is no such file.
            ConfigError: wrong key file, or a file that others may reach.
        """
        from configsvc.storage.history.engine import open_reader
        from configsvc.storage.history.loading import is_complete, read_identity
        from configsvc.storage.history.reader import HistoryReader
        from configsvc.storage.seal.keyfile import KeyFile

        if not path.is_file():
            raise CliError(Exit.USAGE, f"{path}: no such file")
        with path.open("rb") as file:
            if not file.read(len(_SQLITE)).startswith(_SQLITE):
                raise CliError(Exit.USAGE, f"{path}: not a history database")
        self.path = path
        with open_reader(path).connect() as connection, connection.begin():
            if not is_complete(connection):
                raise CliError(Exit.USAGE, f"{path}: not a history database")
            identity = read_identity(connection)
        self.cluster_id = identity.cluster_id
        self.epoch = identity.epoch
        self.insecure = identity.insecure
        self._reader: HistoryReader = HistoryReader(path, identity, KeyFile.load(key_path))
        self.size = self._reader.meta().tree_size
        self.actors: dict[bytes, ActorRow] = self._reader.actors()
        self._tables = self._small_tables()

    def _small_tables(self) -> dict[str, list[tuple[Any, ...]]]:
        from configsvc.storage.history import loading

        with self._reader.transaction() as (connection, session):
            return loading.small_tables(connection, session.vault)

    @property
    def trust_domain(self) -> str:
        """As the cluster was bootstrapped with."""
        for name, value in self._tables.get("meta", ()):
            if name == "trust_domain" and isinstance(value, bytes):
                return value.decode("utf-8", "replace")
        return ""

    @property
    def origin(self) -> str:
        """The name of stream M, as its heads carry it."""
        from configsvc.audit.checkpoint import log_origin

        return log_origin(self.trust_domain, self.cluster_id, self.epoch, insecure=self.insecure)

    def _log_keys(self, *states: str) -> dict[int, bytes]:
        """Public log key by member; retired ones signed older heads."""
        return {
            member: public
            for _, use, member, public, state, _ in self._tables.get("signing_keys", ())
            if use == "log" and state in states
        }

    def keys(self, origin: str) -> list[NoteKey]:
        """Verifier keys that the database itself names, of who signed last."""
        found = self._log_keys("active") or self._log_keys("active", "retired")
        return [NoteKey(origin, public) for public in found.values()]

    def notes(self, origin: str) -> list[str]:
        """The signed heads that the database holds, as notes."""
        keys = self._log_keys("active", "retired")
        heads: dict[tuple[int, bytes], dict[bytes, bytes]] = {}
        for member, size, root, signature in self._tables.get("signatures", ()):
            public = keys.get(member)
            if public is not None:
                heads.setdefault((size, root), {})[public] = signature
        return [
            merge(Checkpoint(origin, size, root), signatures)
            for (size, root), signatures in heads.items()
        ]

    def head(self, origin: str) -> Checkpoint:
        """What the database says of itself; nobody signed this."""
        try:
            with self._reader.tree() as read:
                root = root_at(self.size, read)
        except InvariantViolationError:
            root = _NO_ROOT  # its tree is broken: no leaves lead to this root
        return Checkpoint(origin, self.size, root)

    def entries(self) -> Iterator[Entry]:
        """All leaves with openings and rows.

        Raises:
            DecodeError: something is not what was written; names it.
        """
        from configsvc.storage.seal.errors import SealBroken

        seq = -1
        try:
            for entry in self._reader.verify_entries(0, self.size):
                seq = entry.seq
                yield entry
        except SealBroken:
            # Slices are read as a whole: one by one from here names the record.
            yield from self._one_by_one(seq + 1)

    def _one_by_one(self, first: int) -> Iterator[Entry]:
        from configsvc.storage.seal.errors import SealBroken

        for seq in range(first, self.size):
            try:
                yield from self._reader.verify_entries(seq, seq + 1)
            except SealBroken as error:
                raise DecodeError(f"seq {seq}: {error}") from None

    def close(self) -> None:
        """Close the database."""
        self._reader.close()
