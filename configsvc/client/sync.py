"""``Client``: the cluster for threads.

Calls go to one endpoint and move on when it fails; which failures are tried again is
``client.retry``'s. One client may be used from several threads.

Always true:
  * A call takes at most its timeout, all attempts together, and holds no lock while it waits.
  * A token is sent only over the channel of an endpoint that was given to this client.

Not here: what can be asked (``client.operations`` and its siblings), watches and leases
(``client.sync_streams``), the async twin (``client.aio``).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message

from configsvc.client import administration, operations
from configsvc.client.channels import ChannelSet
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
NO_REASON = Why()


def serialize(message: Message) -> bytes:
    """Encode any request."""
    return message.SerializeToString()


class Client:
    """One cluster, as one identity."""

    def __init__(self, settings: ClientSettings) -> None:
        """Connects to nothing yet.

        Raises:
            EndpointError: the environment would make gRPC print tokens.
        """
        refuse_tracing()
        self.settings = settings
        self._ring = Ring(settings.endpoints)
        self._lock = threading.Lock()
        self._token = settings.token
        self._login_lock = threading.Lock()
        self._rights_off = False  # the cluster wants no tokens
        self._channels = self._new_channels()
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- calls ------------------------------------------------------------------------------------

    def do(
        self,
        operation: Operation[R],
        *,
        why: Why = NO_REASON,
        timeout_s: float | None = None,
        endpoint: Endpoint | None = None,
    ) -> R:
        """Carry out one operation.

        Args:
            operation: What to ask.
            why: Reason and ticket of a change.
            timeout_s: Seconds for all attempts together; None: the client's own.
            endpoint: Ask exactly this member; None: whichever works.

        Raises:
            RequestError: the cluster refused; nothing was done.
            UnavailableError: no answer; nothing was done.
            OutcomeUnknownError: a write was sent and its answer is missing.
        """
        if timeout_s is None:
            timeout_s = float("inf") if operation.forever else self.settings.timeout_s
        deadline = time.monotonic() + timeout_s
        attempts = Attempts(
            operation.effect,
            endpoints=1 if endpoint else len(self._ring),
            deadline=deadline,
            can_login=self.settings.login is not None,
        )
        while True:
            used = self.ready()
            target = endpoint or self._ring.current
            metadata = self._metadata(why)
            allowance = attempts.allowance_s(time.monotonic())
            answer = self._attempt(operation, target, metadata, allowance)
            if not isinstance(answer, Failure):
                return answer
            step = attempts.after(answer, time.monotonic(), random.random())  # noqa: S311
            if step.move:
                self._ring.leave(target)
            if not step.again:
                raise error_of(answer, write=operation.effect.writes)
            if step.login:
                self.ready(used)
            time.sleep(step.pause_s)

    def _attempt(
        self, operation: Operation[R], target: Endpoint, metadata: Metadata, allowance: float
    ) -> R | Failure:
        with self.channels.borrow(target) as channel:
            call = channel.unary_unary(
                operation.path,
                request_serializer=serialize,
                response_deserializer=operation.response.FromString,
            )
            try:
                answer = call(
                    operation.request,
                    timeout=None if allowance == float("inf") else allowance,
                    metadata=metadata,
                )
            except grpc.RpcError as error:
                return failure_of(error, str(target))
            return cast(R, answer)

    def stream(
        self,
        path: str,
        request: Message,
        response: type[R],
        *,
        timeout_s: float | None = None,
        endpoint: Endpoint | None = None,
    ) -> Iterator[R]:
        """A call with one request and many answers; not tried again once it has started.

        Raises:
            ClientError: the member was lost on the way.
            RequestError: refused.
        """
        self.ready()
        target = endpoint or self._ring.current
        with self.channels.borrow(target) as channel:
            call: Any = channel.unary_stream(
                path, request_serializer=serialize, response_deserializer=response.FromString
            )(request, timeout=timeout_s, metadata=self._metadata(NO_REASON))
            try:
                yield from call
            except grpc.RpcError as error:
                self._ring.leave(target)
                raise error_of(failure_of(error, str(target)), write=False) from None
            finally:
                call.cancel()

    # --- identity and connections -----------------------------------------------------------------

    def ready(self, stale: str = "") -> str:
        """See to a token before a call, if a user was given; returns the one to use.

        ``stale`` is one that was refused: of many calls that find it so, one fetches a new one.
        No call ever goes out without a token meanwhile, as somebody else.
        """
        if self.settings.login is not None and self._token == stale and not self._rights_off:
            self.login(unless_not=stale)
        return self._token

    def login(self, *, unless_not: str | None = None) -> str:
        """Fetch a token with the settings' user and password; returns it and uses it from now on.

        ``unless_not``: do nothing when the token has changed from this one meanwhile.

        Raises:
            EndpointError: no user was given.
            AuthFailedError: wrong user or password.
        """
        login = self.settings.login
        if login is None:
            raise EndpointError("login needs a user name")
        with self._login_lock:
            if unless_not is not None and self._token != unless_not:
                return self._token
            request = administration.authenticate(login.user, login.password())
            with Client(self.settings_without_login()) as plain:
                try:
                    self._token = plain.do(request).token
                except AuthNotEnabledError:
                    self._rights_off = True  # a development server with rights off
                    self._token = ""
            return self._token

    def settings_without_login(self) -> ClientSettings:
        """The same cluster and certificate, without user, password and token."""
        own = self.settings
        return ClientSettings(own.endpoints, own.tls, own.timeout_s, open_channel=own.open_channel)

    def reload_tls(self) -> None:
        """Use the TLS files as they are now: new calls at once, running ones may finish.

        Watches move to the new connection and miss nothing.

        Raises:
            EndpointError: the files cannot be used; the old connections stay.
        """
        fresh = self._new_channels()
        with fresh.borrow(self._ring.current):
            pass  # reads the files: a broken renewal must not replace what works
        with self._lock:
            old, self._channels = self._channels, fresh
        old.retire()

    def close(self) -> None:
        """Close every connection; calls and watches in flight end."""
        self._closed = True
        self._channels.close()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    @property
    def channels(self) -> ChannelSet:
        """Today's channels."""
        with self._lock:
            return self._channels

    @property
    def ring(self) -> Ring:
        """The endpoints in their order of use."""
        return self._ring

    def _new_channels(self) -> ChannelSet:
        make: Callable[[Endpoint], Any] = (
            self.settings.open_channel or ChannelMaker(self.settings.tls).open
        )
        return ChannelSet(make)

    def _metadata(self, why: Why) -> Metadata:
        return metadata_of(why, self._token, require_leader=self.settings.require_leader)

    def stream_metadata(self) -> Metadata:
        """Metadata of a stream."""
        return self._metadata(NO_REASON)

    # --- shorthands -------------------------------------------------------------------------------

    def get(self, key: bytes, *, revision: int = 0) -> kv_pb2.KeyValue | None:
        """One key, or None when it does not exist (then)."""
        answer = self.do(operations.range_(key, revision=revision))
        return answer.kvs[0] if answer.kvs else None

    def get_prefix(self, prefix: bytes, *, limit: int = 0, revision: int = 0) -> rpc.RangeResponse:
        """All keys that start with ``prefix``, in key order."""
        key, end = operations.prefix_span(prefix)
        return self.do(operations.range_(key, end, limit=limit, revision=revision))

    def put(
        self, key: bytes, value: bytes, *, lease: int = 0, reason: str = "", ticket: str = ""
    ) -> rpc.PutResponse:
        """Write a key, with the reason for it."""
        return self.do(operations.put(key, value, lease=lease), why=Why(reason, ticket))

    def delete(self, key: bytes, *, reason: str = "", ticket: str = "") -> bool:
        """Delete a key; False: there was none."""
        answer = self.do(operations.delete(key), why=Why(reason, ticket))
        return answer.deleted > 0

    def renew(self, lease_id: int, *, timeout_s: float | None = None) -> int:
        """Set a lease back to its full time; returns that time in seconds.

        Raises:
            LeaseNotFoundError: it ran out or was revoked.
            UnavailableError: no member answered.
        """
        operation: Operation[rpc.LeaseKeepAliveResponse] = Operation(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            rpc.LeaseKeepAliveRequest(ID=lease_id),
            rpc.LeaseKeepAliveResponse,
            Effect.READ,  # a lost answer leaves nothing to look after
        )
        answer = self._first_answer(operation, timeout_s or self.settings.timeout_s)
        if answer.TTL <= 0:
            raise LeaseNotFoundError
        return answer.TTL

    def _first_answer(self, operation: Operation[R], timeout_s: float) -> R:
        """A stream call used as a unary one: one request, half-close, first answer."""
        deadline = time.monotonic() + timeout_s
        attempts = Attempts(
            operation.effect,
            endpoints=len(self._ring),
            deadline=deadline,
            can_login=self.settings.login is not None,
        )
        while True:
            used = self.ready()
            target = self._ring.current
            with self.channels.borrow(target) as channel:
                call: Any = channel.stream_stream(
                    operation.path,
                    request_serializer=serialize,
                    response_deserializer=operation.response.FromString,
                )(
                    iter((operation.request,)),
                    timeout=attempts.allowance_s(time.monotonic()),
                    metadata=self._metadata(NO_REASON),
                )
                try:
                    return cast(R, next(call))
                except grpc.RpcError as error:
                    failure = failure_of(error, str(target))
                except StopIteration:
                    failure = Failure("UNAVAILABLE", "ended without an answer", str(target), True)
                finally:
                    call.cancel()
            step = attempts.after(failure, time.monotonic(), random.random())  # noqa: S311
            if step.move:
                self._ring.leave(target)
            if not step.again:
                raise error_of(failure, write=False)
            if step.login:
                self.ready(used)
            time.sleep(step.pause_s)
