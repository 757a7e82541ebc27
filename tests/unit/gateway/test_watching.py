"""The member's own watches: what is kept, what is told, what is freed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from configsvc.api.contract import Caller, StreamSink
from configsvc.api.watching import LOST_WATCHER, NO_PUT, Watching
from configsvc.errors import CompactedError, ConfigServiceError, ElectionError, NoLeaderError
from configsvc.limits import SELF_WATCH_MESSAGES_MAX
from configsvc.proto import kv_pb2, rpc_pb2
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL
from tests.support.gateway_fakes import FakeLoop

CALLER = Caller(SYSTEM_PRINCIPAL, NO_SOURCE, b"")
Told = bytes | ConfigServiceError


class FakeWatch:
    """A watch service whose one handler remembers."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.member = self
        self.heard: list[Any] = []

    def watch(self, caller: Caller, sink: StreamSink) -> FakeWatch:
        self.sink = sink
        return self

    def on_message(self, raw: bytes) -> None:
        self.heard.append(rpc_pb2.WatchRequest.FromString(raw).create_request)

    def on_cancel(self) -> None:
        self.heard.append("cancel")

    def on_writable(self) -> None:
        self.heard.append("writable")

    def send(self, **fields: Any) -> bool:
        return self.sink.send(rpc_pb2.WatchResponse(**fields).SerializeToString())

    def event(self, key: bytes) -> bool:
        return self.send(events=[kv_pb2.Event(kv=kv_pb2.KeyValue(key=key))])


@pytest.fixture
def service() -> FakeWatch:
    return FakeWatch()


@pytest.fixture
def watching(service: FakeWatch) -> Watching:
    return Watching(cast(Any, service), CALLER)


def take(watching: Watching, told: list[Told]) -> None:
    watching.next().bind(told.append)


def key_of(told: Told) -> bytes:
    assert isinstance(told, bytes)
    return rpc_pb2.WatchResponse.FromString(told).events[0].kv.key


def test_a_span_is_watched_from_a_revision_on(service: FakeWatch, watching: Watching) -> None:
    watching.add(b"a", b"b", 7, without=NO_PUT)
    (create,) = service.heard
    assert (create.key, create.range_end, create.start_revision) == (b"a", b"b", 7)
    assert list(create.filters) == [NO_PUT]


def test_events_are_told_later_and_in_order(service: FakeWatch, watching: Watching) -> None:
    told: list[Told] = []
    take(watching, told)
    assert service.send(created=True)
    assert service.event(b"1")
    assert service.event(b"2")
    assert told == []  # never inside the pass that feeds all watchers
    service.loop.advance(0)
    assert [key_of(t) for t in told] == [b"1"]
    take(watching, told)
    service.loop.advance(0)
    assert key_of(told[1]) == b"2"


def test_what_is_kept_is_bounded(service: FakeWatch, watching: Watching) -> None:
    sent = [service.event(b"%d" % n) for n in range(SELF_WATCH_MESSAGES_MAX)]
    assert sent == [True] * (SELF_WATCH_MESSAGES_MAX - 1) + [False]
    told: list[Told] = []
    for _ in range(SELF_WATCH_MESSAGES_MAX):
        take(watching, told)
        service.loop.advance(0)
    assert "writable" not in service.heard
    take(watching, told)
    assert service.heard == ["writable"]
    assert [key_of(t) for t in told] == [b"%d" % n for n in range(SELF_WATCH_MESSAGES_MAX)]


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"compact_revision": 9}, CompactedError, CompactedError.text),
        ({"cancel_reason": "rpc error: code = X desc = no"}, ElectionError, "no"),
        ({"cancel_reason": "mvcc: watcher range is empty"}, ElectionError,
         "mvcc: watcher range is empty"),
        ({}, ElectionError, LOST_WATCHER),
    ],
)  # fmt: skip
def test_a_refused_watch_is_an_error(
    service: FakeWatch, watching: Watching, fields: dict[str, Any], kind: type, text: str
) -> None:
    told: list[Told] = []
    take(watching, told)
    service.send(canceled=True, **fields)
    service.loop.advance(0)
    (error,) = told
    assert type(error) is kind
    assert str(error) == text


def test_a_watch_is_freed_once(service: FakeWatch, watching: Watching) -> None:
    told: list[Told] = []
    take(watching, told)
    service.event(b"1")
    watching.close()
    watching.close()
    service.loop.advance(0)
    assert told == []
    assert service.heard == ["cancel"]


def test_a_watch_that_ended_by_itself_is_free_already(
    service: FakeWatch, watching: Watching
) -> None:
    told: list[Told] = []
    take(watching, told)
    watching.finish(NoLeaderError())
    service.loop.advance(0)
    assert [type(t) for t in told] == [NoLeaderError]
    watching.close()
    assert service.heard == []
