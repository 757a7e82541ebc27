"""grpc.health.v1: the service "" is SERVING while this member is ready."""

from __future__ import annotations

from configsvc.api.contract import Caller, StreamHandler, StreamSink
from configsvc.api.service import Service
from configsvc.codec import requests
from configsvc.errors import NotFoundError
from configsvc.proto import health_pb2


class HealthService(Service):
    """Handlers of Health (X8, N4)."""

    def check(self, caller: Caller, raw: bytes) -> bytes:
        m = requests.parse(health_pb2.HealthCheckRequest, raw)
        if m.service:
            raise NotFoundError("unknown service")
        return b"\x08\x01" if self.member.ready and not self.member.audit.problem else b"\x08\x02"

    def watch(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        return _HealthWatch(self, caller, sink)


class _HealthWatch:
    """Tells the state now and whenever it changes."""

    def __init__(self, service: HealthService, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink

    def on_message(self, raw: bytes) -> None:
        self._sink.send(self._service.check(self._caller, raw))
        self._service.member.on_ready_change(self, self._tell)

    def _tell(self) -> None:
        self._sink.send(self._service.check(self._caller, b""))

    def on_half_close(self) -> None:
        return

    def on_cancel(self) -> None:
        self._service.member.forget_ready_change(self)

    def on_writable(self) -> None:
        return
