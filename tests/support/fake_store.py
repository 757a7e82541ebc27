"""A slow and obvious multi-version store: what the fake cluster's members share."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Protocol

import grpc

from configsvc.proto import (
    auth_pb2,
    kv_pb2,
    v1_pb2,
)
from configsvc.proto import rpc_pb2 as rpc

CLUSTER_ID = 0xC1
EPOCH_NS = 1_700_000_000_000_000_000
Key = kv_pb2.KeyValue


class Abort(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def inside(key: bytes, start: bytes, end: bytes) -> bool:
    if not end:
        return key == start
    if end == b"\0":
        return key >= start
    return start <= key < end


PAGE_RECORDS = 1000


def page_of(records: list[v1_pb2.Record], limit: int) -> v1_pb2.LogResponse:
    """The first ``limit`` records (0: as many as fit) and the rest of the last one's revision."""
    end = min(limit or PAGE_RECORDS, PAGE_RECORDS)
    while end < len(records) and records[end].revision == records[end - 1].revision:
        end += 1
    return v1_pb2.LogResponse(records=records[:end], more=len(records) > end)


class FakeAudit(Protocol):
    """What a test that is about the audit log puts in ``FakeStore.audit``."""

    def checkpoint(self, member: int) -> v1_pb2.CheckpointResponse: ...

    def inclusion(self, member: int, seq: int, size: int) -> v1_pb2.InclusionResponse: ...

    def export(self, member: int, first: int, limit: int) -> Iterator[v1_pb2.ExportChunk]: ...

    def log(self, request: v1_pb2.LogRequest) -> v1_pb2.LogResponse: ...


