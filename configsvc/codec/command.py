"""Commands on the log: building them at the edge and decoding them in apply.

The encoded form is ``proto/command.proto``. A command is built by concatenation: request id, the
caller's constant actor field, reason and ticket, salt, facts, then the request's own bytes as the
operation; the leader appends its stamp. Nothing is decoded or re-encoded in between.

Not here: what a command means (``apply``), who may send one (``auth``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError as ProtobufDecodeError

from configsvc.apply import commands as c
from configsvc.codec import requests as req
from configsvc.codec.varint import bytes_field, string_field, varint
from configsvc.errors import DecodeError, ExitCode, FatalError
from configsvc.proto import command_pb2 as pb
from configsvc.proto import rpc_pb2
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL, Principal, Source

COMMAND_FORMAT: Final = 1  # version written; the oldest reader it admits is the same
ACTOR_CACHE_MAX: Final = 8_192  # decoded actors kept; emptied when full

# One field number per operation, as in command.proto.
OP_PUT: Final = 20
OP_DELETE_RANGE: Final = 21
OP_TXN: Final = 22
OP_COMPACTION: Final = 23
OP_LEASE_GRANT: Final = 24
OP_LEASE_REVOKE: Final = 25
OP_LEASE_CHECKPOINT: Final = 26
OP_ALARM: Final = 27
OP_AUTH_ENABLE: Final = 30
OP_AUTH_DISABLE: Final = 31
OP_USER_ADD: Final = 32
OP_USER_DELETE: Final = 33
OP_USER_CHANGE_PASSWORD: Final = 34
OP_USER_GRANT_ROLE: Final = 35
OP_USER_REVOKE_ROLE: Final = 36
OP_ROLE_ADD: Final = 37
OP_ROLE_DELETE: Final = 38
OP_ROLE_GRANT_PERMISSION: Final = 39
OP_ROLE_REVOKE_PERMISSION: Final = 40
OP_BOOTSTRAP: Final = 50
OP_POLICY_LOAD: Final = 51
OP_MEMBER_ATTRIBUTES: Final = 52
OP_MEMBER_CHANGE: Final = 53
OP_CLUSTER_VERSION: Final = 54
OP_SIGNING_KEY: Final = 55
OP_REVOKE: Final = 56
OP_AUDIT_ANCHOR: Final = 57
OP_CHECKPOINT_SIGNATURE: Final = 58
OP_UNREVOKE: Final = 59

_STAMP = struct.Struct("<BQBQ")  # fields 8 and 10
_REQUEST_ID = struct.Struct("<BQ")
_GENERATED = struct.Struct("<Bq")
_SUSPECT: Final = b"\x48\x01"
_ACTOR_TAG: Final = 0x12
_SALT_HEAD: Final = b"\x2a\x20"  # field 5, 32 bytes
_PUT_TAG: Final = b"\xa2\x01"  # field 20, length-delimited
_OP_TAGS: Final = {OP_PUT: _PUT_TAG, OP_DELETE_RANGE: b"\xaa\x01", OP_TXN: b"\xb2\x01"}
_PLAIN_HEAD = struct.Struct("<BQBBB")  # fields 1 and 2, with the first two bytes of 2's length
_PLAIN_BYTES_MIN: Final = 9 + 2 + 34 + 4 + 18
_parse_put = rpc_pb2.PutRequest.FromString
_new = tuple.__new__  # skips the Python frame of a named tuple's constructor


def encode_actor(principal: Principal, source: Source) -> bytes:
    """The actor field of an envelope, tag and length included; constant per connection/token."""
    actor = pb.Actor(
        kind=principal.kind,
        name=principal.name,
        user=principal.user,
        uid=principal.uid,
        cert_uri=principal.cert_uri,
        cert_serial=principal.cert_serial,
        cert_sha256=principal.cert_sha256,
        method=principal.method,
        jti=principal.jti,
        key_id=principal.key_id,
        auth_revision=principal.auth_revision,
        source_ip=source.ip,
        source_tls=source.tls,
        client_name=source.client_name,
        client_version=source.client_version,
    )
    return bytes_field(2, actor.SerializeToString())


SYSTEM_ACTOR: Final = encode_actor(SYSTEM_PRINCIPAL, NO_SOURCE)


def op_head(field: int, length: int) -> bytes:
    """Tag and length that go before an operation's own bytes."""
    return varint(field << 3 | 2) + varint(length)


