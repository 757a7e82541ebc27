"""v3electionpb.Election: the leader is the first place in a queue of keys (behaviour.md 11)."""

from __future__ import annotations

from typing import Any, Final

from configsvc.api.candidacy import CandidacyService, Candidate, deletion, first_of, guard
from configsvc.api.contract import Caller, StreamHandler, StreamSink, Waiting
from configsvc.api.sequence import Pause, Steps
from configsvc.api.watching import DELETE, NO_DELETE, Watching
from configsvc.codec import requests
from configsvc.errors import (
    CompactedError,
    ConfigServiceError,
    ElectionError,
    InvalidArgumentError,
)
from configsvc.proto import rpc_pb2
from configsvc.proto import v3election_pb2 as pb

NOT_LEADER: Final = "election: not leader"
NO_LEADER: Final = "election: no leader"
LEADER_MISSING: Final = '"leader" field must be provided'


class ElectionService(CandidacyService):
    """Handlers of Election."""

    def campaign(self, caller: Caller, raw: bytes) -> Waiting:
        """Campaign (E2, E7): answered once the caller leads."""
        m = requests.parse(pb.CampaignRequest, raw)
        return self.run(self._campaign(caller, m.name, m.lease, m.value))

    def _campaign(self, caller: Caller, name: bytes, lease: int, value: bytes) -> Steps[bytes]:
        me = yield from self.enter(caller, name, lease, value)
        try:
            if me.value != value:
                yield from self._put_guarded(caller, me.key, me.revision, me.lease, value)
            yield from self.wait_turn(caller, me, NOT_LEADER)
        except ConfigServiceError:
            yield from self.leave(caller, me)
            raise
        return _campaign_won(me)

    def proclaim(self, caller: Caller, raw: bytes) -> Waiting:
        """Proclaim (E3): a new value, if the caller still leads."""
        m = requests.parse(pb.ProclaimRequest, raw)
        if not m.HasField("leader"):
            raise ElectionError(LEADER_MISSING)
        return self.run(self._proclaim(caller, m.leader, m.value))

    def _proclaim(self, caller: Caller, leader: pb.LeaderKey, value: bytes) -> Steps[bytes]:
        header = yield from self._put_guarded(caller, leader.key, leader.rev, leader.lease, value)
        return pb.ProclaimResponse(header=header).SerializeToString()

    def _put_guarded(
        self, caller: Caller, key: bytes, revision: int, lease: int, value: bytes
    ) -> Steps[Any]:
        # Revision 0 would mean "absent": no campaign was ever won with it.
        put = rpc_pb2.PutRequest(key=key, value=value, lease=lease, ignore_lease=not lease)
        request = rpc_pb2.TxnRequest(
            compare=[guard(key, max(revision, 1))],
            success=[rpc_pb2.RequestOp(request_put=put)],
        )
        raw = yield self.kv.txn(caller, request.SerializeToString())
        found = rpc_pb2.TxnResponse.FromString(raw)
        if not found.succeeded:
            raise ElectionError(NOT_LEADER)
        return found.header

    def leader(self, caller: Caller, raw: bytes) -> Waiting:
        """Leader (E4)."""
        m = requests.parse(pb.LeaderRequest, raw)
        return self.run(self._leader(caller, m.name))

    def _leader(self, caller: Caller, name: bytes) -> Steps[bytes]:
        raw = yield from self.read(caller, first_of(name))
        found = rpc_pb2.RangeResponse.FromString(raw)
        if not found.kvs:
            raise ElectionError(NO_LEADER)
        return pb.LeaderResponse(header=found.header, kv=found.kvs[0]).SerializeToString()

    def resign(self, caller: Caller, raw: bytes) -> Waiting:
        """Resign (E6): a leadership that is over already is none to give up, and no error."""
        m = requests.parse(pb.ResignRequest, raw)
        if not m.HasField("leader"):
            raise ElectionError(LEADER_MISSING)
        return self.run(self._resign(caller, m.leader))

    def _resign(self, caller: Caller, leader: pb.LeaderKey) -> Steps[bytes]:
        raw = yield self.kv.txn(caller, deletion(leader.key, leader.rev))
        header = rpc_pb2.TxnResponse.FromString(raw).header
        return pb.ResignResponse(header=header).SerializeToString()

    def observe(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """Observe (E5)."""
        return _Observer(self, caller, sink)


class _Observer:
    """One Observe stream: the leader, its new values, its successor, and so on."""

    def __init__(self, service: ElectionService, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink
        self._room: Pause | None = None  # waits for the reader
        self._run: Waiting | None = None

    def on_message(self, raw: bytes) -> None:
        m = requests.parse(pb.LeaderRequest, raw)
        if self._run is not None:
            raise InvalidArgumentError("Observe takes one request")
        self._run = self._service.run(self._observe(m.name))
        self._run.bind(self._end)

    def _observe(self, name: bytes) -> Steps[bytes]:
        service, caller = self._service, self._caller
        while True:
            raw = yield from service.read(caller, first_of(name))
            found = rpc_pb2.RangeResponse.FromString(raw)
            watching = Watching(service.watches, caller)
            start = found.header.revision + 1
            try:
                if found.kvs:
                    yield from self._tell(found.header, found.kvs[0])
                    watching.add(found.kvs[0].key, b"", start)
                    yield from self._follow(watching)
                else:
                    watching.add(name + b"/", name + b"0", start, without=NO_DELETE)
                    yield watching.next()
            except CompactedError:
                continue  # it fell too far behind: the leader of now counts
            finally:
                watching.close()

    def _follow(self, watching: Watching) -> Steps[None]:
        """Each new value of one leader, until its key is deleted."""
        while True:
            raw = yield watching.next()
            m = rpc_pb2.WatchResponse.FromString(raw)
            for event in m.events:
                if event.type == DELETE:
                    return
                yield from self._tell(m.header, event.kv)

    def _tell(self, header: Any, kv: Any) -> Steps[None]:
        if not self._sink.send(pb.LeaderResponse(header=header, kv=kv).SerializeToString()):
            self._room = Pause()
            yield self._room

    def _end(self, result: bytes | ConfigServiceError) -> None:
        self._sink.finish(result if isinstance(result, ConfigServiceError) else None)

    def on_writable(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.complete(b"")

    def on_half_close(self) -> None:
        return

    def on_cancel(self) -> None:
        if self._run is not None:
            self._run.cancel()


def _campaign_won(me: Candidate) -> bytes:
    leader = pb.LeaderKey(name=me.name, key=me.key, rev=me.revision, lease=me.lease)
    return pb.CampaignResponse(header=me.header, leader=leader).SerializeToString()
