"""Watches and kept leases for threads.

Always true:
  * A ``Watch`` ends by ``close``, by compaction or by a refusal, never by a lost connection.
  * A ``LeaseKeeper`` says ``lost`` before the cluster may give the lease's keys to others: it
    counts from before the last renewal that succeeded was sent.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import grpc

from configsvc import limits
from configsvc.client import operations
from configsvc.client.errors import (
    Failure,
    LeaseLostError,
    OutcomeUnknownError,
    UnavailableError,
    error_of,
    explain,
    failure_of,
)
from configsvc.client.settings import Why
from configsvc.client.sync import NO_REASON, Client, serialize
from configsvc.client.watching import (
    STALE_TOKEN,
    WATCH_PATH,
    Cursor,
    WatchBatch,
    WatchOptions,
    is_stale_token,
)
from configsvc.errors import CanceledError, ConfigServiceError, LeaseNotFoundError, RequestError
from configsvc.proto import rpc_pb2 as rpc


class Watch:
    """Iterator of ``WatchBatch``. One reader; ``close`` may be called from any thread.

    Args:
        client: Whose connections and identity to use.
        options: What to watch.
        connect_timeout_s: How long the first connection may take; None: as long as needed.
        on_lost: Called with one line when a connection was lost and the watch goes on.
    """

    def __init__(
        self,
        client: Client,
        options: WatchOptions,
        *,
        connect_timeout_s: float | None = None,
        on_lost: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._client = client
        self._cursor = Cursor(options)
        self._on_lost = on_lost
        self._patience = None if connect_timeout_s is None else time.monotonic() + connect_timeout_s
        self._outbox: queue.SimpleQueue[rpc.WatchRequest | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._moving = False
        self._token = ""  # of the present stream
        self._stale = ""  # a token that was refused
        self._call: Any = None
        self._batches = self._run()

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> WatchBatch:
        batch: WatchBatch = next(self._batches)
        return batch

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if not self._batches.gi_running:  # else another thread reads, and lets go by itself
            self._batches.close()

    @property
    def resume_revision(self) -> int:
        """The first revision not yet handed out; 0 while that is unknown."""
        return self._cursor.resume_revision

    def request_progress(self) -> None:
        """Ask for a batch without events that says how far this watch got."""
        self._outbox.put(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def close(self) -> None:
        """End the watch; the reader sees the end of the iteration."""
        self._closed.set()
        self._end_stream()

    def _end_stream(self) -> None:
        self._outbox.put(None)
        call = self._call
        if call is not None:
            call.cancel()

    def _move(self) -> None:
        self._moving = True
        self._end_stream()

    def _run(self) -> Any:
        renewed = False  # a new token was fetched and no stream has lived since
        while not self._closed.is_set():
            failure = yield from self._one_stream()
            if self._closed.is_set() or self._client.closed:
                return
            if self._moving:
                self._moving = False
                continue
            renewed = renewed and not self._cursor.connected
            can_login = self._client.settings.login is not None and not renewed
            if is_stale_token(failure) and can_login:
                renewed, self._stale = True, self._token
                continue
            pause = self._cursor.after(failure, random.random())  # noqa: S311
            if pause is None:
                raise error_of(failure, write=False)
            if self._patience is not None and time.monotonic() + pause > self._patience:
                raise UnavailableError(explain(failure))
            self._on_lost(explain(failure))
            self._closed.wait(pause)

    def _one_stream(self) -> Any:
        """Yields batches until the stream ends; returns the failure that ended it."""
        target = self._client.ring.current
        try:
            self._token = self._client.ready(self._stale)
        except (UnavailableError, OutcomeUnknownError) as error:
            return Failure("UNAVAILABLE", str(error), str(target), True)
        outbox: queue.SimpleQueue[rpc.WatchRequest | None] = queue.SimpleQueue()
        outbox.put(self._cursor.create_request())
        self._outbox = outbox
        with self._client.channels.borrow(target, self._move) as channel:
            call: Any = channel.stream_stream(
                WATCH_PATH,
                request_serializer=serialize,
                response_deserializer=rpc.WatchResponse.FromString,
            )(iter(outbox.get, None), metadata=self._client.stream_metadata())
            self._call = call
            if self._closed.is_set() or self._moving:
                call.cancel()  # asked for before there was a call to cancel
            try:
                for message in call:
                    batch = self._cursor.take(message)
                    if self._cursor.connected:
                        self._patience = None
                    if batch is not None:
                        yield batch
            except grpc.RpcError as error:
                if not self._moving:
                    self._client.ring.leave(target)
                return failure_of(error, str(target))
            except RequestError as error:
                if isinstance(error, STALE_TOKEN):
                    return Failure("UNAUTHENTICATED", str(error), str(target), True)
                if isinstance(error, CanceledError) and self._closed.is_set():
                    return Failure("CANCELLED", "", str(target), True)
                raise
            finally:
                self._call = None
                outbox.put(None)
                call.cancel()
        return Failure("UNAVAILABLE", "the member ended the watch", str(target), True)


class LeaseKeeper:
    """Keeps a lease alive from a thread of its own until closed.

    Args:
        client: Whose connections and identity to use.
        lease_id: A lease that was just granted or renewed.
        ttl_s: Its full time in seconds.
        since: ``time.monotonic()`` from before that grant or renewal was sent.
        on_lost: Called once, from the keeper's thread, when the lease is gone or may be.

    ``on_loss`` adds further callbacks later.
    """

    def __init__(
        self,
        client: Client,
        lease_id: int,
        ttl_s: int,
        *,
        since: float,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.lease_id = lease_id
        self.lost = threading.Event()
        self._client = client
        self._ttl_s = float(ttl_s)
        self._good_until = since + ttl_s
        self._on_lost = [on_lost]
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    def __enter__(self) -> LeaseKeeper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> None:
        """Raise when the lease is gone or may be.

        Raises:
            LeaseLostError: stop acting on it.
        """
        if self.lost.is_set():
            raise LeaseLostError(f"lease {self.lease_id:x} is gone")

    def on_loss(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` on loss, at once if it has happened; returns how to undo this."""
        with self._lock:
            waits = not self.lost.is_set()
            if waits:
                self._on_lost.append(callback)
        if not waits:
            callback()

        def undo() -> None:
            with self._lock:
                self._on_lost = [one for one in self._on_lost if one is not callback]

        return undo

    def close(self) -> None:
        """Stop renewing; the lease itself runs out by its own time unless it is revoked."""
        self._closed.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=limits.CLIENT_TIMEOUT_S)

    def _run(self) -> None:
        pause = self._ttl_s / 3
        while not self._closed.wait(pause):
            pause = self._renew()
            if self.lost.is_set():
                self._tell()
                return

    def _tell(self) -> None:
        with self._lock:
            callbacks, self._on_lost = self._on_lost, []
        for callback in callbacks:
            callback()

    def _renew(self) -> float:
        sent = time.monotonic()
        left = self._good_until - sent
        if left <= 0:
            self.lost.set()
            return 0.0
        try:
            ttl = self._client.renew(self.lease_id, timeout_s=min(left, limits.CLIENT_TIMEOUT_S))
        except LeaseNotFoundError:
            self.lost.set()
            return 0.0
        except ConfigServiceError:
            # Judged again right away: only time decides that a lease may be gone.
            pause = max(left / 10, limits.CLIENT_BACKOFF_MIN_S)
            return min(limits.CLIENT_BACKOFF_MAX_S, pause, left)
        self._good_until = sent + ttl
        return ttl / 3


def hold_lease(
    client: Client,
    ttl_s: int,
    *,
    why: Why = NO_REASON,
    on_lost: Callable[[], None] = lambda: None,
) -> LeaseKeeper:
    """Grant a lease and keep it alive; ``keeper.lease_id`` names it.

    Raises:
        ConfigServiceError: as ``Client.do``; nothing is kept then.
    """
    since = time.monotonic()
    # Repeating at worst leaves a lease that nobody uses, and it runs out.
    granted = client.do(operations.lease_grant(ttl_s).repeatable(), why=why)
    return LeaseKeeper(client, granted.ID, granted.TTL, since=since, on_lost=on_lost)
