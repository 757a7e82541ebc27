"""Another key-encryption key for a stopped member's stores (ENC-5).

What the key file wraps is wrapped anew: data keys of the log's segments, seeds of history and audit
stream, the member's own signing keys. No row and no frame is touched. Each step is atomic and
leaves alone what it finds done: a kill leaves stores under two keys, which no start takes (78) and
which the same command, run again, brings to an end.

Not here: judging a start (``judging``), making key files (``storage.seal.keyfile``).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from configsvc.errors import ConfigError
from configsvc.identity.files import PRIVATE, write_file
from configsvc.identity.tokens import TokenKey
from configsvc.server.judging import AUDIT_NAME, KEY_NAMES, LOCAL_DIR
from configsvc.server.rebirth import REBORN_DIR
from configsvc.server.stores import LOG_DIR
from configsvc.storage.disk import OsDisk
from configsvc.storage.history.looking import Found, look
from configsvc.storage.history.store import History
from configsvc.storage.local.looking import judge as judge_local
from configsvc.storage.local.messages import LocalIdentity
from configsvc.storage.local.store import LocalStore
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.generations import FIRST_GENERATION
from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.wal import Wal


class Rekeyed(NamedTuple):
    """What was wrapped anew; 0: an earlier run had done it already."""

    segments: int  # all of them, each time
    seeds: int
    signing_keys: int


def rekey(data: Path, old: KeyFile, new: KeyFile) -> Rekeyed:
    """Wrap under ``new`` whatever in ``data`` is wrapped under ``old``.

    When this returns, nothing in the data directory needs ``old``. Backups taken before still do.

    Raises:
        ConfigError: 78, something opens under neither key, or there is no member that was started.
            Nothing was touched.
        FatalError: as a start does: 84, the member runs; 80 to 86, a store is damaged or foreign.
        OSError: the disk failed; run it again once the disk is well.
    """
    if (data / REBORN_DIR).exists():
        raise ConfigError(
            f"{data}: a restore has not ended", "start the member once under its old key"
        )
    work = _Rekeying(data, old, new)
    wal = _open_log(data, work)
    try:
        wal.rewrap(new, (old,))
        return Rekeyed(wal.segment_count, work.seeds(), work.signing_keys())
    finally:
        wal.close()


def _open_log(data: Path, work: _Rekeying) -> Wal:
    nobody = ConfigError(f"{data}: no member's data directory", "name one that was in use")
    if not (data / LOG_DIR).is_dir():
        raise nobody
    disk = OsDisk(data / LOG_DIR)
    try:
        if not Wal.exists(disk):
            raise nobody
        return Wal.open(disk, work.new, sql_applied=work.judge, older_keys=(work.old,))[0]
    except BaseException:
        disk.close()  # with the directory's lock
        raise


class _Rekeying:
    """Judges everything beside the log first, then changes one file after the other."""

    def __init__(self, data: Path, old: KeyFile, new: KeyFile) -> None:
        self.old = old
        self.new = new
        self._data = data
        self._local = data / LOCAL_DIR
        self._history = Path()
        self._found: Found | None = None
        self._stale: set[Path] = set()  # what is still under the old key

    def judge(self, installed: Installed | None) -> int:
        """The index the history holds; notes which stores are still under the old key."""
        number = installed.generation if installed is not None else FIRST_GENERATION
        path = self._history = generations.generation_path(self._data, number)
        self._found = found = self._look(path)
        if found is None:
            raise ConfigError(f"{path}: no history", "start the member once under its old key")
        audit = self._local / AUDIT_NAME
        if audit.exists():
            self._judge_audit(audit, self._audit_identity(found))
        for name in KEY_NAMES:
            if (self._local / name).exists():
                self._judge_signing(self._local / name)
        return found.applied

    def seeds(self) -> int:
        """Rewrap history and audit stream, a transaction each."""
        found, count = self._found, 0
        if found is not None and self._history in self._stale:
            history = History.open(self._history, found.identity, self.old, create=False)
            try:
                count += history.rewrap(self.new)
            finally:
                history.close()
        audit = self._local / AUDIT_NAME
        if found is not None and audit in self._stale:
            store = LocalStore.open(audit, self._audit_identity(found), self.old)
            try:
                count += store.rewrap(self.new)
            finally:
                store.close()
        return count

    def signing_keys(self) -> int:
        """Replace the files of the member's own keys, each in one step."""
        count = 0
        for name in KEY_NAMES:
            path = self._local / name
            if path in self._stale:
                raw = TokenKey.load_or_create(path, self.old).private.private_bytes_raw()
                write_file(path, self.new.wrap(raw, name.encode()), PRIVATE)
                count += 1
        return count

    def _look(self, path: Path) -> Found | None:
        try:
            return look(path, self.new)
        except ConfigError:
            found = look(path, self.old)
            self._stale.add(path)
            return found

    def _judge_audit(self, path: Path, identity: LocalIdentity) -> None:
        try:
            judge_local(path, identity, self.new)
        except ConfigError:
            judge_local(path, identity, self.old)
            self._stale.add(path)

    def _judge_signing(self, path: Path) -> None:
        try:
            TokenKey.load_or_create(path, self.new)
        except ConfigError:
            TokenKey.load_or_create(path, self.old)
            self._stale.add(path)

    @staticmethod
    def _audit_identity(found: Found) -> LocalIdentity:
        own = found.identity
        return LocalIdentity(own.cluster_id, own.member_id, own.store_id)
