"""An in-process cluster that speaks gRPC on loopback, with a slow and obvious store behind it.

For tests of the client and the CLI only: no Raft, no rights, no TLS. ``FakeStore.refuse`` makes
the next calls of a path fail, before or after they took effect.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent import futures
from typing import Protocol

import grpc

from configsvc.proto import (
    auth_pb2,
    health_pb2,
    health_pb2_grpc,
    kv_pb2,
    rpc_pb2_grpc,
    v1_pb2,
    v1_pb2_grpc,
    v3election_pb2_grpc,
    v3lock_pb2,
    v3lock_pb2_grpc,
)
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import v3election_pb2 as election

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
        self.calls: list[tuple[str, dict[str, str | bytes], object]] = []
        self.refusals: dict[str, deque[tuple[grpc.StatusCode, str, bool]]] = defaultdict(deque)
        self.users: dict[str, list[str]] = {"root": ["root"]}
        self.roles: dict[str, list[auth_pb2.Permission]] = {"root": []}
        self.passwords = {"alice": "correct horse"}
        self.tokens: set[str] = set()
        self.token_serial = 0
        self.alarms: list[tuple[int, int]] = []
        self.leader = 1
        self.reports: list[v1_pb2.NodeStatus] = []
        self.snapshot = b"s" * 1024  # what the checksum is made of; the rest goes out as it is
        self.audit: FakeAudit | None = None
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


class _Services:
    """Handlers of one member."""

    def __init__(self, store: FakeStore, member_id: int, ports: list[int]) -> None:
        self.store = store
        self.member_id = member_id
        self.ports = ports
        self.stopped = threading.Event()

    def header(self) -> rpc.ResponseHeader:
        return rpc.ResponseHeader(
            cluster_id=CLUSTER_ID,
            member_id=self.member_id,
            revision=self.store.revision,
            raft_term=3,
        )

    def members(self) -> list[rpc.Member]:
        return [
            rpc.Member(
                ID=number,
                name=f"m{number}",
                peerURLs=[f"https://127.0.0.1:{port + 1}"],
                clientURLs=[f"http://127.0.0.1:{port}"],
            )
            for number, port in enumerate(self.ports, start=1)
        ]

    def unary(self, path, request, context):
        metadata = dict(context.invocation_metadata())
        store = self.store
        with store.lock:
            store.calls.append((path, metadata, request))
            planned = store.refusals[path].popleft() if store.refusals[path] else None
        try:
            if planned and not planned[2]:
                raise Abort(planned[0], planned[1])
            self._check_token(path, metadata)
            with store.lock:
                answer = getattr(self, path.rsplit("/", 1)[1])(request, metadata)
                if "header" in answer.DESCRIPTOR.fields_by_name:
                    answer.header.CopyFrom(self.header())
                store.lock.notify_all()
            if planned:
                raise Abort(planned[0], planned[1])
            return answer
        except Abort as stop:
            context.abort(stop.code, stop.text)

    def _check_token(self, path: str, metadata: dict[str, str | bytes]) -> None:
        token = metadata.get("token")
        if token and token not in self.store.tokens and not path.endswith("Authenticate"):
            raise Abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")

    # KV
    def Range(self, request, metadata):
        return self.store.range(request)

    def Put(self, request, metadata):
        if not request.key:
            raise Abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided")
        self.store.revision += 1
        return self.store.put(request, metadata)

    def DeleteRange(self, request, metadata):
        self.store.revision += 1
        return self.store.delete(request, metadata)

    def Txn(self, request, metadata):
        return self.store.txn(request, metadata)

    def Compact(self, request, metadata):
        self.store.compacted = request.revision
        return rpc.CompactionResponse()

    # leases
    def LeaseGrant(self, request, metadata):
        lease_id = request.ID or 0x1000 + len(self.store.leases)
        self.store.leases[lease_id] = request.TTL
        return rpc.LeaseGrantResponse(ID=lease_id, TTL=request.TTL)

    def LeaseRevoke(self, request, metadata):
        if self.store.leases.pop(request.ID, None) is None:
            raise Abort(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
        self.store.revision += 1
        for kv in list(self.store.live().values()):
            if kv.lease == request.ID:
                self.store.delete(rpc.DeleteRangeRequest(key=kv.key), metadata)
        return rpc.LeaseRevokeResponse()

    def LeaseTimeToLive(self, request, metadata):
        ttl = self.store.leases.get(request.ID, -1)
        keys = [kv.key for kv in self.store.live().values() if kv.lease == request.ID]
        return rpc.LeaseTimeToLiveResponse(
            ID=request.ID, TTL=ttl, grantedTTL=max(ttl, 0), keys=keys if request.keys else []
        )

    def LeaseLeases(self, request, metadata):
        return rpc.LeaseLeasesResponse(
            leases=[rpc.LeaseStatus(ID=one) for one in self.store.leases]
        )

    def LeaseKeepAlive(self, requests, context):
        for request in requests:
            with self.store.lock:
                self.store.lock.notify_all()
                self.store.calls.append(("/etcdserverpb.Lease/LeaseKeepAlive", {}, request))
                ttl = self.store.leases.get(request.ID, 0)
            yield rpc.LeaseKeepAliveResponse(header=self.header(), ID=request.ID, TTL=ttl)

    # auth
    def Authenticate(self, request, metadata):
        if self.store.passwords.get(request.name) != request.password:
            raise Abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "etcdserver: authentication failed, invalid user ID or password",
            )
        self.store.token_serial += 1
        token = f"token-{request.name}-{self.store.token_serial}"
        self.store.tokens.add(token)
        return rpc.AuthenticateResponse(token=token)

    def AuthStatus(self, request, metadata):
        return rpc.AuthStatusResponse(enabled=True, authRevision=7)

    def UserAdd(self, request, metadata):
        if request.name in self.store.users:
            raise Abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: user name already exists")
        self.store.users[request.name] = []
        if not request.options.no_password:
            self.store.passwords[request.name] = request.password
        return rpc.AuthUserAddResponse()

    def _user(self, name):
        if name not in self.store.users:
            raise Abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: user name not found")
        return self.store.users[name]

    def _role(self, name):
        if name not in self.store.roles:
            raise Abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: role name not found")
        return self.store.roles[name]

    def UserGet(self, request, metadata):
        return rpc.AuthUserGetResponse(roles=self._user(request.name))

    def UserList(self, request, metadata):
        return rpc.AuthUserListResponse(users=sorted(self.store.users))

    def UserDelete(self, request, metadata):
        self._user(request.name)
        del self.store.users[request.name]
        return rpc.AuthUserDeleteResponse()

    def UserChangePassword(self, request, metadata):
        self._user(request.name)
        self.store.passwords[request.name] = request.password
        return rpc.AuthUserChangePasswordResponse()

    def UserGrantRole(self, request, metadata):
        self._role(request.role)
        self._user(request.user).append(request.role)
        return rpc.AuthUserGrantRoleResponse()

    def UserRevokeRole(self, request, metadata):
        self._user(request.name).remove(request.role)
        return rpc.AuthUserRevokeRoleResponse()

    def RoleAdd(self, request, metadata):
        self.store.roles[request.name] = []
        return rpc.AuthRoleAddResponse()

    def RoleGet(self, request, metadata):
        return rpc.AuthRoleGetResponse(perm=self._role(request.role))

    def RoleList(self, request, metadata):
        return rpc.AuthRoleListResponse(roles=sorted(self.store.roles))

    def RoleDelete(self, request, metadata):
        self._role(request.role)
        del self.store.roles[request.role]
        return rpc.AuthRoleDeleteResponse()

    def RoleGrantPermission(self, request, metadata):
        self._role(request.name).append(request.perm)
        return rpc.AuthRoleGrantPermissionResponse()

    def RoleRevokePermission(self, request, metadata):
        role = self._role(request.role)
        wanted = (request.key, request.range_end)
        role[:] = [one for one in role if (one.key, one.range_end) != wanted]
        return rpc.AuthRoleRevokePermissionResponse()

    # cluster and maintenance
    def MemberList(self, request, metadata):
        return rpc.MemberListResponse(members=self.members())

    def MemberAdd(self, request, metadata):
        added = rpc.Member(ID=99, peerURLs=request.peerURLs, isLearner=request.isLearner)
        return rpc.MemberAddResponse(member=added, members=[*self.members(), added])

    def MemberRemove(self, request, metadata):
        if len(self.ports) < request.ID:
            raise Abort(grpc.StatusCode.NOT_FOUND, "etcdserver: member not found")
        return rpc.MemberRemoveResponse(
            members=[member for member in self.members() if request.ID != member.ID]
        )

    def MemberUpdate(self, request, metadata):
        return rpc.MemberUpdateResponse(members=self.members())

    def MemberPromote(self, request, metadata):
        return rpc.MemberPromoteResponse(members=self.members())

    def Status(self, request, metadata):
        return rpc.StatusResponse(
            version="3.7.1",
            dbSize=4096,
            dbSizeInUse=2048,
            leader=self.store.leader,
            raftIndex=20,
            raftAppliedIndex=20,
            raftTerm=3,
        )

    def Alarm(self, request, metadata):
        if request.action == rpc.AlarmRequest.DEACTIVATE:
            wanted = (request.memberID, request.alarm)
            gone = [one for one in self.store.alarms if one == wanted]
            self.store.alarms = [one for one in self.store.alarms if one != wanted]
        else:
            gone = self.store.alarms
        return rpc.AlarmResponse(
            alarms=[rpc.AlarmMember(memberID=member, alarm=alarm) for member, alarm in gone]
        )

    def Defragment(self, request, metadata):
        return rpc.DefragmentResponse()

    def HashKV(self, request, metadata):
        return rpc.HashKVResponse(hash=42, hash_revision=self.store.revision, compact_revision=-1)

    def MoveLeader(self, request, metadata):
        if self.member_id != self.store.leader:
            raise Abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: not leader")
        self.store.leader = request.targetID
        return rpc.MoveLeaderResponse()

    def Snapshot(self, request, context):
        data = b"s" * 1024
        yield rpc.SnapshotResponse(header=self.header(), blob=data[:512], remaining_bytes=512)
        yield rpc.SnapshotResponse(header=self.header(), blob=data[512:], remaining_bytes=0)
        digest = hashlib.sha256(self.store.snapshot).digest()
        yield rpc.SnapshotResponse(header=self.header(), blob=digest)

    def Check(self, request, metadata):
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    # lock and election
    def Lock(self, request, metadata):
        key = request.name + b"/%x" % request.lease
        if key not in self.store.live():
            self.store.revision += 1
            self.store.put(rpc.PutRequest(key=key, lease=request.lease), metadata)
        return v3lock_pb2.LockResponse(key=key)

    def Unlock(self, request, metadata):
        self.store.revision += 1
        self.store.delete(rpc.DeleteRangeRequest(key=request.key), metadata)
        return v3lock_pb2.UnlockResponse()

    def Campaign(self, request, metadata):
        key = request.name + b"/%x" % request.lease
        self.store.revision += 1
        self.store.put(rpc.PutRequest(key=key, value=request.value, lease=request.lease), metadata)
        rev = self.store.live()[key].create_revision
        return election.CampaignResponse(
            leader=election.LeaderKey(name=request.name, key=key, rev=rev, lease=request.lease)
        )

    def Resign(self, request, metadata):
        self.store.revision += 1
        self.store.delete(rpc.DeleteRangeRequest(key=request.leader.key), metadata)
        return election.ResignResponse()

    def Leader(self, request, metadata):
        for key, kv in self.store.live().items():
            if key.startswith(request.name + b"/"):
                return election.LeaderResponse(kv=kv)
        raise Abort(grpc.StatusCode.UNKNOWN, "election: no leader")

    def Proclaim(self, request, metadata):
        return election.ProclaimResponse()

    # watch
    def Watch(self, requests, context):
        store = self.store
        metadata = dict(context.invocation_metadata())
        first = next(requests).create_request
        with store.lock:
            path = "/etcdserverpb.Watch/Watch"
            store.calls.append((path, metadata, first))
            planned = store.refusals[path].popleft() if store.refusals[path] else None
            token = metadata.get("token")
            start = first.start_revision or store.revision + 1
        if planned:
            if planned[2]:
                reason = f"rpc error: code = {planned[0].name} desc = {planned[1]}"
                yield rpc.WatchResponse(
                    header=self.header(),
                    created=True,
                    canceled=True,
                    cancel_reason=reason,
                    watch_id=-1,
                )
                return
            context.abort(planned[0], planned[1])
        if token and token not in store.tokens:
            yield rpc.WatchResponse(
                header=self.header(),
                created=True,
                canceled=True,
                watch_id=-1,
                cancel_reason="rpc error: code = Unauthenticated desc = "
                "etcdserver: invalid auth token",
            )
            return
        yield rpc.WatchResponse(header=self.header(), created=True)
        if start < store.compacted:
            yield rpc.WatchResponse(canceled=True, compact_revision=store.compacted)
            return
        asked = threading.Event()
        threading.Thread(
            target=lambda: [asked.set() for _ in _quietly(requests)], daemon=True
        ).start()
        sent = start - 1
        while context.is_active() and not self.stopped.is_set():
            with store.lock:
                fresh = [
                    (at, event)
                    for at, event, _ in store.events
                    if at > sent and inside(event.kv.key, first.key, first.range_end)
                ]
                if not fresh and not asked.is_set():
                    store.lock.wait(0.02)
                    continue
                now = store.revision
            if asked.is_set():
                asked.clear()
                yield rpc.WatchResponse(header=self.header(), watch_id=-1)
            for at in sorted({at for at, _ in fresh}):
                events = [event for one, event in fresh if one == at]
                yield rpc.WatchResponse(header=self.header(), events=events)
            sent = max(sent, now)
        if self.stopped.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: server stopped")

    # configsvc.v1
    def Log(self, request, metadata):
        if self.store.audit is not None:
            return self.store.audit.log(request)
        found = []
        for at, event, record in self.store.events:
            if not inside(event.kv.key, request.key, request.range_end):
                continue
            if request.before_revision and at >= request.before_revision:
                continue
            if at <= request.after_revision:
                continue
            copy = v1_pb2.Record()
            copy.CopyFrom(record)
            if not request.values:
                copy.ClearField("value")
                copy.has_value = False
            found.append(copy)
        if not request.ascending:
            found.reverse()
        limit = request.limit or 1000
        return v1_pb2.LogResponse(records=found[:limit], more=len(found) > limit)

    def Blame(self, request, metadata):
        newest = {}
        for _at, event, record in self.store.events:
            if inside(event.kv.key, request.key, request.range_end):
                newest[event.kv.key] = record
        live = self.store.live(request.revision)
        return v1_pb2.LogResponse(records=[newest[key] for key in sorted(newest) if key in live])

    def Diff(self, request, metadata):
        before, after = self.store.live(request.from_revision), self.store.live(request.to_revision)
        changed = [
            v1_pb2.Difference(key=key, before=before.get(key), after=after.get(key))
            for key in sorted(before.keys() | after.keys())
            if inside(key, request.key, request.range_end)
            and before.get(key, Key()).value != after.get(key, Key()).value
        ]
        return v1_pb2.DiffResponse(
            differences=changed,
            from_revision=request.from_revision,
            to_revision=request.to_revision or self.store.revision,
        )

    def At(self, request, metadata):
        revision = request.revision
        if request.time_ns:
            revision = max(
                [at for at, _, record in self.store.events if record.time_ns <= request.time_ns],
                default=1,
            )
        revision = revision or self.store.revision
        kvs = [
            kv
            for key, kv in self.store.live(revision).items()
            if inside(key, request.key, request.range_end)
        ]
        return v1_pb2.AtResponse(
            revision=revision,
            time_ns=EPOCH_NS + revision * 1_000_000_000,
            kvs=kvs[: request.limit or None],
            count=len(kvs),
        )

    def Checkpoint(self, request, metadata):
        return self._audit().checkpoint(self.member_id)

    def Inclusion(self, request, metadata):
        return self._audit().inclusion(self.member_id, request.seq, request.tree_size)

    def _audit(self):
        if self.store.audit is None:
            raise Abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        return self.store.audit

    def FleetStatus(self, request, metadata):
        nodes = [
            one
            for one in self.store.reports
            if one.member in (0, self.member_id) and request.node in ("", one.node)
        ]
        return v1_pb2.FleetStatusResponse(nodes=nodes, as_of_ns=time.time_ns())

    def Report(self, request, metadata):
        return v1_pb2.ReportResponse(heartbeat_ms=1000)

    def Show(self, request, metadata):
        name, version, source = self.store.policy
        return v1_pb2.PolicyShowResponse(name=name, version=version, source=source)

    def Load(self, request, metadata):
        name, version, _ = self.store.policy
        self.store.policy = (name, version + 1, request.source)
        return v1_pb2.PolicyLoadResponse(name=name, version=version + 1)

    def CanI(self, request, metadata):
        allowed = not request.key.startswith(b"/secret/")
        steps = [v1_pb2.CanIStep(kind="rbac", rule="role root", verdict="would allow")]
        return v1_pb2.CanIResponse(
            allowed=allowed,
            rule="rbac:root" if allowed else "default",
            auth_revision=7,
            policy="default@1",
            steps=steps if request.explain else [],
        )

    def Export(self, request, context):
        try:
            yield from self._audit().export(self.member_id, request.from_seq, request.limit)
        except Abort as stop:
            context.abort(stop.code, stop.text)


def _quietly(requests):
    try:
        yield from requests
    except (grpc.RpcError, Exception):
        return


_SERVICES = [
    ("etcdserverpb.KV", rpc_pb2_grpc.add_KVServicer_to_server),
    ("etcdserverpb.Watch", rpc_pb2_grpc.add_WatchServicer_to_server),
    ("etcdserverpb.Lease", rpc_pb2_grpc.add_LeaseServicer_to_server),
    ("etcdserverpb.Auth", rpc_pb2_grpc.add_AuthServicer_to_server),
    ("etcdserverpb.Cluster", rpc_pb2_grpc.add_ClusterServicer_to_server),
    ("etcdserverpb.Maintenance", rpc_pb2_grpc.add_MaintenanceServicer_to_server),
    ("v3lockpb.Lock", v3lock_pb2_grpc.add_LockServicer_to_server),
    ("v3electionpb.Election", v3election_pb2_grpc.add_ElectionServicer_to_server),
    ("grpc.health.v1.Health", health_pb2_grpc.add_HealthServicer_to_server),
    ("configsvc.v1.History", v1_pb2_grpc.add_HistoryServicer_to_server),
    ("configsvc.v1.Audit", v1_pb2_grpc.add_AuditServicer_to_server),
    ("configsvc.v1.Fleet", v1_pb2_grpc.add_FleetServicer_to_server),
    ("configsvc.v1.Policy", v1_pb2_grpc.add_PolicyServicer_to_server),
]
_STREAMS = {"Watch", "LeaseKeepAlive", "Snapshot", "Export"}
_RENAMED = {"/configsvc.v1.Fleet/Status": "/configsvc.v1.Fleet/FleetStatus"}


class _Servicer:
    """Routes every method of one service to the member's handlers."""

    def __init__(self, services: _Services, service: str) -> None:
        self._services = services
        self._service = service

    def __getattr__(self, name: str):
        path = f"/{self._service}/{name}"
        services = self._services
        if name in _STREAMS and self._service != "grpc.health.v1.Health":
            return getattr(services, name)
        path = _RENAMED.get(path, path)
        return lambda request, context: services.unary(path, request, context)


