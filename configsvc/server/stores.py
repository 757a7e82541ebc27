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
from configsvc.errors import ExitCode, FatalError
from configsvc.identity.member_ids import cluster_id
from configsvc.identity.tokens import TokenKey
from configsvc.raft.messages import ConfState, HardState
from configsvc.raft.storage import MemoryLog
from configsvc.server.joining import Joined
from configsvc.server.judging import (
    AUDIT_NAME,
    KEY_NAMES,
    LOCAL_DIR,
    Judge,
    genesis_ids,
    own_genesis_id,
)
from configsvc.storage.disk import OsDisk, check_private_path
from configsvc.storage.history.engine import sync_dir
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.stamping import stamped_identity
from configsvc.storage.history.store import History
from configsvc.storage.local.messages import LocalIdentity
from configsvc.storage.local.store import LocalStore
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.generations import FIRST_GENERATION
from configsvc.storage.wal.recovery import WalIdentity
from configsvc.storage.wal.wal import Recovered, Wal
from configsvc.types import LogIndex, NodeId

STORE_ID_BYTES: Final = 16
JOINED_NAME: Final = "joined"
LOG_DIR: Final = "log"
NEW_KEY_SUFFIX: Final = ".new"
INITIAL_SETTINGS: Final = (
    "initial_advertise_peer_urls",
    "initial_cluster",
    "initial_cluster_state",
    "initial_cluster_token",
)


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


def has_stores(config: ServerConfig) -> bool:
    """Whether the data directory was ever used: then it decides, and not the flags (P9)."""
    log = Path(os.path.abspath(config.data_dir)) / LOG_DIR
    return log.is_dir() and any(log.iterdir())


def new_key_path(config: ServerConfig) -> str:
    """Where a key file lies that is to replace the member's (ENC-5)."""
    return f"{config.key_file}{NEW_KEY_SUFFIX}"


def load_key(config: ServerConfig) -> KeyFile:
    """The key file in force: the new one from the moment it is there, once there are stores.

    Raises:
        ConfigError: exit 78, it cannot be used.
    """
    changing = has_stores(config) and os.path.lexists(new_key_path(config))
    path = new_key_path(config) if changing else config.key_file
    return KeyFile.load(path, data_dir=os.path.abspath(config.data_dir))


def ignored_flags(config: ServerConfig, stores: Stores) -> list[str]:
    """The ``--initial-*`` flags that say something and decide nothing any more (P9).

    Nothing is ignored at a first start, nor until the first entry is applied: up to then only the
    flags name the cluster's members.
    """
    if stores.first_start or (stores.genesis and not stores.applied):
        return []
    plain = ServerConfig()
    return [
        "--" + name.replace("_", "-")
        for name in INITIAL_SETTINGS
        if getattr(config, name) != getattr(plain, name)
    ]


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
    key_file = load_key(config)
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
    if joined is not None:
        members: dict[int, tuple[str, ...]] = {}
        identity = WalIdentity(joined.cluster_id, joined.self_id, store_id, config.insecure_dev)
    else:
        members = genesis_ids(config)
        identity = WalIdentity(
            cluster_id(members), own_genesis_id(config), store_id, config.insecure_dev
        )
    conf = ConfState(voters=tuple(sorted(NodeId(i) for i in members)))
    _note_joined(data, joined)  # before the log: a restart must know that nothing was ever here
    # The history first: a log without one is refused, a history without a log is made anew here.
    wal = Wal.create(disk, identity, key_file)
    epoch = joined.epoch if joined is not None else 0
    history = _open_history(data, identity, epoch, key_file, FIRST_GENERATION, create=True)
    return _stores(
        config, data, key_file, wal, history, identity, None, members, conf, first_start=True
    )


def _reopen(config: ServerConfig, data: Path, disk: OsDisk, key_file: KeyFile) -> Stores:
    """Everything is judged together; only then is anything written or deleted."""
    judge = Judge(config, data, disk, key_file, born_empty=_joined_epoch(data) is not None)
    try:
        wal, recovered = Wal.open(disk, key_file, expect=judge.expected, sql_applied=judge.others)
    except BaseException:
        disk.close()  # with the directory's lock
        raise
    identity = recovered.identity
    generation = recovered.generation or FIRST_GENERATION
    generations.keep_only(data, generation, required=False)
    stamped = stamped_identity(generations.generation_path(data, generation))
    epoch = stamped.epoch if stamped is not None else _joined_epoch(data) or 0
    history = _open_history(data, identity, epoch, key_file, generation, create=stamped is None)
    members = _genesis_again(config, identity)
    conf = ConfState(voters=tuple(sorted(NodeId(i) for i in members)))
    return _stores(
        config, data, key_file, wal, history, identity, recovered, members, conf, first_start=False
    )


def _genesis_again(config: ServerConfig, identity: WalIdentity) -> dict[int, tuple[str, ...]]:
    """The first members, while the flags still name those; else the directory decides (P9)."""
    members = genesis_ids(config) if config.initial_cluster else {}
    return members if cluster_id(members) == identity.cluster_id else {}


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
        token_key=TokenKey.load_or_create(local / KEY_NAMES[0], key_file),
        log_key=TokenKey.load_or_create(local / KEY_NAMES[1], key_file),
        local=LocalStore.open(
            local / AUDIT_NAME,
            LocalIdentity(identity.cluster_id, identity.member_id, identity.store_id),
            key_file,
            sync=not config.unsafe_no_fsync,
        ),
    )
