"""Commands: built by concatenation, decoded by a fast way and a general way that must agree."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.apply import commands as c
from configsvc.codec import command as codec
from configsvc.errors import DecodeError, EmptyKeyError, FatalError
from configsvc.mvcc.messages import PutOp
from configsvc.proto import command_pb2, rpc_pb2
from configsvc.types import NO_SOURCE, Principal, Source

ALICE = Principal(
    "user", "alice", "alice", "00" * 16, "spiffe://d/user/alice", "1f", "ab" * 32,
    "certificate", "", "", 0,
)  # fmt: skip
ACTOR = codec.encode_actor(ALICE, Source("127.0.0.1", "TLSv1.3", "grpc-go", "1.33.3"))
SALT = bytes(range(32))


def plain(put: rpc_pb2.PutRequest, request_id: int = 7, **kwargs: object) -> bytes:
    head = codec.build(
        request_id,
        ACTOR,
        SALT,
        codec.OP_PUT,
        put.SerializeToString(),
        **kwargs,  # type: ignore[arg-type]
    )
    return head + codec.stamp(1_700_000_000_000_000_000, 42)


def both(data: bytes) -> tuple[c.Command, c.Command]:
    """The command as each of the two ways reads it."""
    decoder = codec.CommandDecoder()
    general = decoder._any(data)
    fast = decoder._plain_put(data)
    assert fast is not None, "the fast way did not recognise its own layout"
    return fast, general


PUTS = st.builds(
    rpc_pb2.PutRequest,
    key=st.binary(max_size=300),
    value=st.binary(max_size=2_000),
    lease=st.integers(-(2**63), 2**63 - 1),
    prev_kv=st.booleans(),
    ignore_value=st.booleans(),
    ignore_lease=st.booleans(),
)


@given(put=PUTS, request_id=st.integers(0, 2**64 - 1))
def test_both_ways_read_alike(put: rpc_pb2.PutRequest, request_id: int) -> None:
    fast, general = both(plain(put, request_id))
    assert fast == general
    assert fast.op == PutOp(
        put.key, put.value, put.lease, put.prev_kv, put.ignore_value, put.ignore_lease
    )
    assert fast.envelope.principal == ALICE
    assert fast.envelope.salt == SALT


@given(callers=st.lists(st.integers(0, 2), max_size=12))
def test_puts_of_several_callers_keep_their_own(callers: list[int]) -> None:
    decoder = codec.CommandDecoder()
    put = rpc_pb2.PutRequest(key=b"k", value=b"v").SerializeToString()
    for caller in callers:
        actor = ALICE._replace(name="alice" * caller)
        field = codec.encode_actor(actor, NO_SOURCE)
        data = codec.build(caller, field, SALT, codec.OP_PUT, put) + codec.stamp(5, 6)
        envelope = decoder.decode(data).envelope
        assert (envelope.principal, envelope.source) == (actor, NO_SOURCE)
        assert (envelope.request_id, envelope.salt) == (caller, SALT)


@given(data=st.binary(max_size=400))
def test_random_bytes_raise_the_documented_errors_only(data: bytes) -> None:
    try:
        codec.CommandDecoder().decode(data)
    except (DecodeError, FatalError):
        pass


@given(
    put=PUTS,
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
    cut=st.integers(0, 40),
    follows=st.booleans(),
)
def test_damage_is_read_by_the_fast_way_as_by_the_general(
    put: rpc_pb2.PutRequest, at: int, bit: int, cut: int, follows: bool
) -> None:
    data = bytearray(plain(put))
    at %= len(data)
    data[at] ^= 1 << bit
    damaged = bytes(data[: len(data) - cut])
    decoder = codec.CommandDecoder()
    decoder._any(plain(put))
    if follows:
        decoder._plain_put(plain(put))  # whose actor is remembered as the last one
    try:
        fast = decoder._plain_put(damaged)
    except DecodeError:
        with pytest.raises(DecodeError):
            codec.CommandDecoder()._any(damaged)
        return
    if fast is not None:
        assert fast == codec.CommandDecoder()._any(damaged)


def test_the_deny_lists_operations_travel() -> None:
    for field, op, meant in (
        (
            codec.OP_REVOKE,
            command_pb2.Revoke(what="jti", value="aa", until_ns=9),
            c.RevokeOp("jti", "aa", 9),
        ),
        (
            codec.OP_UNREVOKE,
            command_pb2.Unrevoke(what="jti", value="aa"),
            c.UnrevokeOp("jti", "aa"),
        ),
    ):
        data = codec.build(1, ACTOR, SALT, field, op.SerializeToString()) + codec.stamp(5, 6)
        assert codec.CommandDecoder().decode(data).op == meant


def test_reason_ticket_facts_and_ids_travel() -> None:
    put = rpc_pb2.PutRequest(key=b"k", value=b"v")
    data = codec.build(
        1, ACTOR, SALT, codec.OP_PUT, put.SerializeToString(),
        reason="weil", ticket="CHG-1", facts=(("value.format", "json"),), new_uid="ab",
    ) + codec.stamp(5, 6, 7, suspect=True)  # fmt: skip
    env = codec.CommandDecoder().decode(data).envelope
    assert (env.reason, env.ticket, env.facts) == ("weil", "CHG-1", (("value.format", "json"),))
    assert (env.time_ns, env.accepted_by, env.generated_id, env.time_suspect) == (5, 6, 7, True)
    assert env.new_uid == "ab"


def test_a_lease_without_id_gets_the_leaders() -> None:
    grant = rpc_pb2.LeaseGrantRequest(TTL=60).SerializeToString()
    data = codec.build(1, ACTOR, SALT, codec.OP_LEASE_GRANT, grant) + codec.stamp(5, 6, 99)
    assert codec.CommandDecoder().decode(data).op == c.LeaseGrantOp(60, 99)


def test_newer_commands_stop_the_member() -> None:
    newer = command_pb2.Command(min_reader=codec.COMMAND_FORMAT + 1)
    for data in (newer.SerializeToString(), command_pb2.Command(request_id=1).SerializeToString()):
        with pytest.raises(FatalError) as caught:
            codec.CommandDecoder().decode(data)
        assert caught.value.code == 86


def test_the_cache_of_actors_is_bounded() -> None:
    decoder = codec.CommandDecoder()
    put = rpc_pb2.PutRequest(key=b"k").SerializeToString()
    for number in range(codec.ACTOR_CACHE_MAX + 10):
        actor = codec.encode_actor(ALICE._replace(uid=f"{number:032x}"), NO_SOURCE)
        decoder.decode(codec.build(1, actor, SALT, codec.OP_PUT, put) + codec.stamp(1, 1))
    assert len(decoder._actors) <= codec.ACTOR_CACHE_MAX


KEYLESS = ("delete_range",)  # an absent key is refused while decoding


@pytest.mark.parametrize("name", sorted(command_pb2.Command.DESCRIPTOR.fields_by_name))
def test_operations_of_every_kind_decode(name: str) -> None:
    field = command_pb2.Command.DESCRIPTOR.fields_by_name[name]
    if field.containing_oneof is None:
        return
    data = codec.build(1, ACTOR, os.urandom(32), field.number, b"") + codec.stamp(1, 2)
    if name in KEYLESS:
        with pytest.raises(EmptyKeyError):
            codec.CommandDecoder().decode(data)
    else:
        op = codec.CommandDecoder().decode(data).op
        assert type(op).__module__.startswith("configsvc.")
