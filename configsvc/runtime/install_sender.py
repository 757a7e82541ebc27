"""The leader's side of an install: reads the whole history and streams it to one member.

A window of chunks is under way, never more; reading is done in a thread that works in short slices
and rests between them (``install_pace``), so that writes keep their time. Every outcome, silence
included, is reported to the core exactly once, from outside the core's own steps.

Always true:
  * One install at a time; an offer for a second member fails at once, and the core asks again.
  * The log is held from the install's index until its member acknowledged beyond it.

Not here: the receiving side (``install_receiver``), what is in a chunk (``storage.snapshot``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from configsvc import limits
from configsvc.raft.messages import Message
from configsvc.runtime.install_frames import (
    FRAME_INSTALL_CHUNK,
    FRAME_INSTALL_OFFER,
    Answer,
    InstallStatus,
    Offer,
    encode_chunk_frame,
    encode_offer,
    window_open,
)
from configsvc.runtime.install_pace import Breath, Pace
from configsvc.runtime.interpreter import INTERPRETER
from configsvc.storage.snapshot.source import InstallSource
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member


class _Sending:
    """One install under way."""

    def __init__(self, peer: NodeId, install: int, index: int, source: Any, now: float) -> None:
        self.peer = peer
        self.install = install
        self.index = index  # the log is held behind it
        self.source = source
        self.chunks: Iterator[bytes] = source.chunks()
        self.unsent: bytes | None = None  # a chunk that the link had no room for
        self.sent = 0
        self.taken = 0
        self.bytes = 0
        self.read_all = False
        self.reading = False
        self.began = now
        self.heard = now
        self.connected_since: float | None = None


class InstallSender:
    """Sends at most one install."""

    def __init__(self, member: Member, executor: Executor) -> None:
        self._member = member
        self._executor = executor
        self._sending: _Sending | None = None
        self._held: tuple[NodeId, int, float] | None = None  # member, index, until
        self._next = 1
        self._pace = Pace(member.config.tick)
        self._not_before: dict[NodeId, float] = {}  # after failures, each pause twice the last
        self._pauses: dict[NodeId, float] = {}
        self.sent_total = 0
        self.failed_total = 0

    # --- what others ask -------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an install is under way: maintenance of the history waits (S3)."""
        return self._sending is not None

    def hold(self) -> int | None:
        """Highest index that the log may be cut to because of an install; None: no bound."""
        bounds = []
        if self._sending is not None:
            bounds.append(self._sending.index)
        if self._held is not None:
            bounds.append(self._held[1])
        return min(bounds, default=None)

    def begin(self, message: Message) -> None:
        """The core wants ``message.to`` to be installed. Called within a step of the core."""
        peer = message.to
        snapshot = message.snapshot
        member = self._member
        now = member.clock.monotonic()
        busy = self._sending is not None or now < self._not_before.get(peer, 0.0)
        if busy or snapshot is None or not member.net.connected(peer):
            member.loop.call_soon(self._report, peer, False)
            return
        install = self._next
        offer = encode_offer(Offer(install, message.term))
        if not member.net.send_frame(peer, FRAME_INSTALL_OFFER, offer, bulk=True):
            # A member that just came up is often reached on one lane before the other: nothing
            # failed that a pause would mend, and it joins no sooner than its first install.
            member.loop.call_soon(self._report, peer, False)
            return
        self._next += 1
        source = InstallSource(member.reader.current, Breath(self._pace))
        self._sending = sending = _Sending(peer, install, snapshot.index, source, now)
        sending.connected_since = member.net.active_since(peer)
        INTERPRETER.long_work_begins()
        member.report.info(
            "install", "install begins", peer=f"{peer:016x}", index=snapshot.index, install=install
        )
        member.loop.call_soon(self._pump, sending)

    def answered(self, peer: NodeId, answer: Answer) -> None:
        """The receiver says how it stands."""
        sending = self._sending
        if sending is None or (sending.peer, sending.install) != (peer, answer.install):
            return
        sending.heard = self._member.clock.monotonic()
        sending.taken = max(sending.taken, min(answer.taken, sending.sent))
        if answer.status is InstallStatus.DONE:
            self._end(sending, "")
        elif answer.status is InstallStatus.FAILED:
            self._end(sending, "the receiver gave it up")
        else:
            self._pump(sending)

    def demoted(self) -> None:
        """This member leads no more: nobody waits for a report."""
        self._held = None
        if self._sending is not None:
            self._end(self._sending, "leadership ended")
        self._not_before.clear()
        self._pauses.clear()

    def tick(self, now: float) -> None:
        """Give up what is silent or has no way; called every raft tick."""
        member = self._member
        sending = self._sending
        wal = member.wal
        kept = member.machine.log.bytes_retained
        self._pace.note(
            now, wal.frames_total, wal.sync_seconds_last, reading=self.busy, log_bytes=kept
        )
        if sending is not None:
            # Another connection is another start of the receiver, which knows nothing of this.
            if member.net.active_since(sending.peer) != sending.connected_since:
                self._end(sending, "the connection broke")
            elif now - sending.heard > limits.INSTALL_SILENCE_S:
                self._end(sending, "the receiver is silent")
            elif member.machine.log.bytes_retained > limits.LOG_RETAINED_BYTES_MAX:
                self._end(sending, "the log held for it is too long")
            else:
                self._pump(sending)
        held = self._held
        if held is not None and (now > held[2] or self._acknowledged(held[0], held[1])):
            self._held = None

    # --- inside ----------------------------------------------------------------------------------

    def _acknowledged(self, peer: NodeId, index: int) -> bool:
        progress = self._member.machine.raft.status().progress.get(peer)
        return progress is None or progress.match > index

    def _pump(self, sending: _Sending) -> None:
        """Send what waits; read on while the window is open."""
        if sending is not self._sending or sending.reading:
            return
        if sending.unsent is not None:
            body = encode_chunk_frame(sending.install, sending.unsent)
            if not self._member.net.send_frame(sending.peer, FRAME_INSTALL_CHUNK, body, bulk=True):
                return  # the next tick tries again, or finds the connection broken
            sending.sent += 1
            sending.bytes += len(sending.unsent)
            sending.unsent = None
        if not sending.read_all and window_open(sending.sent, sending.taken):
            sending.reading = True
            future = self._member.loop.run_in_executor(self._executor, next, sending.chunks, None)
            future.add_done_callback(lambda done: self._read(sending, done))

    def _read(self, sending: _Sending, done: asyncio.Future[bytes | None]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if sending is not self._sending:
            return
        if error is not None:
            self._member.report_failure(error)
            self._end(sending, "this member's history cannot be read")
            return
        sending.unsent = done.result()
        sending.reading = False
        if sending.unsent is None:
            sending.read_all = True
            return
        end = sending.source.end
        if end is not None:
            sending.index = end.index
        self._pump(sending)

    def _end(self, sending: _Sending, problem: str) -> None:
        if sending is not self._sending:
            return
        self._sending = None
        INTERPRETER.long_work_ends()
        member = self._member
        now = member.clock.monotonic()
        fields = {
            "peer": f"{sending.peer:016x}",
            "index": sending.index,
            "chunks": sending.sent,
            "bytes": sending.bytes,
            "seconds": round(now - sending.began, 3),
            "share": round(self._pace.share, 3),  # of a core, for reading, at its end
        }
        if problem:
            self.failed_total += 1
            pause = self._pauses.get(sending.peer, limits.INSTALL_PAUSE_S_MIN)
            self._not_before[sending.peer] = now + pause
            self._pauses[sending.peer] = min(2 * pause, limits.INSTALL_PAUSE_S_MAX)
            member.report.warn("install", "install failed", reason=problem, **fields)
        else:
            self.sent_total += 1
            self._not_before.pop(sending.peer, None)
            self._pauses.pop(sending.peer, None)
            self._held = (sending.peer, sending.index, now + limits.INSTALL_HOLD_S)
            member.report.info("install", "install done", **fields)
        # The generator may hold a read transaction: it ends where it runs.
        self._executor.submit(_close, sending.chunks)
        self._report(sending.peer, not problem)

    def _report(self, peer: NodeId, ok: bool) -> None:
        self._member.machine.raft.report_snapshot(peer, ok)
        self._member.wake()


def _close(chunks: Any) -> None:
    chunks.close()
