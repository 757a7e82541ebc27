"""``AsyncClient``: the cluster for asyncio. Same rules and operations as ``client.sync``.

One client belongs to one event loop. A call that is cancelled while a write is under way leaves
its outcome unknown, as with any lost answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from configsvc import limits
from configsvc.client import administration, operations
from configsvc.client.endpoints import Endpoint, Ring
from configsvc.client.errors import EndpointError, Failure, error_of, failure_of
from configsvc.client.operations import Operation
from configsvc.client.retry import Attempts, Effect
from configsvc.client.settings import ClientSettings, Metadata, Why, metadata_of
from configsvc.client.tls import ChannelMaker, refuse_tracing
from configsvc.errors import AuthNotEnabledError, LeaseNotFoundError
from configsvc.proto import kv_pb2
from configsvc.proto import rpc_pb2 as rpc

R = TypeVar("R", bound=Message)
_NO_REASON = Why()


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class AsyncClient:
    """One cluster, as one identity, on one event loop."""

    def __init__(self, settings: ClientSettings) -> None:
        """Connects to nothing yet.

        Raises:
            EndpointError: the environment would make gRPC print tokens.
        """
        refuse_tracing()
        self.settings = settings
        self.closed = False
        self._ring = Ring(settings.endpoints)
        self._token = settings.token
        self._channels: dict[Endpoint, Any] = {}
        self._movers: set[Callable[[], None]] = set()
        self._draining: set[asyncio.Task[None]] = set()
        self._login_lock = asyncio.Lock()
        self._rights_off = False  # the cluster wants no tokens

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # --- calls ------------------------------------------------------------------------------------

    async def do(
        self,
        operation: Operation[R],
        *,
        why: Why = _NO_REASON,
        timeout_s: float | None = None,
        endpoint: Endpoint | None = None,
    ) -> R:
        """Carry out one operation; arguments and errors as ``Client.do``."""
        if timeout_s is None:
            timeout_s = float("inf") if operation.forever else self.settings.timeout_s
        attempts = Attempts(
            operation.effect,
            endpoints=1 if endpoint else len(self._ring),
            deadline=time.monotonic() + timeout_s,
            can_login=self.settings.login is not None,
        )
        while True:
            used = await self.ready()
            target = endpoint or self._ring.current
            answer = await self._attempt(
                operation, target, self._metadata(why), attempts.allowance_s(time.monotonic())
            )
            if not isinstance(answer, Failure):
                return answer
            step = attempts.after(answer, time.monotonic(), random.random())  # noqa: S311
            if step.move:
                self._ring.leave(target)
            if not step.again:
                raise error_of(answer, write=operation.effect.writes)
            if step.login:
                await self.ready(used)
            await asyncio.sleep(step.pause_s)

    async def _attempt(
        self, operation: Operation[R], target: Endpoint, metadata: Metadata, allowance: float
    ) -> R | Failure:
        call: Any = self.channel(target).unary_unary(
            operation.path,
            request_serializer=_serialize,
            response_deserializer=operation.response.FromString,
        )
        try:
            answer = await call(
                operation.request,
                timeout=None if allowance == float("inf") else allowance,
                metadata=metadata,
            )
        except grpc.RpcError as error:
            return failure_of(error, str(target))
        return cast(R, answer)

    async def stream(
        self,
        path: str,
        request: Message,
        response: type[R],
        *,
        timeout_s: float | None = None,
        endpoint: Endpoint | None = None,
    ) -> AsyncIterator[R]:
        """One request and many answers; not tried again once it has started."""
        await self.ready()
        target = endpoint or self._ring.current
        call: Any = self.channel(target).unary_stream(
            path, request_serializer=_serialize, response_deserializer=response.FromString
        )(request, timeout=timeout_s, metadata=self._metadata(_NO_REASON))
        try:
            async for answer in call:
                yield answer
        except grpc.RpcError as error:
            self._ring.leave(target)
            raise error_of(failure_of(error, str(target)), write=False) from None
        finally:
            call.cancel()

    # --- identity and connections -----------------------------------------------------------------

    async def ready(self, stale: str = "") -> str:
        """As ``Client.ready``."""
        if self.settings.login is not None and self._token == stale and not self._rights_off:
            await self.login(unless_not=stale)
        return self._token

    async def login(self, *, unless_not: str | None = None) -> str:
        """Fetch a token and use it from now on; returns it.

        ``unless_not``: do nothing when the token has changed from this one meanwhile, so that
        many calls that find it stale fetch one new token.
        """
        login = self.settings.login
        if login is None:
            raise EndpointError("login needs a user name")
        async with self._login_lock:
            if unless_not is not None and self._token != unless_not:
                return self._token
            # A prompt or file may block: not on the loop.
            password = await asyncio.to_thread(login.password)
            own = self.settings
            plain = AsyncClient(
                ClientSettings(own.endpoints, own.tls, own.timeout_s, open_channel=own.open_channel)
            )
            async with plain:
                try:
                    answer = await plain.do(administration.authenticate(login.user, password))
                except AuthNotEnabledError:
                    self._rights_off = True  # a development server with rights off
                    return ""
            self._token = answer.token
            return self._token

    async def reload_tls(self) -> None:
        """Use the TLS files as they are now: new calls at once, running ones may finish.

        Raises:
            EndpointError: the files cannot be used; the old connections stay.
        """
        fresh = {self._ring.current: self._open(self._ring.current)}
        old, self._channels = self._channels, fresh
        for move in list(self._movers):
            move()
        for channel in old.values():
            task = asyncio.ensure_future(self._drain(channel))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    @staticmethod
    async def _drain(channel: Any) -> None:
        await channel.close(grace=limits.CLIENT_DRAIN_S)

    async def close(self) -> None:
        """Close every connection; calls and watches in flight end."""
        self.closed = True
        for move in list(self._movers):
            move()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()
        for task in list(self._draining):
            task.cancel()
        await asyncio.gather(*self._draining, return_exceptions=True)

    def channel(self, endpoint: Endpoint) -> Any:
        """The channel of an endpoint; made on first use."""
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = self._channels[endpoint] = self._open(endpoint)
        return channel

    def _open(self, endpoint: Endpoint) -> Any:
        return (self.settings.open_channel or ChannelMaker(self.settings.tls).open_async)(endpoint)

    @property
    def ring(self) -> Ring:
        """The endpoints in their order of use."""
        return self._ring

    def on_move(self, move: Callable[[], None]) -> Callable[[], None]:
        """Call ``move`` when channels are replaced or closed; returns how to stop that."""
        self._movers.add(move)
        return lambda: self._movers.discard(move)

    def _metadata(self, why: Why) -> Metadata:
        return metadata_of(why, self._token, require_leader=self.settings.require_leader)

    def stream_metadata(self) -> Metadata:
        """Metadata of a stream."""
        return self._metadata(_NO_REASON)

    # --- shorthands -------------------------------------------------------------------------------

    async def get(self, key: bytes, *, revision: int = 0) -> kv_pb2.KeyValue | None:
        """One key, or None when it does not exist (then)."""
        answer = await self.do(operations.range_(key, revision=revision))
        return answer.kvs[0] if answer.kvs else None

    async def get_prefix(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0
    ) -> rpc.RangeResponse:
        """All keys that start with ``prefix``, in key order."""
        key, end = operations.prefix_span(prefix)
        return await self.do(operations.range_(key, end, limit=limit, revision=revision))

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, reason: str = "", ticket: str = ""
    ) -> rpc.PutResponse:
        """Write a key, with the reason for it."""
        return await self.do(operations.put(key, value, lease=lease), why=Why(reason, ticket))

    async def delete(self, key: bytes, *, reason: str = "", ticket: str = "") -> bool:
        """Delete a key; False: there was none."""
        answer = await self.do(operations.delete(key), why=Why(reason, ticket))
        return answer.deleted > 0

    async def renew(self, lease_id: int, *, timeout_s: float | None = None) -> int:
        """Set a lease back to its full time; returns that time in seconds.

        Raises:
            LeaseNotFoundError: it ran out or was revoked.
            UnavailableError: no member answered.
        """
        request = rpc.LeaseKeepAliveRequest(ID=lease_id)
        deadline = time.monotonic() + (timeout_s or self.settings.timeout_s)
        attempts = Attempts(
            Effect.READ,
            endpoints=len(self._ring),
            deadline=deadline,
            can_login=self.settings.login is not None,
        )
        while True:
            used = await self.ready()
            target = self._ring.current
            allowance = attempts.allowance_s(time.monotonic())
            answer = await self._keep_alive_once(target, request, allowance)
            if not isinstance(answer, Failure):
                if answer.TTL <= 0:
                    raise LeaseNotFoundError
                return answer.TTL
            step = attempts.after(answer, time.monotonic(), random.random())  # noqa: S311
            if step.move:
                self._ring.leave(target)
            if not step.again:
                raise error_of(answer, write=False)
            if step.login:
                await self.ready(used)
            await asyncio.sleep(step.pause_s)

    async def _keep_alive_once(
        self, target: Endpoint, request: Message, allowance: float
    ) -> rpc.LeaseKeepAliveResponse | Failure:
        call: Any = self.channel(target).stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=_serialize,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )(timeout=allowance, metadata=self._metadata(_NO_REASON))
        try:
            await call.write(request)
            await call.done_writing()
            answer = await call.read()
        except grpc.RpcError as error:
            return failure_of(error, str(target))
        finally:
            call.cancel()
        if isinstance(answer, rpc.LeaseKeepAliveResponse):
            return answer
        return Failure("UNAVAILABLE", "ended without an answer", str(target), True)