def build(
    request_id: int,
    actor_field: bytes,
    salt: bytes,
    op_field: int,
    op: bytes,
    *,
    reason: str = "",
    ticket: str = "",
    facts: tuple[tuple[str, str], ...] = (),
    new_uid: str = "",
) -> bytes:
    """An unstamped command.

    Args:
        request_id: uint64, what the accepting member waits under.
        actor_field: From ``encode_actor``.
        salt: 32 random bytes.
        op_field: One of the ``OP_`` numbers.
        op: The operation's encoded bytes, as they came from the client where possible.
        reason: Why, as the caller gave it; "" when not given.
        ticket: Change ticket, likewise.
        facts: What the proposer evaluated for policy (POL-5).
        new_uid: uid of an identity that this command creates.
    """
    if not (reason or ticket or facts or new_uid):
        # Most commands: no list that grows, and the tag as it stands.
        return b"".join(
            (
                _REQUEST_ID.pack(0x09, request_id), actor_field, _SALT_HEAD, salt,
                _OP_TAGS.get(op_field) or varint(op_field << 3 | 2), varint(len(op)), op,
            )
        )  # fmt: skip
    parts = [_REQUEST_ID.pack(0x09, request_id), actor_field]
    if reason:
        parts.append(string_field(3, reason))
    if ticket:
        parts.append(string_field(4, ticket))
    parts += (_SALT_HEAD, salt)
    for name, value in facts:
        parts.append(bytes_field(6, string_field(1, name) + string_field(2, value)))
    if new_uid:
        parts.append(string_field(7, new_uid))
    parts += (op_head(op_field, len(op)), op)
    return b"".join(parts)


def stamp(time_ns: int, accepted_by: int, generated_id: int = 0, *, suspect: bool = False) -> bytes:
    """What the leader appends to a command."""
    head = _STAMP.pack(0x41, time_ns, 0x51, accepted_by)
    if generated_id:
        head += _GENERATED.pack(0x59, generated_id)
    return head + _SUSPECT if suspect else head


class CommandDecoder:
    """Decodes log payloads; keeps decoded actors, for one actor writes many entries."""

    __slots__ = ("_actors", "_last")

    def __init__(self) -> None:
        self._actors: dict[bytes, tuple[Principal, Source]] = {}
        # What stood between request id and salt in the last plain put, and the actor that it
        # names: runs of puts by one caller are most of a log.
        self._last: tuple[int, bytes, Principal, Source] | None = None

    def decode(self, data: bytes) -> c.Command:
        """The command in an entry's payload.

        Raises:
            DecodeError: the bytes are no command.
            FatalError: exit 86, a kind of operation or version this program does not know (V1).
        """
        return self._plain_put(data) or self._any(data)

    def _plain_put(self, data: bytes) -> c.Command | None:
        """A put without reason, ticket and facts, laid out as ``build`` and ``stamp`` do it.

        Most of a log is this. Everything that differs in a single byte takes the general way, and
        both ways read the same bytes alike.
        """
        last = self._last
        if last is None or data[9 : last[0]] != last[1]:
            last = self._another_actor(data)
            if last is None:
                return None
        salt, _, principal, source = last
        size = len(data)
        op = salt + 32
        if op + 3 >= size or data[op : op + 2] != _PUT_TAG:
            return None
        id_tag, request_id = _REQUEST_ID.unpack_from(data)
        if id_tag != 0x09:
            return None
        op += 2
        op_bytes, shift = 0, 0
        while True:
            byte = data[op]
            op += 1
            op_bytes |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21 or op >= size:
                return None
        tail = op + op_bytes
        if tail + _STAMP.size != size:
            return None
        time_tag, time_ns, member_tag, accepted_by = _STAMP.unpack_from(data, tail)
        if time_tag != 0x41 or member_tag != 0x51:
            return None
        put = req.plain_put(data, op, tail)
        if put is None:
            try:
                m = _parse_put(data[op:tail])
            except ProtobufDecodeError as error:
                raise DecodeError("log entry is not a command") from error
            put = req.put_op(m)
            op_bytes = m.ByteSize()
        env = (
            request_id, principal, source, "", "", data[salt : salt + 32], (), "", time_ns,
            False, accepted_by, 0,
        )  # fmt: skip
        return _new(c.Command, (_new(c.Envelope, env), put, op_bytes))

    def _another_actor(self, data: bytes) -> tuple[int, bytes, Principal, Source] | None:
        """Read what stands before the salt; None when that is not plain or the actor is new."""
        if len(data) < _PLAIN_BYTES_MIN:
            return None
        _, _, actor_tag, length, more = _PLAIN_HEAD.unpack_from(data)
        if actor_tag != _ACTOR_TAG:
            return None
        at = 11
        if length >= 0x80:
            if more >= 0x80:
                return None
            length, at = (length & 0x7F) | more << 7, 12
        end = at + length
        actor = self._actors.get(data[at:end])
        if actor is None or data[end : end + len(_SALT_HEAD)] != _SALT_HEAD:
            return None  # the general way remembers a new one
        salt = end + len(_SALT_HEAD)
        self._last = (salt, data[9:salt], *actor)
        return self._last

    def _any(self, data: bytes) -> c.Command:
        rest = data
        actor: tuple[Principal, Source] | None = None
        # The layout `build` makes: request id, then the actor. Cut it out without decoding it.
        if len(data) > 12 and data[0] == 0x09 and data[9] == _ACTOR_TAG:
            length = data[10]
            start = 11
            if length >= 0x80:
                length = (length & 0x7F) | data[11] << 7
                start = 12
            end = start + length
            field = data[start:end]
            actor = self._actors.get(field)
            if actor is None and length < 1 << 14:
                actor = self._decode_actor(field)
            rest = data[:9] + data[end:] if actor is not None else data
        try:
            message = pb.Command.FromString(rest)
        except ProtobufDecodeError as error:
            raise DecodeError("log entry is not a command") from error
        if message.min_reader > COMMAND_FORMAT:
            raise FatalError(
                ExitCode.TOO_NEW,
                f"log entry needs a reader of version {message.min_reader}",
                f"this program reads up to {COMMAND_FORMAT}: start the newer release",
            )
        if actor is None:
            actor = self._decode_actor(message.actor.SerializeToString())
        name = message.WhichOneof("op")
        if name is None:
            raise FatalError(
                ExitCode.TOO_NEW,
                "log entry with an operation this program does not know",
                "start the release that wrote it",
            )
        body = getattr(message, name)
        envelope = c.Envelope(
            message.request_id,
            actor[0],
            actor[1],
            message.reason,
            message.ticket,
            message.salt,
            tuple((f.name, f.value) for f in message.facts) if message.facts else (),
            message.new_uid,
            message.time_ns,
            message.time_suspect,
            message.accepted_by,
            message.generated_id,
        )
        if name == "lease_grant" and not body.ID:
            return c.Command(envelope, c.LeaseGrantOp(body.TTL, envelope.generated_id), 0)
        return c.Command(envelope, _DECODE[name](body), body.ByteSize())

    def _decode_actor(self, field: bytes) -> tuple[Principal, Source]:
        try:
            a = pb.Actor.FromString(field)
        except ProtobufDecodeError as error:
            raise DecodeError("log entry with a broken actor") from error
        pair = (
            Principal(
                a.kind,
                a.name,
                a.user,
                a.uid,
                a.cert_uri,
                a.cert_serial,
                a.cert_sha256,
                a.method,
                a.jti,
                a.key_id,
                a.auth_revision,
            ),
            Source(a.source_ip, a.source_tls, a.client_name, a.client_version),
        )
        if len(self._actors) >= ACTOR_CACHE_MAX:
            self._actors.clear()
        self._actors[field] = pair
        return pair


