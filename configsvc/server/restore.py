"""Disaster recovery: a cluster of one out of a backup, or out of one surviving member (G4).

Both are offline and make new stores from an old history: every row, leaf and user stays, sealed
under this member's keys again; cluster id, epoch, store id and member list are new. The revision
leaps ahead and everything older is marked compacted, so that watchers are cancelled and caches
rebuilt instead of going on over a past that may have been different. Members of the old cluster
are refused (85); keys and tokens they signed with no longer count.

Not here: putting the new stores in place (``server.rebirth``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from configsvc.apply.applier import Applier
from configsvc.apply.commands import Effects, MemberChangeOp
from configsvc.apply.members import ADD, Members
from configsvc.apply.state import META_COMPACT, ApplyState
from configsvc.codec.command import CommandDecoder
from configsvc.codec.confstate import encode_conf_state
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.limits import MIB, READY_ENTRIES_MAX
from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.messages import ConfState, Entry, EntryKind, HardState
from configsvc.runtime.restore import adopt, read_stored
from configsvc.server import rebirth
from configsvc.server.stores import STORE_ID_BYTES, Stores, has_stores, open_stores
from configsvc.storage.disk import OsDisk, check_private_path
from configsvc.storage.history.filling import FillingHistory
from configsvc.storage.history.messages import Actor, CommitInfo, Meta, Opening, StoreIdentity
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.stamping import stamped_identity
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot.source import InstallSource
from configsvc.storage.snapshot.stream import ChunkKind, decode_chunk
from configsvc.storage.wal.format import Installed
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.wal import Wal
from configsvc.types import LogIndex, NodeId, Term

REVISION_LEAP: Final = 1_000_000_000
_GENERATION: Final = 2  # never the first: a lost first one may be made anew, this one may not
_HASH_BYTES: Final = 32  # SHA-256, the end of a backup
_SQLITE_HEAD: Final = 100
_COMMIT_FIELDS: Final = len(CommitInfo._fields)


class NewCluster(NamedTuple):
    """What became of the old one."""

    cluster_id: int
    member_id: int
    epoch: int
    revision: int  # visible now; everything below is compacted
    applied: int


# --- out of a backup ------------------------------------------------------------------------------


def restore_backup(
    backup: Path,
    data_dir: Path,
    *,
    member_id: NodeId,
    peer_urls: tuple[str, ...],
    key_file: KeyFile,
    source_key_file: KeyFile,
) -> NewCluster:
    """Make the data directory of a cluster of one out of a backup.

    Args:
        backup: What ``snapshot save`` wrote: the sealed store and its SHA-256.
        data_dir: Empty or absent.
        member_id: Of the one member; its certificate names it.
        peer_urls: Its advertised peer URLs.
        key_file: Seals the new stores.
        source_key_file: Of the member that the backup was taken from.

    Raises:
        ConfigError: 78, the directory is in use, the backup is damaged, or the key is another.
        FatalError: 84 to 86, the store in the backup is damaged or too new.
    """
    check_private_path(data_dir, create_mode=0o700)
    rebirth.finish(data_dir)
    if any(data_dir.iterdir()):
        raise ConfigError(f"{data_dir} is not empty", "name an empty directory")
    place = rebirth.begin(data_dir)
    copy = place / "source.db"
    _extract(backup, copy)
    identity = stamped_identity(copy)
    if identity is None:
        raise ConfigError(f"{backup}: no store in it", "name a file of `configctl snapshot save`")
    history = History.open(copy, identity, source_key_file, create=False)
    try:
        made = _rebuild(history, source_key_file, place, member_id, peer_urls, key_file)
    finally:
        history.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{copy}{side}").unlink(missing_ok=True)
    rebirth.commit(data_dir, f"{identity.cluster_id:016x}")
    return made


def _extract(backup: Path, target: Path) -> None:
    """Check the backup's hash while copying the database out of it."""
    digest = hashlib.sha256()
    try:
        size = backup.stat().st_size - _HASH_BYTES
        with open(backup, "rb") as source, open(target, "xb") as sink:
            os.fchmod(sink.fileno(), 0o600)
            left = size
            while left > 0 and (piece := source.read(min(MIB, left))):
                digest.update(piece)
                sink.write(piece)
                left -= len(piece)
            if left or source.read() != digest.digest():
                raise ConfigError(f"{backup} is damaged", "its hash is wrong: take another one")
            sink.flush()
        with open(target, "r+b") as sink:
            head = sink.read(_SQLITE_HEAD)
            # The stream is padded; what SQLite has is in the head: page size and page count.
            page = int.from_bytes(head[16:18], "big")
            sink.truncate((65_536 if page == 1 else page) * int.from_bytes(head[28:32], "big"))
            os.fsync(sink.fileno())
    except OSError as error:
        raise ConfigError(f"{backup}: {error.strerror}", "name a readable backup") from None


