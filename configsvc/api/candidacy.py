"""Queues of keys under a prefix: what the lock and the election service share.

A candidate's key is ``<name>/<lease id in hex>``. The key with the lowest create revision under
``<name>/`` is the holder; everybody else waits for the one just before them to go.

Every step is an ordinary KV, lease or watch call of the caller, with the caller's rights, the
clean-up included (security.md 3.5). A refusal of any step travels as Unknown with its own text,
as etcd has it.

Source: wire/behaviour.md 10 and 11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from configsvc.api.contract import Caller, Waiting
from configsvc.api.kv import KvService
from configsvc.api.lease import LeaseService
from configsvc.api.sequence import Sequence, Steps
from configsvc.api.service import Service
from configsvc.api.watch import WatchService
from configsvc.api.watching import DELETE, NO_PUT, Watching
from configsvc.errors import (
    CanceledError,
    CompactedError,
    ConfigServiceError,
    DeadlineExceededError,
    ElectionError,
    InternalFailureError,
    LeaderChangedError,
    RequestError,
    RequestTimeoutError,
    TimeoutDueToConnectionLostError,
    TimeoutDueToLeaderFailError,
    TimeoutWaitAppliedIndexError,
)
from configsvc.proto import rpc_pb2
from configsvc.runtime.member import Member

SESSION_TTL_S: Final = 60  # of a lease that the server grants for a caller without one (K3)
ATTEMPTS: Final = 3  # of a step that may be repeated; each may take a whole request timeout
_PASSING: Final = (
    LeaderChangedError,
    RequestTimeoutError,
    TimeoutDueToConnectionLostError,
    TimeoutDueToLeaderFailError,
    TimeoutWaitAppliedIndexError,
)
_PASSED_ON: Final = (CanceledError, DeadlineExceededError, ElectionError, InternalFailureError)


class Candidate(NamedTuple):
    """One caller's place in a queue."""

    name: bytes
    key: bytes
    lease: int
    granted: bool  # the lease is ours: made for this call
    revision: int  # create revision of the key
    value: bytes  # what the key held when we came; our own value if we made it
    leads: bool  # nobody was before us
    header: Any  # of the answer that told


class CandidacyService(Service):
    """Base of the lock and the election service."""

    def __init__(
        self, member: Member, kv: KvService, lease: LeaseService, watch: WatchService
    ) -> None:
        super().__init__(member)
        self.kv = kv
        self._lease = lease
        self.watches = watch

    def run(self, steps: Steps[bytes]) -> Waiting:
        """Start a handler of several steps."""
        return Sequence(steps, as_unknown, self.member.report_failure)

    def enter(self, caller: Caller, name: bytes, lease: int, value: bytes) -> Steps[Candidate]:
        """Take a place, or find the one that this lease has already (K1, K2)."""
        granted = not lease
        if granted:
            request = rpc_pb2.LeaseGrantRequest(TTL=SESSION_TTL_S).SerializeToString()
            raw = yield self._lease.grant(caller, request)
            lease = rpc_pb2.LeaseGrantResponse.FromString(raw).ID
        key = b"%s/%x" % (name, lease)
        try:
            # The same lease finds its own key again, so this may be repeated (K2).
            entry = _entry(name, key, lease, value)
            raw = yield from patiently(lambda: self.kv.txn(caller, entry))
        except ConfigServiceError:
            if granted:
                yield from self._revoke(caller, lease)
            raise
        found = rpc_pb2.TxnResponse.FromString(raw)
        holder = found.responses[1].response_range.kvs
        if found.succeeded:
            revision = found.header.revision
        else:
            own = found.responses[0].response_range.kvs[0]
            revision, value = own.create_revision, own.value
        leads = bool(holder) and holder[0].create_revision == revision
        return Candidate(name, key, lease, granted, revision, value, leads, found.header)

    def wait_turn(self, caller: Caller, me: Candidate, expired: str) -> Steps[Any]:
        """Until everybody before ``me`` is gone; gives the header of the last read (K2, E2).

        Raises:
            ElectionError: our own key is gone; the text is ``expired``.
        """
        header = me.header
        leads = me.leads
        while not leads:
            raw = yield from self.read(caller, _before(me))
            found = rpc_pb2.RangeResponse.FromString(raw)
            if found.kvs:
                yield from self._until_gone(caller, me, found, expired)
                continue
            raw = yield from self.read(caller, rpc_pb2.RangeRequest(key=me.key))
            found = rpc_pb2.RangeResponse.FromString(raw)
            if not found.kvs or found.kvs[0].create_revision != me.revision:
                raise ElectionError(expired)
            header, leads = found.header, True
        yield b""  # whoever left by now is told here, and the place is given up
        return header

    def _until_gone(
        self, caller: Caller, me: Candidate, found: rpc_pb2.RangeResponse, expired: str
    ) -> Steps[None]:
        """Until the key in front is deleted."""
        start = found.header.revision + 1
        watching = Watching(self.watches, caller)
        try:
            watching.add(found.kvs[0].key, b"", start, without=NO_PUT)
            watching.add(me.key, b"", start, without=NO_PUT)
            raw = yield watching.next()
            for event in rpc_pb2.WatchResponse.FromString(raw).events:
                if event.type == DELETE and event.kv.key == me.key:
                    raise ElectionError(expired)
        except CompactedError:
            return  # too late to watch from there: look again
        finally:
            watching.close()

    def read(self, caller: Caller, request: rpc_pb2.RangeRequest) -> Steps[bytes]:
        """A linearizable read that outlives a change of leader."""
        raw = request.SerializeToString()
        return (yield from patiently(lambda: self.kv.range(caller, raw)))

    def leave(self, caller: Caller, me: Candidate) -> Steps[None]:
        """Give the place up, in the caller's name; if that fails the lease ends it (K5)."""
        if me.granted:
            yield from self._revoke(caller, me.lease)
            return
        try:
            gone = deletion(me.key, me.revision)
            yield from patiently(lambda: self.kv.txn(caller, gone))
        except ConfigServiceError as error:
            self._report_left(error)

    def _revoke(self, caller: Caller, lease: int) -> Steps[None]:
        request = rpc_pb2.LeaseRevokeRequest(ID=lease).SerializeToString()
        try:
            yield from patiently(lambda: self._lease.revoke(caller, request))
        except ConfigServiceError as error:
            self._report_left(error)

    def _report_left(self, error: ConfigServiceError) -> None:
        self.member.report.info(
            "api", "a place in a queue stays until its lease ends", reason=type(error).__name__
        )


