"""Watches and kept leases for asyncio; promises as in ``client.sync_streams``."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

import grpc

from configsvc import limits
from configsvc.client import operations
from configsvc.client.aio import AsyncClient
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
from configsvc.client.watching import (
    STALE_TOKEN,
    WATCH_PATH,
    Cursor,
    WatchBatch,
    WatchOptions,
    is_stale_token,
)
from configsvc.errors import ConfigServiceError, LeaseNotFoundError, RequestError
from configsvc.proto import rpc_pb2 as rpc

_NO_REASON = Why()


class AsyncWatch:
    """Async iterator of ``WatchBatch``; arguments as ``Watch``."""

    def __init__(
        self,
        client: AsyncClient,
        options: WatchOptions,
        *,
        connect_timeout_s: float | None = None,
        on_lost: Callable[[str], None] = lambda line: None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._cursor = Cursor(options)
        self._on_lost = on_lost
        self._on_connected = on_connected
        self._patience = None if connect_timeout_s is None else time.monotonic() + connect_timeout_s
        self._closed = asyncio.Event()
        self._moving = False
        self._call: Any = None
        self._failure = Failure("UNAVAILABLE", "", "", True)
        self._token = ""  # of the present stream
        self._stale = ""  # a token that was refused
        self._renewed = False  # a new one was fetched and no stream has lived since
        self._batches = self._run()

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> WatchBatch:
        return await anext(self._batches)

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        await self._batches.aclose()  # type: ignore[attr-defined]

    @property
    def resume_revision(self) -> int:
        """The first revision not yet handed out; 0 while that is unknown."""
        return self._cursor.resume_revision

    @property
    def connected(self) -> bool:
        """Whether the server has confirmed the watch on the present connection."""
        return self._cursor.connected

    async def request_progress(self) -> None:
        """Ask for a batch without events that says how far this watch got."""
        call = self._call
        if call is not None and self._cursor.connected:
            await call.write(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def close(self) -> None:
        """End the watch; the reader sees the end of the iteration."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _move(self) -> None:
        self._moving = True
        if self._call is not None:
            self._call.cancel()

    async def _run(self) -> AsyncIterator[WatchBatch]:
        forget = self._client.on_move(self._move)
        try:
            while not self._closed.is_set() and not self._client.closed:
                self._moving = False
                async for batch in self._one_stream():
                    yield batch
                if self._closed.is_set() or self._client.closed:
                    return
                if not self._moving:
                    await self._recover()
        finally:
            forget()

    async def _recover(self) -> None:
        """Wait before the next stream or have it log in, or give up."""
        failure = self._failure
        self._renewed = self._renewed and not self._cursor.connected
        can_login = self._client.settings.login is not None and not self._renewed
        if is_stale_token(failure) and can_login:
            self._renewed, self._stale = True, self._token
            return
        pause = self._cursor.after(failure, random.random())  # noqa: S311
        if pause is None:
            raise error_of(failure, write=False)
        if self._patience is not None and time.monotonic() + pause > self._patience:
            raise UnavailableError(explain(failure))
        self._on_lost(explain(failure))
        try:
            await asyncio.wait_for(self._closed.wait(), pause)
        except TimeoutError:
            return

    async def _one_stream(self) -> AsyncIterator[WatchBatch]:
        """Batches of one stream; leaves what ended it in ``_failure``."""
        target = self._client.ring.current
        self._failure = Failure("UNAVAILABLE", "the member ended the watch", str(target), True)
        try:
            self._token = await self._client.ready(self._stale)
        except (UnavailableError, OutcomeUnknownError) as error:
            self._failure = Failure("UNAVAILABLE", str(error), str(target), True)
            return
        call: Any = self._client.channel(target).stream_stream(
            WATCH_PATH,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=rpc.WatchResponse.FromString,
        )(metadata=self._client.stream_metadata())
        self._call = call
        try:
            await call.write(self._cursor.create_request())
            async for message in call:
                was = self._cursor.connected
                batch = self._cursor.take(message)
                if self._cursor.connected and not was:
                    self._patience = None
                    self._on_connected()
                if batch is not None:
                    yield batch
        except grpc.RpcError as error:
            self._failure = failure_of(error, str(target))
            if not self._moving:
                self._client.ring.leave(target)
        except asyncio.CancelledError:
            # Cancelling the call ends our reads with this; cancelling the task must go on.
            if not (self._moving or self._closed.is_set()):
                raise
            self._failure = Failure("CANCELLED", "", str(target), True)
        except RequestError as error:
            if not isinstance(error, STALE_TOKEN):
                raise
            self._failure = Failure("UNAUTHENTICATED", str(error), str(target), True)
        finally:
            self._call = None
            call.cancel()


class AsyncLeaseKeeper:
    """Keeps a lease alive by a task; ``lost`` is set when it is gone or may be."""

    def __init__(self, client: AsyncClient, lease_id: int, ttl_s: int, *, since: float) -> None:
        """``since``: ``time.monotonic()`` from before the grant was sent."""
        self.lease_id = lease_id
        self.lost = asyncio.Event()
        self._client = client
        self._good_until = since + ttl_s
        self._task = asyncio.ensure_future(self._run(ttl_s / 3))

    async def __aenter__(self) -> AsyncLeaseKeeper:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def check(self) -> None:
        """Raise ``LeaseLostError`` when the lease is gone or may be."""
        if self.lost.is_set():
            raise LeaseLostError(f"lease {self.lease_id:x} is gone")

    async def close(self) -> None:
        """Stop renewing; the lease runs out by itself unless it is revoked."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, pause: float) -> None:
        while not self.lost.is_set():
            await asyncio.sleep(pause)
            pause = await self._renew()

    async def _renew(self) -> float:
        sent = time.monotonic()
        left = self._good_until - sent
        if left <= 0:
            self.lost.set()
            return 0.0
        try:
            ttl = await self._client.renew(
                self.lease_id, timeout_s=min(left, limits.CLIENT_TIMEOUT_S)
            )
        except LeaseNotFoundError:
            self.lost.set()
            return 0.0
        except ConfigServiceError:
            pause = max(left / 10, limits.CLIENT_BACKOFF_MIN_S)
            return min(limits.CLIENT_BACKOFF_MAX_S, pause, left)
        self._good_until = sent + ttl
        return ttl / 3


async def hold_lease_async(
    client: AsyncClient, ttl_s: int, *, why: Why = _NO_REASON
) -> AsyncLeaseKeeper:
    """Grant a lease and keep it alive; ``keeper.lease_id`` names it."""
    since = time.monotonic()
    # Repeating at worst leaves a lease that nobody uses, and it runs out.
    granted = await client.do(operations.lease_grant(ttl_s).repeatable(), why=why)
    return AsyncLeaseKeeper(client, granted.ID, granted.TTL, since=since)
