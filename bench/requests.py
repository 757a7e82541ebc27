"""What is asked: the same protobuf messages for both servers, made before a run."""

from __future__ import annotations

from typing import Final

from configsvc.proto import kv_pb2, rpc_pb2

PUT: Final = "/etcdserverpb.KV/Put"
RANGE: Final = "/etcdserverpb.KV/Range"
WATCH: Final = "/etcdserverpb.Watch/Watch"
STATUS: Final = "/etcdserverpb.Maintenance/Status"
PREFIX: Final = b"bench/"
VALUE_BYTES: Final = 256
KEYS: Final = 1_000  # keys in use; each load process has keys of its own


def key(worker: int, number: int) -> bytes:
    """Keys of sixteen bytes."""
    return PREFIX + b"%02d/%07d" % (worker, number)


def value(salt: int) -> bytes:
    """A value that no compression shortens and that differs from key to key."""
    unit = (salt * 2_654_435_761 & 0xFFFFFFFF).to_bytes(4, "big")
    return (b"bench-plaintext-mark" + unit * VALUE_BYTES)[:VALUE_BYTES]


def put(name: bytes, content: bytes) -> bytes:
    """PutRequest."""
    return rpc_pb2.PutRequest(key=name, value=content).SerializeToString()


def get(name: bytes, *, serializable: bool) -> bytes:
    """RangeRequest for one key."""
    return rpc_pb2.RangeRequest(key=name, serializable=serializable).SerializeToString()


def bodies(operation: str, worker: int) -> tuple[str, list[bytes]]:
    """Path and messages of a measure: ``put``, ``range`` (linearizable) or ``serializable``."""
    names = [key(worker, n) for n in range(KEYS)]
    if operation == "put":
        return PUT, [put(name, value(n + worker)) for n, name in enumerate(names)]
    return RANGE, [get(name, serializable=operation == "serializable") for name in names]


def watch(name: bytes, watch_id: int) -> bytes:
    """WatchRequest for one key."""
    create = rpc_pb2.WatchCreateRequest(key=name, watch_id=watch_id)
    return rpc_pb2.WatchRequest(create_request=create).SerializeToString()


def watched(message: bytes) -> tuple[bool, int, list[bytes]]:
    """Of a WatchResponse: whether a watch was created, refused (-1), and the values of events.

    Returns:
        (created, watch id, values).

    Raises:
        ValueError: the watch was cancelled.
    """
    response = rpc_pb2.WatchResponse.FromString(message)
    if response.canceled:
        raise ValueError(f"watch cancelled: {response.cancel_reason}")
    values = [event.kv.value for event in response.events if event.type == kv_pb2.Event.PUT]
    return response.created, response.watch_id, values
