"""The way of a request through the gates, with a table of methods that only echo."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from configsvc.api.call_counts import CallCounts
from configsvc.api.contract import Caller, HttpRequest, Method
from configsvc.api.status import status_of
from configsvc.errors import (
    CertificateNotAcceptableError,
    InvariantViolationError,
    PermissionDeniedError,
    RequestError,
)
from configsvc.gateway import calls
from configsvc.gateway.app import Gateway
from configsvc.gateway.routes import ROUTES
from configsvc.proto import rpc_pb2
from configsvc.runtime.slices import Slices
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL
from tests.support.gateway_fakes import FakeLoop, FakeMember, FakeSink

HOST = (b"host", b"localhost:2379")


class FakeRefusals:
    """Every record is on disk at once."""

    def __init__(self, status_of: Any) -> None:
        self._status_of = status_of

    def held(self, method: Method) -> Method:
        return method

    def refuse(self, error: Any, who: Any, metadata: Any, path: str, tell: Any) -> None:
        tell(*self._status_of(error))


class FakeApi:
    """Every method answers with the key it was asked for, or as ``behave`` says."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.behave: BaseException | None = None
        self.refusals = FakeRefusals(self.status_of)
        self.methods = {
            rpc.encode(): Method(
                rpc,
                self.echo,
                None,
                False,
                False,
                rpc_pb2.RangeRequest,
                rpc_pb2.SnapshotResponse,
                counts=CallCounts(),
            )
            for rpc in ROUTES.values()
        }

    def echo(self, caller: Caller, raw: bytes) -> bytes:
        self.callers.append(caller)
        if self.behave is not None:
            raise self.behave
        key = rpc_pb2.RangeRequest.FromString(raw).key
        return rpc_pb2.SnapshotResponse(blob=key).SerializeToString()

    def status_of(self, error: BaseException) -> tuple[int, str]:
        return status_of(error) if isinstance(error, RequestError) else (13, "internal error, id=7")


class FakeConnection:
    key = "spiffe://test/user/alice"

    def __init__(self) -> None:
        self.metadata: Any = None
        self.refuse = False

    def caller(self, metadata: tuple[tuple[bytes, bytes], ...]) -> Caller:
        self.metadata = metadata
        if self.refuse:
            raise CertificateNotAcceptableError
        return Caller(SYSTEM_PRINCIPAL, NO_SOURCE, b"")


class World:
    def __init__(self) -> None:
        self.member = FakeMember()
        self.member.loop = FakeLoop()  # type: ignore[attr-defined]
        self.member.slices = Slices(self.member.loop)  # type: ignore[attr-defined]
        self.member.applied = 0  # type: ignore[attr-defined]
        self.api = FakeApi()
        self.connection = FakeConnection()
        self.app = Gateway(cast(Any, self.member), cast(Any, self.api))

    def ask(
        self,
        path: str,
        *,
        method: str = "POST",
        body: bytes = b"",
        query: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (HOST,),
        probes: bool = False,
    ) -> FakeSink:
        sink = FakeSink()
        app = self.app.probes if probes else self.app
        app.handle(self.connection, HttpRequest(method, path, query, headers, body), sink)
        return sink


@pytest.fixture
def world() -> World:
    return World()


def test_a_call_reaches_its_handler_with_the_connections_caller(world: World) -> None:
    answer = world.ask("/v3/kv/range", body=b'{"key":"Zm9v"}')
    assert (answer.status, answer.body) == (200, b'{"blob":"Zm9v"}')
    assert answer.headers[b"content-type"] == b"application/json"
    assert len(world.api.callers) == 1


def test_no_gate_is_passed_over(world: World) -> None:
    assert world.ask("/v3/kv/put", headers=()).status == 421
    assert world.ask("/v3/kv/put", headers=(HOST, (b"origin", b"null"))).status == 403
    assert world.ask("/v3/kv/put", headers=(HOST, (b"token", b"t"))).status == 401
    assert world.connection.metadata is None
    assert world.ask("/v3/kv/put", body=b"[").status == 400
    world.connection.refuse = True
    for path in ("/v3/kv/put", "/health", "/metrics", "/version", "/nowhere"):
        answer = world.ask(path, method="GET")
        assert answer.status == 401, path
        assert json.loads(answer.body)["message"] == "certificate not acceptable"
    assert world.api.callers == []


def test_what_is_refused_before_its_method_counts_as_its_call(world: World) -> None:
    counts = world.api.methods[b"/etcdserverpb.KV/Put"].counts
    world.ask("/v3/kv/put", body=b"[")
    world.connection.refuse = True
    world.ask("/v3/kv/put")
    assert (counts.started, counts.handled[3], counts.handled[16]) == (2, 1, 1)
    world.ask("/v3/kv/nothing")
    world.ask("/v3/kv/put", method="GET")
    assert (counts.started, sum(counts.handled)) == (3, 3)


def test_errors_of_handlers(world: World) -> None:
    world.api.behave = PermissionDeniedError()
    assert world.ask("/v3/kv/put").status == 403
    world.api.behave = ZeroDivisionError("secret")
    answer = world.ask("/v3/kv/put")
    assert (answer.status, json.loads(answer.body)["message"]) == (500, "internal error, id=7")
    world.api.behave = InvariantViolationError("x")
    with pytest.raises(InvariantViolationError):
        world.ask("/v3/kv/put")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3/kv/range", 501),
        ("OPTIONS", "/v3/kv/range", 501),
        ("PUT", "/v3beta/kv/put", 501),
        ("POST", "/health", 405),
        ("HEAD", "/health", 405),
        ("OPTIONS", "/metrics", 405),
        ("GET", "/v3/nothing", 404),
        ("POST", "/v3/kv/range/", 404),
        ("GET", "/readyz/nothing", 404),
        ("GET", "/livez/data_corruption", 404),
    ],
)
def test_methods_and_paths(world: World, method: str, path: str, status: int) -> None:
    answer = world.ask(path, method=method)
    assert answer.status == status
    assert (answer.headers.get(b"allow") == b"GET") == (status == 405)
    assert not any(name.startswith(b"access-control") for name in answer.headers)


def test_the_version_is_not_known_before_the_first_entry(world: World) -> None:
    unknown = json.loads(world.ask("/version", method="GET").body)
    assert (unknown["etcdcluster"], unknown["storage"]) == ("not_decided", "unknown")
    world.member.applied = 1  # type: ignore[attr-defined]
    known = world.ask("/version", method="GET").body
    assert known == b'{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}'


def test_a_listener_for_metrics_has_no_other_paths(world: World) -> None:
    for path in ROUTES:
        assert world.ask(path, probes=True).status == 404
    assert world.ask("/debug/vars", method="GET", probes=True).status == 404
    assert world.api.callers == []
    assert world.ask("/livez", method="GET", probes=True).status == 200
    assert world.ask("/version", method="GET", probes=True).status == 200
    assert world.ask("/livez", method="GET", headers=(), probes=True).status == 421


def test_one_stream_too_many_is_told_as_streams_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STREAMS_MAX", 0)
    path = b"/etcdserverpb.Watch/Watch"
    row = world.api.methods[path]
    world.api.methods[path] = row._replace(unary=None, stream=lambda *_: None, client_stream=True)
    app = Gateway(cast(Any, world.member), cast(Any, world.api))
    sink = FakeSink()
    app.handle(world.connection, HttpRequest("POST", "/v3/watch", "", (HOST,), b"{}"), sink)
    assert sink.status == 429
    assert json.loads(sink.body)["error"]["grpc_code"] == 8
