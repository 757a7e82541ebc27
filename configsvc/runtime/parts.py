"""What one member is made of, opened and recovered by the composition root.

Not here: what the parts are joined to (``member``), opening them (``server.stores``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from configsvc.apply.applier import Applier
from configsvc.audit.levels import Levels
from configsvc.codec.records import RecordCache
from configsvc.config import ServerConfig
from configsvc.errors import FatalError
from configsvc.identity.etcd_tokens import EtcdTokens
from configsvc.identity.tokens import TokenKey
from configsvc.raft.messages import ConfState, HardState
from configsvc.raft.node import RawNode
from configsvc.raft.storage import MemoryLog
from configsvc.runtime.install import InstallStores
from configsvc.runtime.machine import LogWriter, Net
from configsvc.runtime.proposals import Clock
from configsvc.storage.local.writer import LocalWriter
from configsvc.types import NodeId

READER_THREADS: Final = 2  # of Parts.executor


class Report(Protocol):
    """The member's log."""

    def info(self, caller: str, msg: str, **fields: Any) -> None: ...

    def warn(self, caller: str, msg: str, **fields: Any) -> None: ...

    def error(self, caller: str, msg: str, **fields: Any) -> None: ...

    def debug(self, caller: str, msg: str, **fields: Any) -> None: ...


class PeerLink(Net, Protocol):
    """``transport``, as the member uses it."""

    def cork(self) -> None:
        """What is sent from here on waits for ``flush`` or ``uncork``."""

    def uncork(self) -> None:
        """The end of a pass: what still waits leaves."""

    def send_frame(self, peer: NodeId, kind: int, body: bytes, *, bulk: bool = False) -> bool: ...

    def set_peers(self, peers: dict[NodeId, Sequence[str]]) -> None: ...

    def set_removed(self, ids: Sequence[NodeId]) -> None: ...

    def active_since(self, peer: NodeId) -> float | None: ...

    def connected(self, peer: NodeId) -> bool: ...


@dataclass(kw_only=True)
class Parts:
    """What the composition root hands over, opened and recovered."""

    config: ServerConfig
    report: Report
    clock: Clock
    loop: asyncio.AbstractEventLoop
    self_id: NodeId
    cluster_id: int
    store_id: bytes
    incarnation: int
    raft: RawNode
    log: MemoryLog
    applier: Applier
    writer: LogWriter
    history: Any  # storage.history.HistoryWriter
    reader: Any  # storage.history.HistoryReader
    executor: Executor
    net: PeerLink
    conf_state: ConfState
    hard_state: HardState
    applied: int
    durable: int  # last index that the log holds
    written_revision: int
    history_durable: int  # applied index that SQL holds on disk
    token_key: TokenKey
    log_key: TokenKey
    etcd_tokens: EtcdTokens | None = None  # under --insecure-dev; None: tokens of our own
    wal: Any  # storage.wal.WalWriter: compact(up_to)
    install: InstallStores
    free_bytes: Callable[[], int]  # of the file system with log and history
    memory_used: Callable[[], int] = lambda: 0  # resident bytes of this process
    memory_bound: int = 0  # what it may have; 0: not known
    local: LocalWriter  # of stream L
    audit_levels: Levels
    records: RecordCache  # shared with the peer link
    bootstrap_op: bytes  # proposed by the first leader of a new cluster
    genesis: dict[int, tuple[str, ...]]  # id -> peer URLs of --initial-cluster
    die: Callable[[FatalError], None]  # ends the process with the error's code
