"""Lease operations that the leader proposes by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from configsvc.proto import command_pb2, rpc_pb2


def revoke_op(ids: Sequence[int], decided_term: int) -> bytes:
    """``LeaseRevoke`` of leases that ran out, void in any other term (X1)."""
    return command_pb2.LeaseRevoke(ids=ids, decided_term=decided_term).SerializeToString()


def checkpoint_op(remaining: Iterable[tuple[int, int]]) -> bytes:
    """``LeaseCheckpoints``: (lease id, remaining seconds)."""
    return command_pb2.LeaseCheckpoints(
        checkpoints=[rpc_pb2.LeaseCheckpoint(ID=i, remaining_TTL=left) for i, left in remaining]
    ).SerializeToString()
