"""What a learner serves of etcd's API: its status, serializable reads, a snapshot (X5).

A learner may be far behind and must not be where clients stay; they turn to another member. Our
own services go on: whoever repairs a cluster asks each member by itself.

A voter never becomes a learner, so only a member that starts without a vote is wrapped, and looks
at each call whether that is over. Others pay nothing.
"""

from __future__ import annotations

from typing import Final, Protocol

from configsvc.api.contract import (
    Caller,
    Method,
    StreamFactory,
    StreamHandler,
    StreamSink,
    UnaryHandler,
    Waiting,
)
from configsvc.codec import requests
from configsvc.errors import NotSupportedForLearnerError
from configsvc.proto import rpc_pb2

SERVED: Final = frozenset(
    {"/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot"}
)
RANGE: Final = "/etcdserverpb.KV/Range"
OWN: Final = "/configsvc.v1."


class Standing(Protocol):
    """What a learner is known by."""

    @property
    def is_learner(self) -> bool: ...

    @property
    def joining(self) -> bool: ...


def bounded(member: Standing, method: Method) -> Method:
    """``method`` as a member that may be a learner serves it."""
    if not (member.is_learner or member.joining):
        return method
    if method.path in SERVED or method.path.startswith(OWN):
        return method
    unary, stream = method.unary, method.stream
    if unary is not None:
        reads = method.path == RANGE
        return method._replace(unary=_unary(member, unary, serializable=reads))
    if stream is not None:
        return method._replace(stream=_stream(member, stream))
    return method


def _unary(member: Standing, handler: UnaryHandler, *, serializable: bool) -> UnaryHandler:
    def call(caller: Caller, raw: bytes) -> bytes | Waiting:
        if member.is_learner and not (
            serializable and requests.parse(rpc_pb2.RangeRequest, raw).serializable
        ):
            raise NotSupportedForLearnerError
        return handler(caller, raw)

    return call


def _stream(member: Standing, factory: StreamFactory) -> StreamFactory:
    def call(caller: Caller, sink: StreamSink) -> StreamHandler:
        if member.is_learner:
            raise NotSupportedForLearnerError
        return factory(caller, sink)

    return call
