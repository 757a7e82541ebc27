"""The HTTP side of one member: etcd's JSON paths, health, version, metrics.

Every request passes the same gates in the same order: where it came from (``origin``), who sent
it (the connection's identity and ``metadata``, as for gRPC), then its path. The caller reaches a
handler as an argument, never as a header.

Not here: HTTP itself (``frontend``), what a method does (``api``).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from typing import Final

from configsvc.api.contract import (
    ConnectionIdentity,
    HttpApp,
    HttpExchange,
    HttpRequest,
    HttpSink,
    Method,
    StreamHandler,
    StreamSink,
)
from configsvc.api.status import Code
from configsvc.api.table import Api
from configsvc.errors import (
    InvariantViolationError,
    OverloadedError,
    RequestError,
    ensure,
)
from configsvc.gateway import json_in
from configsvc.gateway.answers import (
    JSON_FIELDS,
    NO_SNIFF,
    TEXT_FIELDS,
    compact,
    send_error,
    send_stream_error,
)
from configsvc.gateway.calls import Calls
from configsvc.gateway.health import Health
from configsvc.gateway.metadata import Metadata, metadata_of
from configsvc.gateway.metrics import Metrics, Traffic
from configsvc.gateway.origin import ForeignHostError, ForeignOriginError, OriginGuard
from configsvc.gateway.routes import ROUTES
from configsvc.runtime.member import Member

METRICS_FIELDS: Final = (
    (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
    NO_SNIFF,
)
Get = Callable[[HttpRequest, HttpSink], "HttpExchange | None"]


class Gateway:
    """Answers the requests that are not gRPC."""

    def __init__(
        self,
        member: Member,
        api: Api,
        refused: Mapping[str, int] | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        """What others count for the metrics: ``refused``, peers cut off, by kind; ``traffic``."""
        self._member = member
        self._api = api
        self._calls = Calls(member.loop, api.status_of, member.slices)
        self._origin = OriginGuard(member.config)
        self._health = Health(member)
        self._metrics = Metrics(
            member,
            api,
            self._health,
            {} if refused is None else refused,
            Traffic() if traffic is None else traffic,
        )
        held = api.refusals.held
        self._methods = {path: held(api.methods[rpc.encode()]) for path, rpc in ROUTES.items()}
        self._gets: dict[str, Get] = {
            "/health": lambda request, sink: self._health.health_answer(request.query, sink),
            "/version": self._version,
            "/metrics": self._exposition,
            "/debug/vars": self._vars,
        }
        for group, checks in self._health.groups.items():
            for only in ("", *checks):
                self._gets[f"/{group}/{only}".rstrip("/")] = self._group(group, only)

    def handle(
        self, connection: ConnectionIdentity, request: HttpRequest, sink: HttpSink
    ) -> HttpExchange | None:
        """Answer one request; what it leaves running is returned, to be cancelled."""
        try:
            self._origin.check(request.headers)
            return self._route(connection, request, sink)
        except ForeignHostError as error:
            send_error(sink, Code.PERMISSION_DENIED, str(error), status=421)
        except ForeignOriginError as error:
            send_error(sink, Code.PERMISSION_DENIED, str(error))
        except InvariantViolationError:
            raise
        except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
            self._refuse(error, connection, request, lambda *told: send_error(sink, *told))
        return None

    def _refuse(
        self,
        error: Exception,
        connection: ConnectionIdentity,
        request: HttpRequest,
        tell: Callable[[int, str], None],
    ) -> None:
        """Tell a refusal that came before its method, once it is recorded (FC-2)."""
        method = self._methods.get(request.path)
        try:
            fields = metadata_of(request.headers)[1]
        except RequestError:
            fields = ()
        path = method.path if method is not None else ""

        def told(code: int, text: str) -> None:
            if method is not None:
                method.counts.started += 1
                method.counts.handled[code] += 1
            tell(code, text)

        self._api.refusals.refuse(error, connection, fields, path, told)

    def _route(
        self, connection: ConnectionIdentity, request: HttpRequest, sink: HttpSink
    ) -> HttpExchange | None:
        method = self._methods.get(request.path)
        asked: Metadata | None = None
        try:
            asked = metadata_of(request.headers)
            caller = connection.caller(asked.fields)
        except RequestError as error:
            if method is None or method.stream is None:
                raise
            if asked is not None and method.refused is not None and request.method == "POST":
                return self._refused_stream(error, method, connection, request, asked, sink)
            self._refuse(error, connection, request, lambda *told: send_stream_error(sink, *told))
            return None
        if method is not None:
            if request.method != "POST":
                send_error(sink, Code.UNIMPLEMENTED, "Method Not Allowed")
                return None
            messages = _messages(request.body, method)
            try:
                return self._calls.run(
                    method, caller, connection.key, messages, asked.timeout, sink
                )
            except OverloadedError as error:
                if method.stream is None:
                    raise
                self._refuse(
                    error, connection, request, lambda *told: send_stream_error(sink, *told)
                )
                return None
        get = self._gets.get(request.path)
        if get is None:
            send_error(sink, Code.NOT_FOUND, "Not Found")
            return None
        if request.method != "GET":
            sink.respond(405, (*TEXT_FIELDS, (b"allow", b"GET")), b"Method Not Allowed\n")
            return None
        return get(request, sink)

    def _refused_stream(
        self,
        error: RequestError,
        method: Method,
        connection: ConnectionIdentity,
        request: HttpRequest,
        asked: Metadata,
        sink: HttpSink,
    ) -> HttpExchange | None:
        """A watch with a bad token refuses its watchers one by one in the stream, as over gRPC."""
        refused = method.refused
        ensure(refused is not None, "asked for before")
        messages = _messages(request.body, method)

        def begin(to: StreamSink) -> StreamHandler:
            return refused(error, connection, asked.fields, to)  # type: ignore[misc]

        try:
            return self._calls.run_refused(
                method, begin, connection.key, messages, asked.timeout, sink
            )
        except RequestError as other:
            self._refuse(other, connection, request, lambda *told: send_stream_error(sink, *told))
            return None

    @property
    def probes(self) -> HttpApp:
        """Health, version and metrics alone, for listeners of ``--listen-metrics-urls``."""
        return _Probes(self)

    # --- GET -------------------------------------------------------------------------------------

    def _group(self, group: str, only: str) -> Get:
        return lambda request, sink: self._health.group_answer(group, only, request.query, sink)

    def _version(self, request: HttpRequest, sink: HttpSink) -> None:
        version = self._member.config.advertised_etcd_version
        minor = ".".join(version.split(".")[:2]) + ".0"
        known = self._member.applied > 0  # the first entry fixes the cluster's version
        body = {
            "etcdserver": version,
            "etcdcluster": minor if known else "not_decided",
            "storage": minor if known else "unknown",
        }
        sink.respond(200, JSON_FIELDS, compact(body))

    def _exposition(self, request: HttpRequest, sink: HttpSink) -> None:
        sink.respond(200, METRICS_FIELDS, self._metrics.exposition())

    def _vars(self, request: HttpRequest, sink: HttpSink) -> None:
        member = self._member
        usage = resource.getrusage(resource.RUSAGE_SELF)
        body = {
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "resident_bytes_max": usage.ru_maxrss * 1024,
            "raft": {
                "term": member.term,
                "leader": f"{member.lead:016x}",
                "committed": member.committed,
                "applied": member.applied,
            },
        }
        sink.respond(200, JSON_FIELDS, compact(body))


class _Probes:
    """The gateway with nothing but its probes: other paths are as unknown as any other."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def handle(
        self, connection: ConnectionIdentity, request: HttpRequest, sink: HttpSink
    ) -> HttpExchange | None:
        if request.path in ROUTES or request.path.startswith("/debug/"):
            request = request._replace(path="/")
        return self._gateway.handle(connection, request, sink)


def _messages(body: bytes, method: Method) -> list[bytes]:
    """A call takes one message, unless its client streams."""
    if method.client_stream:
        return json_in.messages(body, method.request)
    return [json_in.only_message(body, method.request)]