def _bootstrap(m: Any) -> c.BootstrapOp:
    return c.BootstrapOp(
        m.trust_domain,
        m.policy_source,
        m.insecure,
        m.policy_compiled,
        m.policy_name,
        m.policy_version,
        tuple(_member_change(x) for x in m.members),
    )


def _member_change(m: Any) -> c.MemberChangeOp:
    return c.MemberChangeOp(m.action, m.member, tuple(m.peer_urls), m.is_learner)


def _grant_permission(m: Any) -> c.RoleGrantPermissionOp:
    return c.RoleGrantPermissionOp(m.name, m.perm.permType, m.perm.key, m.perm.range_end)


_DECODE: Final[dict[str, Callable[[Any], c.Operation]]] = {
    "put": req.put_op,
    "delete_range": req.delete_op,
    "txn": req.txn_op,
    "compaction": lambda m: c.CompactOp(m.revision, m.physical),
    "lease_grant": lambda m: c.LeaseGrantOp(m.TTL, m.ID),
    "lease_revoke": lambda m: c.LeaseRevokeOp(tuple(m.ids), m.decided_term),
    "lease_checkpoint": lambda m: c.LeaseCheckpointOp(
        tuple((x.ID, x.remaining_TTL) for x in m.checkpoints)
    ),
    "alarm": lambda m: c.AlarmOp(m.action == 1, m.memberID, m.alarm),
    "auth_enable": lambda _: c.AuthEnableOp(),
    "auth_disable": lambda _: c.AuthDisableOp(),
    "user_add": lambda m: c.UserAddOp(m.name, m.password_hash, m.no_password),
    "user_delete": lambda m: c.UserDeleteOp(m.name),
    "user_change_password": lambda m: c.UserChangePasswordOp(m.name, m.password_hash),
    "user_grant_role": lambda m: c.UserGrantRoleOp(m.user, m.role),
    "user_revoke_role": lambda m: c.UserRevokeRoleOp(m.name, m.role),
    "role_add": lambda m: c.RoleAddOp(m.name),
    "role_delete": lambda m: c.RoleDeleteOp(m.role),
    "role_grant_permission": _grant_permission,
    "role_revoke_permission": lambda m: c.RoleRevokePermissionOp(m.role, m.key, m.range_end),
    "bootstrap": _bootstrap,
    "policy_load": lambda m: c.PolicyLoadOp(m.source, m.compiled, m.version, m.name),
    "member_attributes": lambda m: c.MemberAttributesOp(
        m.member, m.name, tuple(m.client_urls), m.store_id, m.version
    ),
    "member_change": _member_change,
    "cluster_version": lambda m: c.ClusterVersionOp(m.version),
    "signing_key": lambda m: c.SigningKeyOp(m.kid, m.use, m.member, m.public, m.state),
    "revoke": lambda m: c.RevokeOp(m.what, m.value, m.until_ns),
    "unrevoke": lambda m: c.UnrevokeOp(m.what, m.value),
    "audit_anchor": lambda m: c.AuditAnchorOp(m.member, m.origin, m.size, m.root),
    "checkpoint_signature": lambda m: c.CheckpointSignatureOp(
        m.member, m.size, m.root, m.signature
    ),
}
