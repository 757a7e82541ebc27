"""Opening what a member keeps: log, history, keys. And whether they fit together (Q3).

The log is opened first and says which generation of the history counts; the history's applied
index must lie within the log. Nothing is served, and nothing is written but what recovery needs,
before all of that is known.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from configsvc.codec.confstate import decode_conf_state
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.identity.member_ids import cluster_id, member_id
from configsvc.identity.tokens import TokenKey
from configsvc.raft.messages import ConfState, HardState
from configsvc.raft.storage import MemoryLog
from configsvc.server.joining import Joined
from configsvc.storage.disk import OsDisk, check_private_path
from configsvc.storage.history.engine import sync_dir
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History, stamped_identity
from configsvc.storage.local.messages import LocalIdentity
from configsvc.storage.local.store import LocalStore
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.generations import FIRST_GENERATION
from configsvc.storage.wal.format import FLAG_INSECURE
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.segments import read_header, segment_numbers
from configsvc.storage.wal.wal import Recovered, Wal
from configsvc.types import LogIndex, NodeId

STORE_ID_BYTES: Final = 16
JOINED_NAME: Final = "joined"
LOG_DIR: Final = "log"
LOCAL_DIR: Final = "local"


@dataclass(kw_only=True)
class Stores:
    """Everything opened, and what it says."""

    self_id: NodeId
    cluster_id: int
    store_id: bytes
    incarnation: int
    genesis: dict[int, tuple[str, ...]]  # id -> peer URLs; empty on a restart without flags
    first_start: bool
    key_file: KeyFile
    data_dir: Path
    identity: StoreIdentity
    generation: int  # of the history in use
    wal: Wal
    history: History
    reader: HistoryReader
    log: MemoryLog
    hard_state: HardState
    conf_state: ConfState
    applied: int
    last_index: int
    token_key: TokenKey
    log_key: TokenKey
    local: LocalStore  # the member's own audit stream


def genesis_ids(config: ServerConfig) -> dict[int, tuple[str, ...]]:
    """Members of --initial-cluster by id (P11)."""
    token = config.initial_cluster_token
    return {member_id(urls, token): urls for _, urls in config.genesis}


def own_genesis_id(config: ServerConfig) -> NodeId:
    """This member's id at a static bootstrap."""
    urls = dict(config.genesis)[config.name]
    return member_id(urls, config.initial_cluster_token)


def has_stores(config: ServerConfig) -> bool:
    """Whether the data directory was ever used: then it decides, and not the flags (P9)."""
    log = Path(os.path.abspath(config.data_dir)) / LOG_DIR
    return log.is_dir() and any(log.iterdir())


def open_stores(config: ServerConfig, joined: Joined | None = None) -> Stores:
    """Open or create.

    Args:
        config: The settings.
        joined: Where a member belongs that was added to a cluster and starts for the first time.

    Raises:
        ConfigError: exit 78, keys, paths or modes; nothing was touched.
        FatalError: exits 81 to 86.
        OSError: the disk failed.
    """
    data = Path(os.path.abspath(config.data_dir))
    key_file = KeyFile.load(config.key_file, data_dir=data)
    check_private_path(data, create_mode=0o700)
    for name in (LOG_DIR, LOCAL_DIR):
        check_private_path(data / name, create_mode=0o700)
    generations.prepare(data)
    disk = OsDisk(data / LOG_DIR, sync=not config.unsafe_no_fsync)
    if Wal.exists(disk):
        return _reopen(config, data, disk, key_file)
    return _create(config, data, disk, key_file, joined)


def _create(
    config: ServerConfig, data: Path, disk: OsDisk, key_file: KeyFile, joined: Joined | None
) -> Stores:
    if generations.present(data):
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            f"{data} holds a history but no log",
            "name an empty directory, or replace this member",
        )
    store_id = os.urandom(STORE_ID_BYTES)
    _note_joined(data, joined)  # before the log: a restart must know that nothing was ever here
    if joined is not None:
        members: dict[int, tuple[str, ...]] = {}
        identity = WalIdentity(joined.cluster_id, joined.self_id, store_id, config.insecure_dev)
    else:
        members = genesis_ids(config)
        identity = WalIdentity(
            cluster_id(members), own_genesis_id(config), store_id, config.insecure_dev
        )
    conf = ConfState(voters=tuple(sorted(NodeId(i) for i in members)))
    # The history first: a log without one is refused, a history without a log is made anew here.
    wal = Wal.create(disk, identity, key_file)
    epoch = joined.epoch if joined is not None else 0
    history = _open_history(data, identity, epoch, key_file, FIRST_GENERATION, create=True)
    return _stores(
        config, data, key_file, wal, history, identity, None, members, conf, first_start=True
    )