class FakeStore:
    """Everything the members share."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.revision = 1
        self.compacted = 0
        self.events: list[tuple[int, kv_pb2.Event, v1_pb2.Record]] = []
        self.leases: dict[int, int] = {}
        self.lease_serial = 0
        self.calls: list[tuple[str, dict[str, str | bytes], object]] = []
        self.refusals: dict[str, deque[tuple[grpc.StatusCode, str, bool]]] = defaultdict(deque)
        self.users: dict[str, list[str]] = {"root": ["root"]}
        self.roles: dict[str, list[auth_pb2.Permission]] = {"root": []}
        self.passwords = {"alice": "correct horse"}
        self.tokens: set[str] = set()
        self.token_serial = 0
        self.alarms: list[tuple[int, int]] = []
        self.leader = 1
        self.joined: list[rpc.Member] = []  # members that were added
        self.removed: set[int] = set()
        self.reports: list[v1_pb2.NodeStatus] = []
        self.snapshot = b"s" * 1024  # what the checksum is made of; the rest goes out as it is
        self.audit: FakeAudit | None = None
        self.denied = {}  # (what, value) -> until_ns
        self.policy = ("default", 1, 'schema = "configsvc.policy/v1"\n')

    # --- a plain multi-version store --------------------------------------------------------------

    def refuse(
        self, path: str, code: grpc.StatusCode, text: str, *, times: int = 1, after: bool = False
    ) -> None:
        for _ in range(times):
            self.refusals[path].append((code, text, after))

    def live(self, revision: int = 0) -> dict[bytes, Key]:
        found: dict[bytes, Key] = {}
        for at, event, _ in self.events:
            if revision and at > revision:
                break
            if event.type == kv_pb2.Event.PUT:
                found[event.kv.key] = event.kv
            else:
                found.pop(event.kv.key, None)
        return dict(sorted(found.items()))

    def record(self, event: str, key: bytes, metadata: dict[str, str | bytes]) -> v1_pb2.Record:
        return v1_pb2.Record(
            revision=self.revision,
            key=key,
            event=event,
            actor="user/root",
            method="token" if metadata.get("token") else "certificate",
            source="127.0.0.1",
            time_ns=EPOCH_NS + self.revision * 1_000_000_000,
            reason=bytes(metadata.get("x-change-reason-bin", b"")).decode(),
            ticket=bytes(metadata.get("x-change-ticket-bin", b"")).decode(),
            seq=len(self.events),
            raft_index=len(self.events) + 10,
            outcome="OK",
        )

    def put(self, request: rpc.PutRequest, metadata: dict[str, str | bytes]) -> rpc.PutResponse:
        old = self.live().get(request.key)
        if request.lease and request.lease not in self.leases:
            raise Abort(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
        kv = Key(
            key=request.key,
            value=old.value if request.ignore_value and old else request.value,
            lease=old.lease if request.ignore_lease and old else request.lease,
            create_revision=old.create_revision if old else self.revision,
            mod_revision=self.revision,
            version=old.version + 1 if old else 1,
        )
        event = kv_pb2.Event(type=kv_pb2.Event.PUT, kv=kv)
        if old:
            event.prev_kv.CopyFrom(old)
        record = self.record("kv.put", request.key, metadata)
        record.has_value, record.value, record.version = True, kv.value, kv.version
        record.create_revision, record.lease = kv.create_revision, kv.lease
        self.events.append((self.revision, event, record))
        return rpc.PutResponse(prev_kv=old if request.prev_kv else None)

    def delete(
        self, request: rpc.DeleteRangeRequest, metadata: dict[str, str | bytes]
    ) -> rpc.DeleteRangeResponse:
        gone = [
            kv for key, kv in self.live().items() if inside(key, request.key, request.range_end)
        ]
        for old in gone:
            event = kv_pb2.Event(
                type=kv_pb2.Event.DELETE,
                kv=Key(key=old.key, mod_revision=self.revision),
                prev_kv=old,
            )
            record = self.record("kv.delete", old.key, metadata)
            record.tombstone = True
            self.events.append((self.revision, event, record))
        return rpc.DeleteRangeResponse(deleted=len(gone), prev_kvs=gone if request.prev_kv else [])

    def range(self, request: rpc.RangeRequest) -> rpc.RangeResponse:
        if request.revision and request.revision < self.compacted:
            raise Abort(
                grpc.StatusCode.OUT_OF_RANGE,
                "etcdserver: mvcc: required revision has been compacted",
            )
        kvs = [
            kv
            for key, kv in self.live(request.revision).items()
            if inside(key, request.key, request.range_end)
        ]
        if request.max_create_revision:
            kvs = [kv for kv in kvs if kv.create_revision <= request.max_create_revision]
        if request.sort_target == rpc.RangeRequest.CREATE:
            kvs.sort(key=lambda kv: kv.create_revision)
        if request.sort_order == rpc.RangeRequest.DESCEND:
            kvs.reverse()
        count = len(kvs)
        limited = kvs[: request.limit or None]
        if request.keys_only:
            limited = [
                Key(
                    key=kv.key,
                    create_revision=kv.create_revision,
                    mod_revision=kv.mod_revision,
                    version=kv.version,
                )
                for kv in limited
            ]
        return rpc.RangeResponse(
            kvs=[] if request.count_only else limited, more=len(limited) < count, count=count
        )

    def txn(self, request: rpc.TxnRequest, metadata: dict[str, str | bytes]) -> rpc.TxnResponse:
        held = all(self._holds(compare) for compare in request.compare)
        ops = request.success if held else request.failure
        answers = []
        if any(not op.HasField("request_range") for op in ops):
            self.revision += 1
        for op in ops:
            if op.HasField("request_put"):
                answers.append(rpc.ResponseOp(response_put=self.put(op.request_put, metadata)))
            elif op.HasField("request_delete_range"):
                deleted = self.delete(op.request_delete_range, metadata)
                answers.append(rpc.ResponseOp(response_delete_range=deleted))
            else:
                answers.append(rpc.ResponseOp(response_range=self.range(op.request_range)))
        return rpc.TxnResponse(succeeded=held, responses=answers)

    def _holds(self, compare: rpc.Compare) -> bool:
        keys = [
            kv for key, kv in self.live().items() if inside(key, compare.key, compare.range_end)
        ]
        if not keys and compare.target == rpc.Compare.VALUE:
            return False
        for kv in keys or [Key()]:
            have, want = {
                rpc.Compare.VERSION: (kv.version, compare.version),
                rpc.Compare.CREATE: (kv.create_revision, compare.create_revision),
                rpc.Compare.MOD: (kv.mod_revision, compare.mod_revision),
                rpc.Compare.VALUE: (kv.value, compare.value),
                rpc.Compare.LEASE: (kv.lease, compare.lease),
            }[compare.target]
            verdict = {
                rpc.Compare.EQUAL: have == want,
                rpc.Compare.NOT_EQUAL: have != want,
                rpc.Compare.GREATER: have > want,
                rpc.Compare.LESS: have < want,
            }[compare.result]
            if not verdict:
                return False
        return True