def patiently(step: Callable[[], bytes | Waiting]) -> Steps[bytes]:
    """A step that may be repeated although it may have happened: leadership moves now and then."""
    for _ in range(ATTEMPTS - 1):
        try:
            return (yield step())
        except _PASSING:
            continue
    return (yield step())


def as_unknown(error: ConfigServiceError) -> ConfigServiceError:
    """Every refusal of a step has code Unknown and its own text (wire/errors.md)."""
    if isinstance(error, RequestError) and not isinstance(error, _PASSED_ON):
        told = ElectionError(str(error))
        told.__cause__ = error  # what its record says (``refusals``)
        return told
    return error


def guard(key: bytes, revision: int) -> rpc_pb2.Compare:
    """Holds while ``key`` is the one that was created at ``revision``; 0: while it is absent."""
    return rpc_pb2.Compare(
        key=key,
        target=rpc_pb2.Compare.CREATE,
        result=rpc_pb2.Compare.EQUAL,
        create_revision=revision,
    )


def deletion(key: bytes, revision: int) -> bytes:
    """Delete ``key`` if it is still the one that was created at ``revision``."""
    op = rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
    request = rpc_pb2.TxnRequest(compare=[guard(key, revision)], success=[op])
    return request.SerializeToString()


def first_of(name: bytes) -> rpc_pb2.RangeRequest:
    """The holder: lowest create revision under ``<name>/``."""
    return rpc_pb2.RangeRequest(
        key=name + b"/",
        range_end=name + b"0",
        limit=1,
        sort_order=rpc_pb2.RangeRequest.ASCEND,
        sort_target=rpc_pb2.RangeRequest.CREATE,
    )


def _entry(name: bytes, key: bytes, lease: int, value: bytes) -> bytes:
    holder = rpc_pb2.RequestOp(request_range=first_of(name))
    put = rpc_pb2.PutRequest(key=key, value=value, lease=lease)
    own = rpc_pb2.RangeRequest(key=key)
    request = rpc_pb2.TxnRequest(
        compare=[guard(key, 0)],
        success=[rpc_pb2.RequestOp(request_put=put), holder],
        failure=[rpc_pb2.RequestOp(request_range=own), holder],
    )
    return request.SerializeToString()


def _before(me: Candidate) -> rpc_pb2.RangeRequest:
    """The one just before ``me``."""
    return rpc_pb2.RangeRequest(
        key=me.name + b"/",
        range_end=me.name + b"0",
        limit=1,
        sort_order=rpc_pb2.RangeRequest.DESCEND,
        sort_target=rpc_pb2.RangeRequest.CREATE,
        max_create_revision=me.revision - 1,
        keys_only=True,
    )