# --- out of a surviving member --------------------------------------------------------------------


def force_new_cluster(config: ServerConfig) -> NewCluster | None:
    """Make this member's stores those of a cluster of one. Nothing it holds is given up.

    Entries that its log holds beyond the known commit are kept: somebody may have been told that
    they were written.

    Returns:
        None when it is alone already: the flag may stay on the command line.

    Raises:
        ConfigError: 78, there are no stores here.
        FatalError: as a start does.
    """
    if not has_stores(config):
        raise ConfigError(
            "--force-new-cluster: this member has no data",
            "start it where its data is, or restore a backup",
        )
    stores = open_stores(config)
    try:
        state = _replay(config, stores)
        if set(state.members.by_id) == {stores.self_id}:
            return None
        place = rebirth.begin(stores.data_dir)
        own = state.members.by_id.get(stores.self_id)
        urls = own.peer_urls if own is not None else config.advertised_peers
        key_file = stores.key_file
        made = _rebuild(
            stores.history,
            key_file,
            place,
            stores.self_id,
            urls,
            key_file,
            term=stores.hard_state.term,
        )
    finally:
        stores.reader.close()
        stores.history.close()
        stores.wal.close()
        stores.local.close()
    rebirth.commit(stores.data_dir, f"{stores.cluster_id:016x}")
    return made


def _replay(config: ServerConfig, stores: Stores) -> ApplyState:
    """Apply what the log holds above the history; the history holds it then, too."""
    state = ApplyState(quota_bytes=config.quota_backend_bytes or 2 << 30)
    if stores.applied:
        adopt(state, read_stored(stores.history), stores.history.load_live())
    applier = Applier(state)
    decoder = CommandDecoder()
    log = stores.log
    effects: list[Effects] = []
    low, high = stores.applied + 1, log.last_index() + 1
    while low < high:
        for entry in log.entries(low, min(high, low + READY_ENTRIES_MAX), 64 * MIB):
            effects.append(_apply(applier, decoder, entry))
            low = entry.index + 1
        stores.history.write(effects)
        effects = []
    stores.history.checkpoint(wait_s=5.0)
    return state


def _apply(applier: Applier, decoder: CommandDecoder, entry: Entry) -> Effects:
    data = entry.data
    if entry.kind in (EntryKind.CONF_CHANGE, EntryKind.CONF_CHANGE_V2):
        data = decode_conf_change(data).context
    elif entry.kind != EntryKind.NORMAL:
        raise FatalError(
            ExitCode.TOO_NEW,
            f"log entry {entry.index} is of unknown kind {entry.kind}",
            "start the release that wrote it",
        )
    return applier.apply(entry.index, entry.term, decoder.decode(data) if data else None)


# --- the new stores -------------------------------------------------------------------------------


def _rebuild(
    history: History,
    source_key_file: KeyFile,
    place: Path,
    member_id: NodeId,
    peer_urls: tuple[str, ...],
    key_file: KeyFile,
    *,
    term: int = 0,
) -> NewCluster:
    """New stores in ``place`` out of ``history``, which nobody writes meanwhile."""
    meta = history.meta()
    if not meta.applied:
        raise ConfigError("there is nothing in this store", "start a new cluster instead")
    old = meta.identity
    identity = StoreIdentity(
        int.from_bytes(os.urandom(8), "big") or 1,
        member_id,
        os.urandom(STORE_ID_BYTES),
        old.insecure,
        old.epoch + 1,
    )
    conf = ConfState(voters=(member_id,))
    after = meta._replace(
        term=max(meta.term, term),
        visible_revision=meta.visible_revision + REVISION_LEAP,
        conf_state=encode_conf_state(conf),
    )
    reader = HistoryReader(history.path, old, source_key_file)
    try:
        _fill(reader, place, identity, key_file, after, peer_urls)
    finally:
        reader.close()
    _new_log(place, identity, key_file, after)
    return NewCluster(
        identity.cluster_id, member_id, identity.epoch, after.visible_revision, after.applied
    )