def _reopen(config: ServerConfig, data: Path, disk: OsDisk, key_file: KeyFile) -> Stores:
    opened: list[History] = []

    def sql_applied(installed: object) -> int:
        generation = getattr(installed, "generation", FIRST_GENERATION)
        opened.append(_peek_history(data, disk, key_file, generation))
        return opened[0].meta().applied

    wal, recovered = Wal.open(disk, key_file, sql_applied=sql_applied)
    identity = recovered.identity
    if identity.insecure != config.insecure_dev:
        wal.close()
        raise FatalError(
            ExitCode.WRONG_IDENTITY,
            "this store was born under --insecure-dev"
            if identity.insecure
            else "this store was not born under --insecure-dev",
            "start it as what it is; throwaway data stays throwaway data",
        )
    history = opened[0]
    born_empty = _joined_epoch(data) is not None
    members = genesis_ids(config) if config.initial_cluster and not born_empty else {}
    conf = ConfState(voters=tuple(sorted(NodeId(i) for i in members)))
    return _stores(
        config, data, key_file, wal, history, identity, recovered, members, conf, first_start=False
    )


def _peek_history(data: Path, disk: OsDisk, key_file: KeyFile, generation: int) -> History:
    """The history that the log names, opened with the log's own identity."""
    numbers = segment_numbers(disk)
    header = read_header(disk, numbers[-1], newest=True)
    identity = WalIdentity(
        header.cluster_id,
        header.member_id,
        header.store_id,
        bool(header.flags & FLAG_INSECURE),
    )
    # Whatever was compacted lies in the history only: one made anew would not hold it.
    oldest = read_header(disk, numbers[0], newest=len(numbers) == 1)
    fresh = generation == FIRST_GENERATION and oldest.first_index <= 1
    generations.keep_only(data, generation, required=not fresh)
    stamped = stamped_identity(generations.generation_path(data, generation))
    epoch = stamped.epoch if stamped is not None else _joined_epoch(data) or 0
    return _open_history(data, identity, epoch, key_file, generation, create=fresh)


def _note_joined(data: Path, joined: Joined | None) -> None:
    """Remember that this directory was born empty, with the cluster's epoch."""
    path = data / LOCAL_DIR / JOINED_NAME
    if joined is None:
        path.unlink(missing_ok=True)
        return
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{joined.epoch}\n")
        file.flush()
        os.fsync(file.fileno())
    sync_dir(path.parent)


def _joined_epoch(data: Path) -> int | None:
    """The cluster's epoch when this member was added to it; None: it was there from the start."""
    try:
        return int((data / LOCAL_DIR / JOINED_NAME).read_text("ascii"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            f"{data / LOCAL_DIR / JOINED_NAME} cannot be read",
            "replace this member",
        ) from None


def _open_history(
    data: Path,
    identity: WalIdentity,
    epoch: int,
    key_file: KeyFile,
    generation: int,
    *,
    create: bool,
) -> History:
    store = StoreIdentity(
        identity.cluster_id, identity.member_id, identity.store_id, identity.insecure, epoch
    )
    path = generations.generation_path(data, generation)
    return History.open(path, store, key_file, create=create, generation=generation)


def _stores(
    config: ServerConfig,
    data: Path,
    key_file: KeyFile,
    wal: Wal,
    history: History,
    identity: WalIdentity,
    recovered: Recovered | None,
    members: dict[int, tuple[str, ...]],
    genesis_conf: ConfState,
    *,
    first_start: bool,
) -> Stores:
    meta = history.meta()
    conf = decode_conf_state(meta.conf_state) if meta.conf_state else genesis_conf
    if not conf.voters and not conf.learners and _joined_epoch(data) is None:
        raise ConfigError(
            "--initial-cluster: needed until the first entry is applied", "give the same as before"
        )
    log = MemoryLog()
    hard = HardState()
    last = 0
    if recovered is not None:
        hard = recovered.hard_state
        last = recovered.last_index
        log = MemoryLog(recovered.first_index - 1, recovered.first_prev_term)
        log.append(recovered.entries)
        if hard.commit < meta.applied:  # the commit on disk is a hint (C6)
            hard = hard._replace(commit=LogIndex(meta.applied))
    local = data / LOCAL_DIR
    return Stores(
        self_id=NodeId(identity.member_id),
        cluster_id=identity.cluster_id,
        store_id=identity.store_id,
        incarnation=wal.incarnation,
        genesis=members,
        first_start=first_start,
        key_file=key_file,
        data_dir=data,
        identity=meta.identity,
        generation=meta.generation,
        wal=wal,
        history=history,
        reader=HistoryReader(history.path, meta.identity, key_file),
        log=log,
        hard_state=hard,
        conf_state=conf,
        applied=meta.applied,
        last_index=last,
        token_key=TokenKey.load_or_create(local / "token.key", key_file),
        log_key=TokenKey.load_or_create(local / "log.key", key_file),
        local=LocalStore.open(
            local / "audit.db",
            LocalIdentity(identity.cluster_id, identity.member_id, identity.store_id),
            key_file,
            sync=not config.unsafe_no_fsync,
        ),
    )
