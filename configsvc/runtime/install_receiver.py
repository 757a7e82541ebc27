"""The receiving side of an install: fills a fresh generation, proves it, and hands it over (S2).

    offered → filling → checking → loading → stepped → installed
                 └──────────┴──────────┴────────┴→ discarded

Filling, checking and reading run in a thread; live rows enter memory on the loop, a slice at a
time. Only a generation that is whole is told to the core. If the core takes it, its INSTALLED
frame is synced and ``take`` hands everything over; if not, the log has caught up meanwhile and the
generation is deleted.

Always true:
  * The live generation, log and state are untouched until the INSTALLED frame is durable.
  * One install at a time; a second offer replaces the first only before the core was told (S3).
  * While one runs this member does not campaign (E2); one whose sender is gone does not run.

Not here: the switch itself (``install``), the sending side (``install_sender``).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from configsvc import limits
from configsvc.codec.confstate import decode_conf_state
from configsvc.errors import ConfigServiceError, DecodeError
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.messages import Row
from configsvc.raft.messages import Message, MessageType, Snapshot
from configsvc.runtime.install_frames import (
    FRAME_INSTALL_ANSWER,
    Answer,
    InstallStatus,
    Offer,
    encode_answer,
)
from configsvc.runtime.restore import Stored, read_stored
from configsvc.storage.history.store import History
from configsvc.storage.snapshot.sink import Installed, InstallSink
from configsvc.types import LogIndex, NodeId, Term

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

R = TypeVar("R")

# What can go wrong with a stream or with the disk it is written to. The live stores are untouched.
_FAILURES = (ConfigServiceError, OSError, sqlite3.Error, SQLAlchemyError)


class Taken(NamedTuple):
    """An installed generation, loaded and ready to become the member's state."""

    installed: Installed
    history: History
    stored: Stored
    live: LiveRows


class _Receiving:
    """One install under way."""

    def __init__(self, peer: NodeId, offer: Offer, now: float) -> None:
        self.peer = peer
        self.offer = offer
        self.sink: InstallSink | None = None
        self.waiting: deque[bytes] = deque()  # chunks that the thread has not taken
        self.fed = 0
        self.working = True  # the thread has something of ours
        self.whole = False  # the last chunk was fed
        self.installed: Installed | None = None
        self.stored: Stored | None = None
        self.live = LiveRows()
        self.slices: Iterator[list[Row]] | None = None
        self.message: Message | None = None  # for the core, once everything is loaded
        self.stepped = False
        self.heard = now
        self.told = now
        self.began = now
        self.connected_since: float | None = None  # of the sender; not known before the first tick


