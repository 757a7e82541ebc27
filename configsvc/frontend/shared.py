"""What the connections of a listener share, and the identity of a connection that was refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

from configsvc.api.contract import ApiTable, ConnectionIdentity, HttpApp, Method
from configsvc.api.traffic import ClientTraffic
from configsvc.errors import CertificateNotAcceptableError, InvariantViolationError
from configsvc.frontend.admission import Admission
from configsvc.limits import HTTP2_STREAMS_MAX

UnknownMethod = Callable[[ConnectionIdentity], None]
Metadata = tuple[tuple[bytes, bytes], ...]
# Error, identity, metadata, path of the method or "", and who is told code and text.
Refuse = Callable[[Exception, ConnectionIdentity, Metadata, str, Callable[[int, str], None]], None]

log = logging.getLogger("configsvc.frontend")


class Shared:
    """What the sessions of one listener know of the world."""

    __slots__ = (
        "admission",
        "api",
        "clock",
        "http",
        "max_streams",
        "methods",
        "on_unknown_method",
        "refuse",
        "traffic",
    )

    def __init__(
        self,
        api: ApiTable,
        http: HttpApp | None,
        clock: Callable[[], float],
        *,
        max_streams: int = HTTP2_STREAMS_MAX,
        serves_grpc: bool = True,
        admission: Admission | None = None,
        on_unknown_method: UnknownMethod | None = None,
        refuse: Refuse | None = None,
        traffic: ClientTraffic | None = None,
    ) -> None:
        self.api = api
        self.methods: dict[bytes, Method] = api.methods if serves_grpc else {}
        self.http = http  # None: this listener serves gRPC only
        self.clock = clock  # seconds, the event loop's scale
        self.max_streams = max_streams
        self.admission = admission if admission is not None else Admission()
        self.on_unknown_method = on_unknown_method
        self.refuse = refuse
        self.traffic = traffic if traffic is not None else ClientTraffic()

    def status_of(self, error: Exception) -> tuple[int, str]:
        """GRPC code and text of what a handler raised; a broken invariant goes on upwards."""
        if isinstance(error, InvariantViolationError):
            raise error
        return self.api.status_of(error)

    def guard(self, callback: Callable[[], None]) -> None:
        """Call back into a handler that has no way to answer any more.

        A bug in one must not keep others from being freed: it is logged and goes no further.
        """
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - status_of tells bugs from broken invariants
            self.status_of(error)


class RefusedIdentity:
    """Stands in for a certificate that TLS took and our rules did not (ID-3).

    Every request is answered with the refusal, so that the client sees a reason.
    """

    key = ""

    def __init__(self, error: CertificateNotAcceptableError) -> None:
        self.error = error

    def caller(self, metadata: tuple[tuple[bytes, bytes], ...]) -> NoReturn:
        """Always refuse."""
        raise CertificateNotAcceptableError(str(self.error))


def judge(shared: Shared, der: bytes | None, ip: str, tls: str) -> ConnectionIdentity:
    """The identity of a new connection, or its stand-in."""
    try:
        return shared.api.connection(der, ip, tls)
    except CertificateNotAcceptableError as error:
        return RefusedIdentity(error)
