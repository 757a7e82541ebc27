"""Watch streams by hand: what one may hold, what waits for its record, its certificate's end."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc import limits
from configsvc.api.watch import DUPLICATE_ID, EXPIRY_LOOK_S, TOO_MANY, WatchHandler, WatchService
from configsvc.apply.commands import CompactOp
from configsvc.errors import CertificateNotAcceptableError
from configsvc.proto import rpc_pb2
from tests.support.api_rig import ROOT, ApiMember, Sink, caller

NS = 1_000_000_000


class Watches:
    """A service and one stream of root's."""

    def __init__(self, member: ApiMember, expires_ns: int | None = None) -> None:
        self.service = WatchService(member, None)  # type: ignore[arg-type]
        self.sink = Sink()
        self.handler = self.open(self.sink, expires_ns)

    def open(self, sink: Sink, expires_ns: int | None = None) -> WatchHandler:
        made = self.service.watch(caller(ROOT, expires_ns), sink)
        assert isinstance(made, WatchHandler)
        return made

    def create(self, handler: WatchHandler | None = None, **fields: Any) -> None:
        create: Any = {"key": b"/k"} | fields
        request = rpc_pb2.WatchRequest(create_request=create)
        (handler or self.handler).on_message(request.SerializeToString())

    def cancel(self, watch_id: int) -> None:
        cancel: Any = {"watch_id": watch_id}
        request = rpc_pb2.WatchRequest(cancel_request=cancel)
        self.handler.on_message(request.SerializeToString())

    @property
    def answers(self) -> list[rpc_pb2.WatchResponse]:
        return [rpc_pb2.WatchResponse.FromString(raw) for raw in self.sink.sent]

    @property
    def reasons(self) -> list[str]:
        return [a.cancel_reason for a in self.answers if a.created]


@pytest.fixture
def member() -> ApiMember:
    return ApiMember()


def compacted(member: ApiMember) -> None:
    for _ in range(4):
        member.put(b"/k")
    member.do(ROOT, CompactOp(4))


def test_watchers_that_wait_to_be_cancelled_count(
    member: ApiMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W22: one that compaction overtook is kept until its client cancels it, thus bounded."""
    monkeypatch.setattr(limits, "WATCHES_PER_CONNECTION_MAX", 3)
    compacted(member)
    watches = Watches(member)
    for _ in range(5):
        watches.create(start_revision=1)
    assert watches.reasons == ["", "", "", TOO_MANY, TOO_MANY]
    watches.cancel(0)
    watches.create()
    assert watches.reasons[-1] == ""


def test_they_count_among_all_of_a_member_until_their_stream_ends(
    member: ApiMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCHES_MAX", 4)
    compacted(member)
    watches = Watches(member)
    other = watches.open(Sink())
    for _ in range(2):
        watches.create(other, start_revision=1)
    for _ in range(3):
        watches.create()
    assert watches.reasons == ["", "", TOO_MANY]
    other.on_cancel()
    watches.create()
    assert watches.reasons[-1] == ""
    watches.handler.on_cancel()
    assert (len(member.hub), watches.service.parked, member.streams) == (0, 0, set())


def test_an_id_is_taken_while_its_record_is_being_written(member: ApiMember) -> None:
    """Two watchers of one id would leave one that nobody can end."""
    watches = Watches(member)
    for _ in range(2):
        watches.create(key=b"/secret/a", watch_id=7)
    assert watches.reasons == [DUPLICATE_ID]
    watches.create(key=b"/secret/a")
    member.audit.record()
    assert [a.watch_id for a in watches.answers if not a.canceled] == [7, 0]
    watches.handler.on_cancel()
    assert len(member.hub) == 0


def test_watchers_whose_record_is_being_written_count(
    member: ApiMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCHES_PER_CONNECTION_MAX", 2)
    watches = Watches(member)
    for _ in range(4):
        watches.create(key=b"/secret/a")
    assert watches.reasons == [TOO_MANY, TOO_MANY]
    member.audit.record()
    assert len(member.hub) == 2


def test_n24_a_stream_ends_when_its_certificate_runs_out(member: ApiMember) -> None:
    """The clock is looked at now and then, for it may be set."""
    watches = Watches(member, expires_ns=100 * NS)
    watches.create()
    member.put(b"/k", b"seen")
    for second in (EXPIRY_LOOK_S, 99.0):
        member.now_ns = int(second * NS)
        member.loop.advance(second - member.loop.now)
    assert not watches.sink.ends
    member.now_ns = 100 * NS
    member.loop.advance(1.0)
    assert [type(end) for end in watches.sink.ends] == [CertificateNotAcceptableError]
    member.put(b"/k", b"unseen")
    assert [e.kv.value for a in watches.answers for e in a.events] == [b"seen"]
    assert (len(member.hub), member.streams, member.hub.streams) == (0, set(), 0)


def test_a_stream_that_left_is_not_looked_at_any_more(member: ApiMember) -> None:
    watches = Watches(member, expires_ns=10 * NS)
    watches.handler.on_cancel()
    member.now_ns = 10 * NS
    member.loop.advance(10.0)
    assert not watches.sink.ends