class InstallReceiver:
    """Takes at most one install."""

    def __init__(
        self, member: Member, executor: Executor, new_sink: Callable[[], InstallSink]
    ) -> None:
        self._member = member
        self._executor = executor
        self._new_sink = new_sink
        self._receiving: _Receiving | None = None
        self.installed_total = 0
        self.discarded_total = 0

    @property
    def busy(self) -> bool:
        """Whether an install is being received."""
        return self._receiving is not None

    # --- what the leader sends -------------------------------------------------------------------

    def offered(self, peer: NodeId, offer: Offer) -> None:
        """A leader wants to install this member."""
        member = self._member
        before = self._receiving
        stale = offer.term < member.term
        if stale or (before is not None and before.stepped):
            self._answer(peer, Answer(offer.install, 0, InstallStatus.FAILED))
            return
        if before is not None:
            self._discard(before, "replaced by another offer")
        now = member.clock.monotonic()
        self._receiving = receiving = _Receiving(peer, offer, now)
        member.handover.set_fit("install", fit=False)
        member.report.info("install", "install offered", peer=f"{peer:016x}", term=offer.term)

        def opened(sink: InstallSink) -> None:
            receiving.sink = sink
            self._feed(receiving)

        self._run(receiving, self._new_sink, opened)

    def chunk(self, peer: NodeId, install: int, data: bytes) -> None:
        """A piece of the stream.

        Raises:
            DecodeError: more pieces than the window allows.
        """
        receiving = self._receiving
        if receiving is None or (receiving.peer, receiving.offer.install) != (peer, install):
            return  # of an install that was given up here: the sender hears so or times out
        if receiving.whole or len(receiving.waiting) >= limits.INSTALL_CHUNKS_IN_FLIGHT_MAX:
            raise DecodeError("install chunk that nobody asked for")
        receiving.heard = self._member.clock.monotonic()
        receiving.waiting.append(data)
        self._feed(receiving)

    def tick(self, now: float) -> None:
        """Signs of life for the sender; an end to a sender that has none. Every raft tick."""
        receiving = self._receiving
        if receiving is None:
            return
        busy = receiving.working or receiving.whole  # else it waits for the sender
        if not receiving.whole and (gone := self._gone(receiving)):
            # Not after the silence: who is being installed does not campaign, and the others may
            # need this member's vote, or its candidacy, as soon as the sender is gone.
            self._fail(receiving, gone)
        elif not busy and now - receiving.heard > limits.INSTALL_SILENCE_S:
            self._fail(receiving, "the sender is silent")
        elif busy and now - receiving.told >= limits.INSTALL_ALIVE_S:
            self._tell(receiving, InstallStatus.GOING_ON)
        self._step(receiving)

    def _gone(self, receiving: _Receiving) -> str:
        """Why no more chunks will come; empty: they may."""
        if receiving.offer.term < self._member.term:
            return "of a term that is over"
        since = self._member.net.active_since(receiving.peer)
        if receiving.connected_since is None:
            receiving.connected_since = since  # the lane that brought the offer may be the first
        # Another connection is another start of the sender, which knows nothing of this.
        return "" if since == receiving.connected_since else "the connection broke"

    # --- filling ---------------------------------------------------------------------------------

    def _feed(self, receiving: _Receiving) -> None:
        if receiving.working or not receiving.waiting or receiving.sink is None:
            return
        sink, data = receiving.sink, receiving.waiting.popleft()

        def fed(last: bool) -> None:
            receiving.fed += 1
            receiving.whole = last
            self._tell(receiving, InstallStatus.GOING_ON)
            if last:
                self._run(receiving, sink.finish, finished)
            else:
                self._feed(receiving)

        def finished(installed: Installed) -> None:
            receiving.installed = installed
            self._run(receiving, lambda: read_stored(sink.history), stored)

        def stored(found: Stored) -> None:
            receiving.stored = found
            receiving.slices = sink.history.load_live_slices()
            self._load(receiving)

        self._run(receiving, lambda: sink.feed(data), fed)

    def _load(self, receiving: _Receiving) -> None:
        """The next slice of live rows: read and opened in the thread, added on the loop."""
        slices = receiving.slices

        def read() -> list[Row] | None:
            return next(slices, None) if slices is not None else None

        def loaded(rows: list[Row] | None) -> None:
            if rows is None:
                self._complete(receiving)
            else:
                receiving.live.add(rows)
                self._load(receiving)

        self._run(receiving, read, loaded)

    def _complete(self, receiving: _Receiving) -> None:
        installed = receiving.installed
        if installed is None:
            return
        receiving.message = Message(
            MessageType.SNAP,
            to=self._member.self_id,
            from_=receiving.peer,
            term=Term(receiving.offer.term),
            snapshot=Snapshot(
                LogIndex(installed.index),
                Term(installed.term),
                decode_conf_state(installed.conf_state),
            ),
        )
        self._step(receiving)

    # --- the core --------------------------------------------------------------------------------

    def idle(self) -> None:
        """No write is in flight: the core can take a snapshot now."""
        if self._receiving is not None:
            self._step(self._receiving)

    def _step(self, receiving: _Receiving) -> None:
        """Tell the core. It would ignore a snapshot while entries wait to be applied."""
        message, installed = receiving.message, receiving.installed
        machine = self._member.machine
        if message is None or installed is None or receiving.stepped or machine.writing:
            return
        machine.step((message,))
        if machine.raft.snapshot_waiting == installed.index:
            receiving.stepped = True
            self._member.wake()
            return
        if self._member.applied >= installed.index:
            self._tell(receiving, InstallStatus.DONE)
            self._discard(receiving, "the log has caught up")
        else:
            self._fail(receiving, "of a term that is over")

    def generation(self) -> int:
        """Of the install that the core took; its INSTALLED frame is about to be written."""
        receiving = self._receiving
        if receiving is None or receiving.installed is None:
            raise DecodeError("a snapshot without an install")
        return receiving.installed.generation

    def take(self) -> Taken:
        """The INSTALLED frame is durable: the caller owns everything from now on."""
        receiving = self._receiving
        if (
            receiving is None
            or receiving.sink is None
            or receiving.installed is None
            or receiving.stored is None
        ):
            raise DecodeError("a snapshot without an install")
        self._receiving = None
        self.installed_total += 1
        self._member.handover.set_fit("install", fit=True)
        self._member.loop.call_soon(self._tell, receiving, InstallStatus.DONE)
        self._member.report.info(
            "install",
            "installed",
            peer=f"{receiving.peer:016x}",
            index=receiving.installed.index,
            chunks=receiving.fed,
            seconds=round(self._member.clock.monotonic() - receiving.began, 3),
        )
        return Taken(receiving.installed, receiving.sink.history, receiving.stored, receiving.live)

    # --- ends ------------------------------------------------------------------------------------

    def _tell(self, receiving: _Receiving, status: InstallStatus) -> None:
        receiving.told = self._member.clock.monotonic()
        self._answer(receiving.peer, Answer(receiving.offer.install, receiving.fed, status))

    def _answer(self, peer: NodeId, answer: Answer) -> None:
        self._member.net.send_frame(peer, FRAME_INSTALL_ANSWER, encode_answer(answer))

    def _fail(self, receiving: _Receiving, problem: str) -> None:
        self._tell(receiving, InstallStatus.FAILED)
        self._discard(receiving, problem)

    def _discard(self, receiving: _Receiving, why: str) -> None:
        self._receiving = None
        self.discarded_total += 1
        member = self._member
        member.handover.set_fit("install", fit=True)
        member.report.warn(
            "install", "install discarded", peer=f"{receiving.peer:016x}", reason=why
        )
        self._executor.submit(_throw_away, receiving)

    def _run(self, receiving: _Receiving, work: Callable[[], R], then: Callable[[R], None]) -> None:
        """``work`` in the thread, ``then`` on the loop, unless the install was given up."""
        receiving.working = True
        future: asyncio.Future[R] = self._member.loop.run_in_executor(self._executor, work)

        def done(finished: asyncio.Future[R]) -> None:
            receiving.working = False
            receiving.heard = self._member.clock.monotonic()  # what came meanwhile had to wait
            if finished.cancelled():
                return
            error = finished.exception()
            if error is None:
                result = finished.result()
                if isinstance(result, InstallSink):
                    receiving.sink = result  # also when given up meanwhile: it is thrown away
                if receiving is self._receiving:
                    try:
                        then(result)
                    except _FAILURES as problem:  # what the stream said makes no sense
                        self._failed(receiving, problem)
                elif isinstance(result, InstallSink):
                    self._executor.submit(_throw_away, receiving)
            elif receiving is self._receiving:
                if not isinstance(error, _FAILURES):
                    self._member.report_failure(error)
                self._failed(receiving, error)

        future.add_done_callback(done)

    def _failed(self, receiving: _Receiving, error: BaseException) -> None:
        reason = str(error) if isinstance(error, DecodeError) else type(error).__name__
        self._fail(receiving, reason)


def _throw_away(receiving: Any) -> None:
    """In the thread, behind whatever it still does for this install."""
    if receiving.slices is not None:
        receiving.slices.close()
    if receiving.sink is not None:
        receiving.sink.discard()
        receiving.sink = None