def _fill(
    reader: HistoryReader,
    place: Path,
    identity: StoreIdentity,
    key_file: KeyFile,
    after: Meta,
    peer_urls: tuple[str, ...],
) -> None:
    """Every row and leaf as it was; the small tables as a cluster of one has them."""
    path = place / "sql" / f"gen-{_GENERATION}.db"
    filling = FillingHistory.open(path, identity, key_file, create=True, generation=_GENERATION)
    try:
        source = InstallSource(reader)
        tables: dict[str, list[tuple[Any, ...]]] = {}
        for chunk in map(decode_chunk, source.chunks()):
            if chunk.kind is ChunkKind.ROWS:
                filling.add_rows(chunk.records)
            elif chunk.kind is ChunkKind.COMMITS:
                filling.add_commits(list(_commits(chunk.records)))
            elif chunk.kind is ChunkKind.ACTORS:
                filling.add_actors(Actor._make(record) for record in chunk.records)
            elif chunk.kind is ChunkKind.TABLES:
                for name, *row in chunk.records:
                    tables.setdefault(name, []).append(tuple(row))
        alone = _tables_alone(tables, identity, peer_urls, after.visible_revision)
        for name, rows in alone.items():
            filling.add_table_rows(name, rows)
        if source.end is None:
            raise ConfigError("the history could not be read to its end", "check the disk")
        filling.complete(after, source.end.tree_root, source.end.rows)
        filling.close()
    except BaseException:
        filling.abandon()
        raise


def _commits(
    records: list[tuple[Any, ...]],
) -> Iterator[tuple[CommitInfo, Opening | None]]:
    for record in records:
        rest = record[_COMMIT_FIELDS:]
        yield CommitInfo._make(record[:_COMMIT_FIELDS]), Opening._make(rest) if rest else None


def _tables_alone(
    tables: dict[str, list[tuple[Any, ...]]],
    identity: StoreIdentity,
    peer_urls: tuple[str, ...],
    revision: int,
) -> dict[str, list[tuple[Any, ...]]]:
    """The small tables without the other members, their alarms, keys and anchors."""
    made = {n: r for n, r in tables.items() if n not in ("alarms", "anchors", "members")}
    gone = {row[0] for name in ("members", "removed_members") for row in tables.get(name, ())}
    made["removed_members"] = [(who,) for who in sorted(gone - {identity.member_id})]
    members = Members()
    members.genesis([MemberChangeOp(ADD, identity.member_id, tuple(sorted(peer_urls)), False)])
    made["members"] = members.rows()
    made["signing_keys"] = [_key_put_away(row) for row in tables.get("signing_keys", ())]
    meta = dict(tables.get("meta", ()))
    meta[META_COMPACT] = b"%d" % revision
    made["meta"] = sorted(meta.items())
    return made


def _key_put_away(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tokens of before end; checkpoints signed before stay verifiable."""
    kid, use, member, public, state, since = row
    after = "removed" if use == "token" else "retired"
    return kid, use, member, public, state if state == "removed" else after, since


def _new_log(place: Path, identity: StoreIdentity, key_file: KeyFile, meta: Meta) -> None:
    """A log that begins behind what the history holds."""
    owner = WalIdentity(
        identity.cluster_id, identity.member_id, identity.store_id, identity.insecure
    )
    wal = Wal.create(OsDisk(place / "log"), owner, key_file)
    hard = HardState(Term(meta.term), NodeId(0), LogIndex(meta.applied))
    wal.install(hard, Installed(meta.applied, meta.term, meta.conf_state, _GENERATION))
    wal.close_clean()
