"""What a handler is, whoever calls it: gRPC frontend, JSON gateway, tests.

A unary handler is a plain function ``handler(caller, raw) -> bytes | Waiting`` and never async.
It either answers at once with the encoded response, raises a ``ConfigServiceError``, or returns a
``Waiting``: a slot in the runtime's table that is completed in bulk after apply. A very long answer
comes in ``Pieces``, to whoever binds with ``bind_pieces``.

A stream is an object with ``on_message``, ``on_half_close``, ``on_cancel`` that writes to a
bounded ``StreamSink``.

Not here: which status an error travels with (``api.status``), framing (``http2``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from configsvc.api.call_counts import UNCOUNTED, CallCounts
from configsvc.errors import ConfigServiceError, RequestError
from configsvc.runtime.waiting import Answer, Finish, Pieces, Waiting
from configsvc.types import Principal, Source

__all__ = ["Answer", "Finish", "Pieces", "Waiting"]

NEVER_NS: Final = 1 << 63  # later than any time there is


class Caller:
    """Who calls, for one request. Built by ``api.callers`` from connection identity + metadata.

    ``envelope`` is the encoded constant part of a command's envelope (principal and source), made
    once per connection and token, so that a write costs no re-encoding of them.
    """

    __slots__ = (
        "ahead",
        "envelope",
        "expires_ns",
        "has_leader",
        "principal",
        "reason",
        "source",
        "ticket",
        "via_gateway",
    )

    def __init__(self, principal: Principal, source: Source, envelope: bytes) -> None:
        self.principal = principal
        self.source = source
        self.envelope = envelope
        self.expires_ns = NEVER_NS  # from then on its certificate is none, on open streams too
        self.reason = ""
        self.ticket = ""
        self.has_leader = False  # metadata ``hasleader: true``
        self.via_gateway = False
        self.ahead: Ahead | None = None  # set: not known yet, the principal is a suspect only

    def become(self, known: Caller) -> None:
        """Turn into the caller that is known now; whoever holds this one sees it."""
        for name in self.__slots__:
            setattr(self, name, getattr(known, name))


class Ahead(NamedTuple):
    """Why a caller is not known yet: this member has not applied the index in its token (A16)."""

    needs: int  # the index
    identity: ConnectionIdentity
    metadata: tuple[tuple[bytes, bytes], ...]


class StreamSink(Protocol):
    """Where a stream handler writes. All calls happen on the event loop."""

    def send(self, payload: bytes) -> bool:
        """Queue one encoded message; False: above the bound, wait for ``on_writable``.

        The message is queued in either case; a handler that goes on after False is cut off at
        the stream's hard bound (``limits``) with RESOURCE_EXHAUSTED.
        """

    def finish(self, error: ConfigServiceError | None) -> None:
        """End the stream: OK or the error's status. Nothing may be sent afterwards."""


class StreamHandler(Protocol):
    """One running stream."""

    def on_message(self, raw: bytes) -> None:
        """One encoded message of the client. May raise: the stream ends with that status."""

    def on_half_close(self) -> None:
        """The client sends no more; it still reads."""

    def on_cancel(self) -> None:
        """Reset, deadline or lost connection: free everything, send nothing."""

    def on_writable(self) -> None:
        """The sink drained below half its bound."""


UnaryHandler = Callable[[Caller, bytes], "bytes | Waiting"]
StreamFactory = Callable[[Caller, StreamSink], StreamHandler]


# Takes over a stream whose caller was refused, or raises what it was refused for.
RefusedFactory = Callable[
    [RequestError, "ConnectionIdentity", tuple[tuple[bytes, bytes], ...], StreamSink],
    StreamHandler,
]


class Method(NamedTuple):
    """One row of the table of served RPCs."""

    path: str  # "/etcdserverpb.KV/Put"
    unary: UnaryHandler | None
    stream: StreamFactory | None
    client_stream: bool
    server_stream: bool
    request: Any  # protobuf class, for the gateway and for tests
    response: Any
    refused: RefusedFactory | None = None  # None: a refused caller ends the stream
    counts: CallCounts = UNCOUNTED  # kept by whoever carries calls


class ConnectionIdentity(Protocol):
    """What the frontend keeps per connection; made by ``api.callers.Callers.connection``."""

    def caller(self, metadata: tuple[tuple[bytes, bytes], ...]) -> Caller:
        """The caller of one request, from its metadata (names lower-case).

        Raises a ``RequestError`` when the identity is not acceptable for this request: leaf out
        of time or denied, bad or doubled token, bad reason. The frontend answers with its status.
        """

    @property
    def key(self) -> str:
        """Identity for per-identity limits: the certificate's URI, or "" without one."""


class ApiTable(Protocol):
    """What the frontend is handed by the composition root."""

    methods: dict[bytes, Method]  # by :path

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> ConnectionIdentity:
        """Judge a new connection; raises ``CertificateNotAcceptableError``."""

    def status_of(self, error: BaseException) -> tuple[int, str]:
        """GRPC code and message for any exception; unknown ones become INTERNAL with an id."""


class HttpRequest(NamedTuple):
    """One HTTP request that is not gRPC, whole (body bounded by the frontend)."""

    method: str
    path: str  # without the query
    query: str
    headers: tuple[tuple[bytes, bytes], ...]  # names lower-case
    body: bytes


class HttpSink(Protocol):
    """Answers one HTTP request: ``respond`` once, or ``start``, ``chunk``s, ``end``."""

    def respond(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes
    ) -> None: ...

    def respond_parts(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], parts: Sequence[bytes]
    ) -> None:
        """``respond`` with a body that nobody put together."""

    def start(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None: ...

    def chunk(self, data: bytes) -> bool:
        """One HTTP chunk (or DATA frame) of its own; False: above the bound."""

    def end(self) -> None: ...


class HttpExchange(Protocol):
    """A running HTTP request, so that it can be cancelled."""

    @property
    def streams(self) -> bool:
        """Whether it may go on for ever; others wait for one answer."""

    def on_cancel(self) -> None: ...

    def on_writable(self) -> None: ...


class HttpApp(Protocol):
    """The gateway: JSON, health, version, metrics."""

    def handle(
        self, connection: ConnectionIdentity, request: HttpRequest, sink: HttpSink
    ) -> HttpExchange | None: ...
