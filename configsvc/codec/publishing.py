"""Operations by which a member tells the cluster about itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from configsvc.proto import command_pb2, rpc_pb2


def attributes_op(
    member: int, name: str, client_urls: Iterable[str], store_id: bytes, version: str
) -> bytes:
    """``MemberAttributes``."""
    return command_pb2.MemberAttributes(
        member=member, name=name, client_urls=client_urls, store_id=store_id, version=version
    ).SerializeToString()


def signing_key_op(kid: str, use: str, member: int, public: bytes, state: str) -> bytes:
    """``SigningKey``: a raw Ed25519 public key."""
    return command_pb2.SigningKey(
        kid=kid, use=use, member=member, public=public, state=state
    ).SerializeToString()


def bootstrap_op(
    *,
    trust_domain: str,
    policy_source: str,
    policy_compiled: bytes,
    policy_name: str,
    policy_version: int,
    members: Sequence[tuple[int, Sequence[str]]],
    insecure: bool,
) -> bytes:
    """``Bootstrap``: the first entry of a new cluster (BOOT-1)."""
    return command_pb2.Bootstrap(
        trust_domain=trust_domain,
        policy_source=policy_source,
        policy_compiled=policy_compiled,
        policy_name=policy_name,
        policy_version=policy_version,
        insecure=insecure,
        members=[
            command_pb2.MemberChange(action="add", member=who, peer_urls=urls)
            for who, urls in members
        ],
    ).SerializeToString()


def alarm_op(member: int, alarm: int) -> bytes:
    """``AlarmRequest`` that activates an alarm: 1 NOSPACE, 2 CORRUPT."""
    return rpc_pb2.AlarmRequest(
        action=rpc_pb2.AlarmRequest.ACTIVATE,
        memberID=member,
        alarm=alarm,  # type: ignore[arg-type]
    ).SerializeToString()


def anchor_op(member: int, origin: str, size: int, root: bytes) -> bytes:
    """``AuditAnchor``: the head of a member's local stream."""
    return command_pb2.AuditAnchor(
        member=member, origin=origin, size=size, root=root
    ).SerializeToString()


def checkpoint_signature_op(member: int, size: int, root: bytes, signature: bytes) -> bytes:
    """``CheckpointSignature``: a member's signature over a head of stream M."""
    return command_pb2.CheckpointSignature(
        member=member, size=size, root=root, signature=signature
    ).SerializeToString()


def cluster_version_op(version: str) -> bytes:
    """``ClusterVersion``: what all members speak, as ``x.y.z``."""
    return command_pb2.ClusterVersion(version=version).SerializeToString()
