"""Who is refused for load is told how long to wait; nobody else is (O1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import hpack
import pytest

from configsvc.api.status import status_of
from configsvc.errors import (
    NoSpaceError,
    OverloadedError,
    RequestError,
    RequestTooLargeError,
    RequestTooManyRequestsError,
)
from configsvc.gateway.answers import send_error
from configsvc.http2 import grpc
from configsvc.limits import OVERLOAD_PAUSE_S
from tests.support.gateway_fakes import FakeSink

CASES = [
    (OverloadedError(), True),
    (NoSpaceError(), False),
    (RequestTooLargeError(), False),
    (RequestTooManyRequestsError(), False),
]


@pytest.mark.parametrize(("error", "waits"), CASES, ids=lambda v: type(v).__name__)
def test_over_http(error: RequestError, waits: bool) -> None:
    sink = FakeSink()
    send_error(sink, *status_of(error))
    assert sink.headers.get(b"retry-after") == (b"%d" % OVERLOAD_PAUSE_S if waits else None)


class Sent:
    """An outbox that keeps header blocks."""

    def __init__(self) -> None:
        self.block = b""

    def headers(self, stream: Any, block: bytes, *, end: bool = False) -> None:
        self.block = block

    def end(self, stream: Any, block: bytes = b"") -> None:
        self.block = block


@pytest.mark.parametrize("begun", [False, True], ids=["trailers-only", "after-headers"])
@pytest.mark.parametrize(("error", "waits"), CASES, ids=lambda v: type(v).__name__)
def test_over_grpc(error: RequestError, waits: bool, begun: bool) -> None:
    sent = Sent()
    stream = SimpleNamespace(headers_sent=begun)
    grpc.finish(cast(Any, sent), cast(Any, stream), *status_of(error))
    fields = hpack.Decoder().decode(sent.block, raw=True)
    named = {bytes(name): bytes(value) for name, value in fields}
    pause = b"%d" % (1_000 * OVERLOAD_PAUSE_S)
    assert named.get(b"grpc-retry-pushback-ms") == (pause if waits else None)
    assert named[b"grpc-status"] == b"%d" % status_of(error)[0]
