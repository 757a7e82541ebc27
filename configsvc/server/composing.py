"""Joins opened stores, threads and the peer link to one member.

The link, the log's thread and the history's thread exist before the member whose callbacks they
call; until ``Composed.member`` is set nothing of theirs runs.

Not here: opening the stores (``stores``), ports and signals (``run``).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from configsvc.apply.applier import Applier
from configsvc.codec.records import RecordCache
from configsvc.config import ServerConfig
from configsvc.identity.certificate import LeafIdentity
from configsvc.raft.messages import Message
from configsvc.runtime.install import InstallStores
from configsvc.runtime.member import Member
from configsvc.runtime.parts import READER_THREADS, Parts
from configsvc.runtime.scrubbing import Scrubber
from configsvc.server.ends import Ends
from configsvc.server.etcd_tokens import open_etcd_tokens
from configsvc.server.loading import bootstrap, load_raft, load_state
from configsvc.server.local import audit_levels, local_writer
from configsvc.server.logs import Log
from configsvc.server.memory import bound_bytes, used_bytes
from configsvc.server.peers import is_revoked, misbehaving
from configsvc.server.rotation import KeyRotation
from configsvc.server.stores import LOG_DIR, Stores
from configsvc.server.tls import peer_tls
from configsvc.storage.disk import OsDisk
from configsvc.storage.history.store import History
from configsvc.storage.history.writer import HistoryWriter
from configsvc.storage.wal.writer import WalWriter
from configsvc.transport.hello import Hello, Refusal
from configsvc.transport.joining import JoinQuestion
from configsvc.transport.link import HelloState, PeerTransport
from configsvc.types import NodeId


class Clock:
    """The system's clocks."""

    monotonic = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)


class Composed:
    """A member with its threads and its peer link, not started."""

    def __init__(
        self,
        config: ServerConfig,
        log: Log,
        ends: Ends,
        loop: asyncio.AbstractEventLoop,
        stores: Stores,
    ) -> None:
        self._config = config
        self._log = log
        self._ends = ends
        self._loop = loop
        self._key_file = stores.key_file
        self._log_files = OsDisk(stores.data_dir / LOG_DIR)
        records = RecordCache()
        self.wal = WalWriter(
            stores.wal,
            on_durable=lambda token: self._on_loop(self.member.on_durable, token),
            on_space=lambda ok: self._on_loop(self._on_space, ok),
            die=ends.die,
        )
        self._history = self._history_writer(stores.history)
        self._local = local_writer(
            stores.local, lambda: self.member.audit, self._on_loop, ends.storage_failed
        )
        self.peers = self._peer_link(stores, records)
        self.member: Member = Member(self._parts(stores, records))
        # An install replaces the writer.
        self.member.gate.hurry = lambda: self.member.history.hurry()

    def rotation(self, config: ServerConfig) -> KeyRotation:
        """What changes the key of these stores."""
        return KeyRotation(config, self.member, self.wal, self._local, self._key_file, self._log)

    def scrubber(self) -> Scrubber:
        """What reads these stores again."""
        return Scrubber(self.member, self._log_files)

    def start(self) -> None:
        """Start the threads; the member itself starts when its ports are bound."""
        self.wal.start()
        self._history.start()
        self._local.start()

    def _parts(self, stores: Stores, records: RecordCache) -> Parts:
        config = self._config
        state = load_state(config, stores)
        return Parts(
            config=config,
            report=self._log,
            clock=Clock(),
            loop=self._loop,
            self_id=stores.self_id,
            cluster_id=stores.cluster_id,
            store_id=stores.store_id,
            incarnation=stores.incarnation,
            raft=load_raft(config, stores),
            log=stores.log,
            applier=Applier(state),
            writer=self.wal,
            history=self._history,
            reader=stores.reader,
            executor=ThreadPoolExecutor(READER_THREADS, thread_name_prefix="history-reader"),
            net=self.peers,
            conf_state=stores.conf_state,
            hard_state=stores.hard_state,
            applied=stores.applied,
            durable=stores.last_index,
            written_revision=state.store.revision,
            history_durable=stores.history.durable,
            token_key=stores.token_key,
            log_key=stores.log_key,
            etcd_tokens=open_etcd_tokens(config),
            wal=self.wal,
            install=InstallStores(
                data_dir=stores.data_dir,
                identity=stores.identity,
                key_file=stores.key_file,
                generation=stores.generation,
                new_writer=self._history_writer,
            ),
            local=self._local,
            audit_levels=audit_levels(),
            free_bytes=lambda: shutil.disk_usage(stores.data_dir).free,
            memory_used=used_bytes,
            memory_bound=bound_bytes(),
            records=records,
            bootstrap_op=bootstrap(config, stores),
            genesis=stores.genesis,
            die=self._ends.die,
        )

    def _history_writer(self, history: History) -> HistoryWriter:
        """The writer of one generation; one that an install replaced is not listened to."""

        def written(index: int, revision: int) -> None:
            if self.member.history is writer:
                self.member.on_written(index, revision)

        def durable(index: int) -> None:
            if self.member.history is writer:
                self.member.on_history_durable(index)

        def failed(error: BaseException) -> None:
            if self.member.history is writer:
                self._ends.storage_failed(error)

        writer = HistoryWriter(
            history,
            on_written=lambda index, revision: self._on_loop(written, index, revision),
            on_durable=lambda index: self._on_loop(durable, index),
            on_fatal=failed,
        )
        return writer

    def _peer_link(self, stores: Stores, records: RecordCache) -> PeerTransport:
        def state() -> HelloState:
            return HelloState(self.member.machine.raft.term, self.member.machine.durable)

        tls = peer_tls(self._config, stores.self_id)

        def denied(leaf: LeafIdentity) -> bool:
            if tls is not None and leaf.serial_hex in tls.revocations.serials:
                return True
            return is_revoked(self.member.state.auth, leaf, time.time_ns())

        return PeerTransport(
            loop=self._loop,
            self_id=stores.self_id,
            cluster_id=stores.cluster_id,
            store_id=stores.store_id,
            incarnation=stores.incarnation,
            insecure=self._config.insecure_dev,
            tls=tls,
            state=state,
            handler=_Handler(self),
            records=records,
            report=self._log,
            now=lambda: int(time.time()),
            epoch=stores.identity.epoch,
            on_gone=lambda peer: self.member.elections.refused(peer),
            on_refused=lambda peer, refusal: self.member.membership.refused(peer, refusal),
            on_misbehaved=misbehaving(self._log, lambda: self.member.audit),
            denied=denied,
        )

    def _on_space(self, ok: bool) -> None:
        self.member.disk.log_space(ok)

    def _on_loop(self, call: Callable[..., None], *args: Any) -> None:
        """From another thread; a loop that is closed already needs nothing any more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


class _Handler:
    """Peers' messages to the member, which exists once the link does."""

    def __init__(self, composed: Composed) -> None:
        self._composed = composed

    def on_messages(self, peer: NodeId, messages: Sequence[Message]) -> None:
        self._composed.member.on_messages(peer, messages)

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None:
        self._composed.member.on_frame(peer, kind, body)

    def on_hello(self, peer: NodeId, hello: Hello) -> str | Refusal:
        return self._composed.member.membership.judge_hello(peer, hello)

    def on_join(self, question: JoinQuestion) -> NodeId | Refusal:
        return self._composed.member.membership.admit(question)

    def on_unreachable(self, peer: NodeId) -> None:
        self._composed.member.on_unreachable(peer)
