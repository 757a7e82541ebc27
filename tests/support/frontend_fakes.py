"""A small API for tests of the front end: echoes, streams that tick, answers that wait."""

from __future__ import annotations

from configsvc.api.call_counts import CallCounts
from configsvc.api.contract import (
    Caller,
    ConnectionIdentity,
    HttpRequest,
    HttpSink,
    Method,
    StreamSink,
    Waiting,
)
from configsvc.errors import (
    CertificateNotAcceptableError,
    ConfigServiceError,
    EtcdError,
    InvalidAuthTokenError,
    OverloadedError,
    PermissionDeniedError,
    StoppedError,
    UnimplementedError,
)
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL

CODES: dict[type[BaseException], int] = {
    UnimplementedError: 12,
    OverloadedError: 8,
    PermissionDeniedError: 7,
    CertificateNotAcceptableError: 16,
    InvalidAuthTokenError: 16,
    StoppedError: 14,
}


class FakeIdentity:
    """Everybody may call; the metadata of the last call is kept."""

    def __init__(self, key: str = "spiffe://test/user/alice") -> None:
        self.key = key
        self.metadata: tuple[tuple[bytes, bytes], ...] = ()

    def caller(self, metadata: tuple[tuple[bytes, bytes], ...]) -> Caller:
        self.metadata = metadata
        if dict(metadata).get(b"token") == b"bad":
            raise InvalidAuthTokenError
        return Caller(SYSTEM_PRINCIPAL, NO_SOURCE, b"")


class FakeStream:
    """Echoes each message; keeps what it was told. ``burst:N`` sends N messages of 1 KiB."""

    def __init__(self, caller: Caller, sink: StreamSink) -> None:
        self.caller = caller
        self.sink = sink
        self.heard: list[str] = []
        self.left = 0
        self.unbounded = False

    def on_message(self, raw: bytes) -> None:
        self.heard.append("message")
        if raw.startswith(b"burst:"):
            self.left = int(raw[6:])
            self.on_writable()
        elif raw.startswith(b"flood:"):
            for _ in range(int(raw[6:])):
                self.sink.send(b"x" * 1024)
        elif raw == b"finish":
            self.sink.finish(None)
        elif raw == b"fail":
            raise PermissionDeniedError
        elif raw == b"bug":
            raise ZeroDivisionError("secret")
        else:
            self.sink.send(raw)

    def on_half_close(self) -> None:
        self.heard.append("half_close")

    def on_cancel(self) -> None:
        self.heard.append("cancel")

    def on_writable(self) -> None:
        self.heard.append("writable")
        while self.left:
            self.left -= 1
            if not self.sink.send(b"b" * 1024):
                return


class FakeApi:
    """The table of methods that the tests call."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.streams: list[FakeStream] = []
        self.calls: list[tuple[Caller, bytes]] = []
        self.identities: list[FakeIdentity] = []
        self.refuse = False
        rows = [
            Method("/test.Echo/Unary", self.unary, None, False, False, None, None),
            Method("/test.Echo/Wait", self.wait, None, False, False, None, None),
            Method("/test.Echo/Fail", self.fail, None, False, False, None, None),
            Method("/test.Echo/Big", self.big, None, False, False, None, None),
            Method("/test.Echo/Stream", None, self.stream, True, True, None, None),
            Method("/test.Echo/Down", None, self.stream, False, True, None, None),
            Method("/test.Echo/Denied", None, self.denied, True, True, None, None),
        ]
        self.methods = {row.path.encode(): row._replace(counts=CallCounts()) for row in rows}

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> ConnectionIdentity:
        if self.refuse:
            raise CertificateNotAcceptableError
        identity = FakeIdentity()
        self.identities.append(identity)
        return identity

    def status_of(self, error: BaseException) -> tuple[int, str]:
        if isinstance(error, ConfigServiceError):
            return CODES.get(type(error), 3 if isinstance(error, EtcdError) else 2), str(error)
        return 13, "internal error, id=1"

    def unary(self, caller: Caller, raw: bytes) -> bytes:
        self.calls.append((caller, raw))
        return raw

    def wait(self, caller: Caller, raw: bytes) -> Waiting:
        self.calls.append((caller, raw))
        waiting = Waiting()
        self.waiting.append(waiting)
        return waiting

    def fail(self, caller: Caller, raw: bytes) -> bytes:
        if raw == b"bug":
            raise ZeroDivisionError("secret")
        raise PermissionDeniedError("etcdserver: permission denied\n100% ü")

    def big(self, caller: Caller, raw: bytes) -> bytes:
        return b"B" * int(raw)

    def stream(self, caller: Caller, sink: StreamSink) -> FakeStream:
        made = FakeStream(caller, sink)
        self.streams.append(made)
        return made

    def denied(self, caller: Caller, sink: StreamSink) -> FakeStream:
        raise PermissionDeniedError


class FakeHttp:
    """A gateway that answers GET /health, echoes POST, streams /chunks, waits on /wait."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.running: list[RunningFake] = []

    def handle(
        self, connection: ConnectionIdentity, request: HttpRequest, sink: HttpSink
    ) -> RunningFake | None:
        self.requests.append(request)
        text = ((b"content-type", b"text/plain"),)
        if request.path == "/health":
            sink.respond(200, text, b'{"health":"true"}')
        elif request.path == "/chunks":
            sink.start(200, text)
            for number in range(3):
                sink.chunk(b"chunk %d\n" % number)
            sink.end()
        elif request.path == "/wait":
            running = RunningFake(sink)
            self.running.append(running)
            return running
        elif request.path == "/bug":
            raise ZeroDivisionError("secret")
        elif request.path == "/inject":
            sink.respond(200, ((b"x-echo", b"a\r\nset-cookie: b"),), b"")
        elif request.method == "POST":
            sink.respond(200, text, request.body)
        else:
            sink.respond(404, (), b"not found")
        return None


class RunningFake:
    """An HTTP request that has not been answered yet."""

    streams = False

    def __init__(self, sink: HttpSink) -> None:
        self.sink = sink
        self.heard: list[str] = []

    def on_cancel(self) -> None:
        self.heard.append("cancel")

    def on_writable(self) -> None:
        self.heard.append("writable")
