"""Handlers of one fake member, over the shared ``FakeStore``."""

from __future__ import annotations

import hashlib
import threading
import time

import grpc

from configsvc.proto import (
    health_pb2,
    v1_pb2,
    v3lock_pb2,
)
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import v3election_pb2 as election
from tests.support import fake_store
from tests.support.fake_store import CLUSTER_ID, EPOCH_NS, Abort, FakeStore, Key, inside, page_of


class Services:
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
        own = [
            rpc.Member(
                ID=number,
                name=f"m{number}",
                peerURLs=[f"https://127.0.0.1:{port + 1}"],
                clientURLs=[f"http://127.0.0.1:{port}"],
            )
            for number, port in enumerate(self.ports, start=1)
        ]
        return [m for m in (*own, *self.store.joined) if m.ID not in self.store.removed]

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
        self.store.lease_serial += 1  # ids are never reused: two holders would share a lock
        lease_id = request.ID or 0x0FFF + self.store.lease_serial
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
        metadata = dict(context.invocation_metadata())
        path = "/etcdserverpb.Lease/LeaseKeepAlive"
        try:
            self._check_token(path, metadata)
        except Abort as stop:
            context.abort(stop.code, stop.text)
        for request in requests:
            with self.store.lock:
                self.store.lock.notify_all()
                self.store.calls.append((path, metadata, request))
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
        number = 99 + len(self.store.joined)
        added = rpc.Member(ID=number, peerURLs=request.peerURLs, isLearner=request.isLearner)
        self.store.joined.append(added)
        return rpc.MemberAddResponse(member=added, members=self.members())

    def MemberRemove(self, request, metadata):
        if request.ID not in [member.ID for member in self.members()]:
            raise Abort(grpc.StatusCode.NOT_FOUND, "etcdserver: member not found")
        self.store.removed.add(request.ID)
        return rpc.MemberRemoveResponse(members=self.members())

    def MemberUpdate(self, request, metadata):
        return rpc.MemberUpdateResponse(members=self.members())

    def MemberPromote(self, request, metadata):
        for member in self.store.joined:
            if request.ID == member.ID:
                member.isLearner = False
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
        return page_of(found, request.limit)

    def Blame(self, request, metadata):
        newest = {}
        for _at, event, record in self.store.events:
            if inside(event.kv.key, request.key, request.range_end):
                newest[event.kv.key] = record
        live = self.store.live(request.revision)
        found = [newest[key] for key in sorted(newest) if key in live]
        end = min(request.limit or fake_store.PAGE_RECORDS, fake_store.PAGE_RECORDS)
        return v1_pb2.LogResponse(records=found[:end], more=len(found) > end)

    def Diff(self, request, metadata):
        before, after = self.store.live(request.from_revision), self.store.live(request.to_revision)
        changed = [
            v1_pb2.Difference(key=key, before=before.get(key), after=after.get(key))
            for key in sorted(before.keys() | after.keys())
            if inside(key, request.key, request.range_end)
            and before.get(key, Key()).mod_revision != after.get(key, Key()).mod_revision
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

    def DenyAdd(self, request, metadata):
        if request.what not in ("user", "all"):
            self.store.denied[(request.what, request.value)] = request.until_ns
        entry = v1_pb2.Denial(what=request.what, value=request.value, until_ns=request.until_ns)
        return v1_pb2.DenyAddResponse(entry=entry)

    def DenyRemove(self, request, metadata):
        if self.store.denied.pop((request.what, request.value), None) is None:
            raise Abort(grpc.StatusCode.NOT_FOUND, "configsvc: not on the deny-list")
        entry = v1_pb2.Denial(what=request.what, value=request.value)
        return v1_pb2.DenyRemoveResponse(entry=entry)

    def DenyList(self, request, metadata):
        after = (request.after.what, request.after.value)
        rest = sorted(entry for entry in self.store.denied.items() if entry[0] > after)
        entries = [v1_pb2.Denial(what=w, value=v, until_ns=until) for (w, v), until in rest[:2]]
        return v1_pb2.DenyListResponse(entries=entries, more=len(rest) > 2)

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
