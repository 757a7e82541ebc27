"""Installs of one member, both directions, and the switch to an installed generation.

Takes snapshots out of what the core sends and streams the history instead; names the snapshot
that a peer would get; and, once an INSTALLED frame is durable, makes the generation behind it this
member's history and state. Callers, watches and questions live through the switch: writes that
may lie inside the install are told as doubtful, watches go on from history.

Not here: streaming (``install_sender``, ``install_receiver``), what an install consists of
(``storage.snapshot``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from configsvc.errors import ensure
from configsvc.raft.errors import SnapshotTemporarilyUnavailable
from configsvc.raft.messages import Message, MessageType, Snapshot
from configsvc.runtime.install_frames import (
    FRAME_INSTALL_ANSWER,
    FRAME_INSTALL_CHUNK,
    decode_answer,
    decode_chunk_frame,
    decode_offer,
)
from configsvc.runtime.install_receiver import InstallReceiver
from configsvc.runtime.install_sender import InstallSender
from configsvc.runtime.restore import adopt
from configsvc.runtime.worker import Worker
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.sink import InstallSink
from configsvc.types import LogIndex, NodeId, Term

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

OLD_READER_S: Final = 5.0  # questions that were on their way to the old generation have ended


@dataclass(kw_only=True)
class InstallStores:
    """What installs need of the stores; made by the composition root."""

    data_dir: Path
    identity: StoreIdentity
    key_file: KeyFile
    generation: int  # the live one
    new_writer: Callable[[History], Any]  # a history writer, not started, wired to the member
    executor: Executor = field(default_factory=lambda: Worker("install"))


class CurrentReader:
    """The history reader of the live generation, under one name for good."""

    def __init__(self, reader: Any) -> None:
        self.current = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)


class Installs:
    """Also the core's network: snapshots take another way than messages."""

    def __init__(self, member: Member, stores: InstallStores) -> None:
        self._member = member
        self._stores = stores
        self._executor = stores.executor
        self.sender = InstallSender(member, self._executor)
        self.receiver = InstallReceiver(member, self._executor, self._new_sink)

    def _new_sink(self) -> InstallSink:
        stores = self._stores
        number = generations.next_number(stores.data_dir, stores.generation)
        return InstallSink(stores.data_dir, stores.identity, stores.key_file, number)

    def use_key_file(self, key_file: KeyFile) -> None:
        """What installs from now on are sealed under; not while one is received."""
        ensure(not self.receiver.busy, "an install that began keeps its key")
        self._stores.key_file = key_file

    # --- the core's network ----------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages to the link; a snapshot becomes an install."""
        for message in messages:
            if message.type is MessageType.SNAP:
                break
        else:
            self._member.net.send(messages)
            return
        self._member.net.send([m for m in messages if m.type is not MessageType.SNAP])
        for message in messages:
            if message.type is MessageType.SNAP:
                self.sender.begin(message)

    def flush(self) -> None:
        self._member.net.flush()

    def name_snapshot(self) -> Snapshot:
        """What a peer would be offered: the index that SQL holds now. The stream may end later.

        Raises:
            SnapshotTemporarilyUnavailable: an install is under way, or SQL holds nothing yet.
        """
        member = self._member
        index = member.gate.written
        if self.sender.busy or index < 1:
            raise SnapshotTemporarilyUnavailable
        term = member.machine.log.term(index)
        return Snapshot(LogIndex(index), Term(term), member.machine.conf_state)

    # --- frames and time -------------------------------------------------------------------------

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None:
        """One of ``INSTALL_FRAMES``.

        Raises:
            DecodeError: malformed; the connection is closed.
        """
        if kind == FRAME_INSTALL_CHUNK:
            self.receiver.chunk(peer, *decode_chunk_frame(body))
        elif kind == FRAME_INSTALL_ANSWER:
            self.sender.answered(peer, decode_answer(body))
        else:
            self.receiver.offered(peer, decode_offer(body))

    @property
    def busy(self) -> bool:
        """Whether an install runs in either direction: physical maintenance waits (S3)."""
        return self.sender.busy or self.receiver.busy

    def tick(self, now: float) -> None:
        """Called every raft tick."""
        self.sender.tick(now)
        self.receiver.tick(now)

    # --- the switch ------------------------------------------------------------------------------

    def switch(self) -> None:
        """The INSTALLED frame is durable: its generation becomes this member's."""
        member = self._member
        taken = self.receiver.take()
        index = taken.installed.index
        before = member.store.revision
        old_writer, old_reader = member.history, member.reader.current
        old_generation = self._stores.generation
        adopt(member.state, taken.stored, taken.live)
        self._stores.generation = taken.installed.generation
        member.history = self._stores.new_writer(taken.history)
        member.history.start()
        member.reader.current = HistoryReader(
            taken.history.path, self._stores.identity, self._stores.key_file
        )
        member.switched(index, taken.installed.digest, before)
        self._member.wal.compact(index)

        def clear_away() -> None:
            old_writer.close(None)
            generations.remove(self._stores.data_dir, old_generation)

        def later() -> None:
            self._executor.submit(old_reader.close)

        self._executor.submit(clear_away)
        member.loop.call_later(OLD_READER_S, later)