class FakeMember:
    """One listening member; ``stop`` and ``start`` keep its port."""

    def __init__(
        self,
        store: FakeStore,
        member_id: int,
        ports: list[int],
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self._store, self._id, self._ports = store, member_id, ports
        self._credentials = credentials
        self.port = 0
        self.server: grpc.Server | None = None

    def start(self) -> None:
        self.services = _Services(self._store, self._id, self._ports)
        self.server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=8), options=(("grpc.so_reuseport", 0),)
        )
        for name, add in _SERVICES:
            add(_Servicer(self.services, name), self.server)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self.server.add_insecure_port(address)
        else:
            self.port = self.server.add_secure_port(address, self._credentials)
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.services.stopped.set()
            self.server.stop(grace=None).wait()
            self.server = None

    @property
    def url(self) -> str:
        scheme = "http" if self._credentials is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"


class FakeCluster:
    def __init__(self, size: int = 1, credentials: grpc.ServerCredentials | None = None) -> None:
        self.store = FakeStore()
        self.ports: list[int] = []
        self.members = [
            FakeMember(self.store, number, self.ports, credentials) for number in range(1, size + 1)
        ]

    def __enter__(self) -> FakeCluster:
        for member in self.members:
            member.start()
            self.ports.append(member.port)
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.stop()

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def calls(self, path: str) -> list[tuple[str, dict[str, str | bytes], object]]:
        with self.store.lock:
            return [call for call in self.store.calls if call[0] == path]
