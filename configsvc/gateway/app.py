"""What the client port answers to HTTP: health, version, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from configsvc.api.contract import ConnectionIdentity, HttpExchange, HttpRequest, HttpSink
from configsvc.api.table import Api
from configsvc.errors import RequestError
from configsvc.gateway.metrics import exposition
from configsvc.runtime.member import Member

Headers = tuple[tuple[bytes, bytes], ...]
TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
JSON: Final = (b"content-type", b"application/json")
NO_SPACE, CORRUPT = 1, 2


class Gateway:
    """The HTTP side of one member."""

    def __init__(self, member: Member, api: Api) -> None:
        self._member = member
        self._api = api
        self._gets: dict[str, Callable[[HttpRequest, HttpSink], None]] = {
            "/health": self._health,
            "/version": self._version,
            "/metrics": self._metrics,
        }

    def handle(
        self, connection: ConnectionIdentity, request: HttpRequest, sink: HttpSink
    ) -> HttpExchange | None:
        """Answer one request; the certificate was judged with the connection."""
        try:
            connection.caller(request.headers)
        except RequestError as error:
            self._error(sink, error)
            return None
        get = self._gets.get(request.path)
        if get is None:
            self._plain(sink, 404, {"code": 5, "error": "Not Found", "message": "Not Found"})
        elif request.method != "GET":
            sink.respond(405, (TEXT, (b"allow", b"GET")), b"Method Not Allowed\n")
        else:
            get(request, sink)
        return None

    def _error(self, sink: HttpSink, error: RequestError) -> None:
        code, text = self._api.status_of(error)
        status = 401 if code == 16 else 400
        self._plain(sink, status, {"error": text, "code": code, "message": text, "details": []})

    def _plain(self, sink: HttpSink, status: int, body: object) -> None:
        sink.respond(status, (JSON,), json.dumps(body, separators=(",", ":")).encode())

    def _health(self, request: HttpRequest, sink: HttpSink) -> None:
        member = self._member
        reason = ""
        if member.has_alarm(NO_SPACE) and "exclude=NOSPACE" not in request.query:
            reason = "ALARM NOSPACE"
        elif member.has_alarm(CORRUPT) and "exclude=CORRUPT" not in request.query:
            reason = "ALARM CORRUPT"
        elif not member.lead and "serializable=true" not in request.query:
            reason = "RAFT NO LEADER"
        body = {"health": "false" if reason else "true", "reason": reason}
        data = json.dumps(body, separators=(",", ":")).encode()
        sink.respond(503 if reason else 200, (TEXT,), data)

    def _version(self, request: HttpRequest, sink: HttpSink) -> None:
        version = self._member.config.advertised_etcd_version
        minor = ".".join(version.split(".")[:2]) + ".0"
        self._plain(sink, 200, {"etcdserver": version, "etcdcluster": minor, "storage": minor})

    def _metrics(self, request: HttpRequest, sink: HttpSink) -> None:
        sink.respond(
            200,
            ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),),
            exposition(self._member),
        )
