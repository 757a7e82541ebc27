"""Reads that are recorded: each marked span has its record, and the answer waits for it (AUD-1)."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from configsvc import limits
from configsvc.api import audit as audit_api
from configsvc.api.audit import AuditService
from configsvc.api.contract import Caller, StreamHandler
from configsvc.api.kv import KvService
from configsvc.api.maintenance import SNAPSHOT_PIECE_BYTES, MaintenanceService
from configsvc.apply.commands import UserDeleteOp
from configsvc.auth.messages import READWRITE
from configsvc.codec.requests import txn_op
from configsvc.errors import AuthOldRevisionError, OverloadedError, PermissionDeniedError
from configsvc.proto import rpc_pb2, v1_pb2
from configsvc.types import Principal
from tests.support.api_rig import ADA, ROOT, ApiMember, Sink, caller, told


@pytest.fixture
def member() -> ApiMember:
    made = ApiMember()
    made.user(ADA, (READWRITE, b"/", b"0"))
    for key in (b"/secret/a", b"/secret/b", b"/plain"):
        made.put(key)
    return made


def get(key: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=key))


def put(key: bytes) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=b"v"))


def txn(*ops: rpc_pb2.RequestOp, when: bytes = b"") -> rpc_pb2.TxnRequest:
    compares = [rpc_pb2.Compare(key=when, target=rpc_pb2.Compare.MOD)] if when else []
    return rpc_pb2.TxnRequest(compare=compares, success=ops, failure=ops)


def inner(*ops: rpc_pb2.RequestOp) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_txn=txn(*ops))


class AsMade(KvService):
    """Proposals reach the member's state as they were made, not encoded."""

    def ask(self, who: Principal, request: rpc_pb2.TxnRequest) -> list[Any]:
        self.op = txn_op(request)
        return told(self.txn(caller(who), request.SerializeToString()))

    def propose(self, asker: Caller, *args: Any, **_: Any) -> Any:  # type: ignore[override]
        return self.member.proposals.submit(asker.principal, 0, self.op, args[2])


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        (txn(get(b"/secret/a"), get(b"/plain"), get(b"/secret/b")), [b"/secret/a", b"/secret/b"]),
        (txn(get(b"/plain"), when=b"/secret/a"), [b"/secret/a"]),
        (txn(put(b"/plain"), get(b"/secret/a"), get(b"/secret/b")), [b"/secret/a", b"/secret/b"]),
        (txn(put(b"/plain"), when=b"/secret/b"), [b"/secret/b"]),
        (txn(put(b"/plain"), inner(inner(get(b"/secret/a")))), [b"/secret/a"]),
        (txn(put(b"/plain"), get(b"/plain")), []),
    ],
    ids=["two", "compare", "beside-a-put", "compare-of-a-put", "nested", "unmarked"],
)
def test_whatever_a_transaction_reads_is_recorded_before_it_is_told(
    member: ApiMember, request_: rpc_pb2.TxnRequest, keys: list[bytes]
) -> None:
    """Neither a second read nor a write beside it hides one."""
    got = AsMade(member).ask(ADA, request_)  # type: ignore[arg-type]
    assert member.audit.keys == keys
    assert bool(got) is not bool(keys)
    member.audit.record()
    (answer,) = got
    assert rpc_pb2.TxnResponse.FromString(answer).responses


def test_a_refused_transaction_has_read_nothing(member: ApiMember) -> None:
    nobody = ADA._replace(name="bob", user="bob", uid="")
    got = AsMade(member).ask(nobody, txn(put(b"/plain"), get(b"/secret/a")))  # type: ignore[arg-type]
    assert [type(error) for error in got] == [PermissionDeniedError]
    assert member.audit.keys == []


@pytest.mark.parametrize("kind", ["range", "txn"])
def test_rights_are_those_of_the_moment_that_is_told(member: ApiMember, kind: str) -> None:
    """AZ-2: what is written while the record is may not be for whoever asked before."""
    kv = KvService(member)  # type: ignore[arg-type]
    request = rpc_pb2.RangeRequest(key=b"/secret/a") if kind == "range" else txn(get(b"/secret/a"))
    got = told(getattr(kv, kind)(caller(ADA), request.SerializeToString()))
    member.do(ROOT, UserDeleteOp("ada"))
    member.put(b"/secret/a", b"not for ada")
    member.audit.record()
    assert [type(error) for error in got] == [AuthOldRevisionError]


class Pages:
    """A reader with more leaves than one page, and a copy of more than one piece."""

    def meta(self) -> Any:
        return type("Meta", (), {"tree_size": 10})

    def verify_entries(self, first: int, end: int) -> Any:
        return iter(())

    def actors(self) -> dict[bytes, Any]:
        return {}

    def open_copy(self) -> BytesIO:
        return BytesIO(bytes(3 * SNAPSHOT_PIECE_BYTES))


def exporting(member: ApiMember, sink: Sink) -> StreamHandler:
    made = AuditService(member).export(caller(ROOT), sink)  # type: ignore[arg-type]
    made.on_message(v1_pb2.ExportRequest().SerializeToString())
    return made


def copying(member: ApiMember, sink: Sink) -> StreamHandler:
    made = MaintenanceService(member).snapshot(caller(ROOT), sink)  # type: ignore[arg-type]
    made.on_message(rpc_pb2.SnapshotRequest().SerializeToString())
    return made


@pytest.fixture
def pages(member: ApiMember, monkeypatch: pytest.MonkeyPatch) -> ApiMember:
    monkeypatch.setattr(audit_api, "EXPORT_CHUNK_LEAVES", 4)
    member.reader = Pages()
    member.log_origin = "test"  # type: ignore[attr-defined]
    return member


@pytest.mark.parametrize("start", [exporting, copying])
def test_a_long_stream_goes_on_only_while_it_may(pages: ApiMember, start: Any) -> None:
    """JWT-13: a slow reader is judged again before each piece."""
    sink = Sink()
    sink.room = False
    handler = start(pages, sink)
    pages.audit.record()
    before = len(sink.sent)
    assert before
    pages.state.auth.revoke("identity", ROOT.cert_uri, 0, 0)
    sink.room = True
    handler.on_writable()
    assert [type(end).__name__ for end in sink.ends] == ["CertificateNotAcceptableError"]


def test_an_export_that_finds_no_room_ends(pages: ApiMember) -> None:
    """Too many questions to history: the client hears of it instead of waiting for ever."""
    sink = Sink()
    sink.room = False
    handler = exporting(pages, sink)
    pages.audit.record()

    def full(*_: Any) -> None:
        raise OverloadedError

    pages.gate.run = full  # type: ignore[method-assign]
    handler.on_writable()
    assert [type(end) for end in sink.ends] == [OverloadedError]


def test_few_copies_of_the_store_are_on_their_way(
    pages: ApiMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes as much disk as the store, for as long as its client reads or a thread works."""
    monkeypatch.setattr(limits, "SNAPSHOTS_MAX", 2)
    service = MaintenanceService(pages)  # type: ignore[arg-type]
    slow: list[Any] = []
    pages.gate.run = lambda _, work, done: slow.append((work, done))  # type: ignore[method-assign]

    def start() -> StreamHandler:
        made = service.snapshot(caller(ROOT), Sink())
        made.on_message(rpc_pb2.SnapshotRequest().SerializeToString())
        return made

    left, other = start(), start()
    pages.audit.record()
    left.on_cancel()
    with pytest.raises(OverloadedError):
        start()  # its copy is still being made
    work, done = slow[0]
    done(work())
    start().on_cancel()
    other.on_cancel()
    slow[1][1](OverloadedError())
    assert service.copies == 0


def test_an_export_from_beyond_the_end_is_empty(pages: ApiMember) -> None:
    """No number of a client's reaches SQL that it cannot count to."""
    asked: list[tuple[int, int]] = []

    class Reader(Pages):
        def verify_entries(self, first: int, end: int) -> Any:
            asked.append((first, end))
            return iter(())

    pages.reader = Reader()
    pages.checkpoints = SimpleNamespace(best=lambda most: None)  # type: ignore[attr-defined]
    sink = Sink()
    made = AuditService(pages).export(caller(ROOT), sink)  # type: ignore[arg-type]
    made.on_message(v1_pb2.ExportRequest(from_seq=2**64 - 1, limit=7).SerializeToString())
    pages.audit.record()
    assert asked == [(10, 10)]
    assert sink.ends == [None]
