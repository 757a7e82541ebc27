"""Building records: the hot path against the general one, sizes, determinism."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.audit.actors import KnownActors, actor_hash, decode_actor, encode_actor
from configsvc.audit.changes import ChangeRecords, KeyChange, split_records
from configsvc.audit.commitments import commit, commit_entry, field_salt
from configsvc.audit.leaf import decode_leaf
from configsvc.audit.merkle import root_of
from configsvc.audit.record import Position, Recorder, Resource, shortened
from configsvc.errors import DecodeError, InvariantViolationError
from tests.support.audit_cases import HANA, HOME, Envelope, sample

AT = Position(9, 2, 5, 3, 1)
KEY = b"/registry/pods/default/web-0001x"


# --- commitments -----------------------------------------------------------------------------


@given(
    salt=st.binary(min_size=32, max_size=32),
    field=st.text(max_size=9),
    index=st.integers(0, 2**32 - 1),
)
def test_te8_field_salt_is_hmac(salt: bytes, field: str, index: int) -> None:
    wanted = hmac.digest(salt, field.encode() + index.to_bytes(4, "big"), "sha256")
    assert field_salt(salt, field, index) == wanted


def test_te8_commitment_by_hand() -> None:
    salt = bytes(32)
    data = b"configsvc/commit/v1" + b"\0\0\0\5value" + salt + b"\0\0\0\2hi"
    assert commit("value", salt, b"hi") == sha256(data).digest()


def test_te8_one_opening_opens_no_other() -> None:
    salt = bytes(range(32))
    salts = {
        field_salt(salt, field, index) for field in ("value", "prev_value") for index in (0, 1)
    }
    assert len(salts) == 4
    assert salt not in salts
    with pytest.raises(InvariantViolationError):
        field_salt(b"short", "value")


GOLDEN_PUT = "39f9c661c8861d34984692614495a980fac33d6977c0d91e1256a91cc8608148"


# --- leaves ----------------------------------------------------------------------------------


def test_golden_put_never_changes() -> None:
    leaf, values = Recorder().put(Envelope(), AT, "root", b"/a", b"new", 0, 4, b"old")
    assert sha256(leaf).hexdigest() == GOLDEN_PUT
    assert values[0] == 0
    assert values[5:6] == ("kv.put",)


envelopes = st.builds(
    Envelope,
    request_id=st.integers(0, 2**64 - 1),
    reason=st.sampled_from(["", "why"]),
    ticket=st.sampled_from(["", "CHG-1"]),
    salt=st.binary(min_size=32, max_size=32),
    time_ns=st.integers(0, 2**63),
    time_suspect=st.booleans(),
    accepted_by=st.integers(0, 2**64 - 1),
)


@given(
    envelope=envelopes,
    rule=st.sampled_from(["", "root", "rbac:app", "x" * 900]),
    key=st.sampled_from([b"k", KEY, b"k" * 1024, b"k" * 1025]),
    value=st.binary(max_size=40),
    lease=st.sampled_from([0, 7, -7]),
    prev=st.one_of(st.none(), st.tuples(st.integers(1, 9), st.binary(max_size=9))),
)
def test_the_hot_path_writes_what_the_general_one_writes(
    envelope: Envelope,
    rule: str,
    key: bytes,
    value: bytes,
    lease: int,
    prev: tuple[int, bytes] | None,
) -> None:
    fast, slow = Recorder(), Recorder()
    mod, before = prev or (0, None)
    change = KeyChange(0, key, value, lease, mod, before)
    for _ in range(2):  # a first and a known actor
        made = fast.put(envelope, AT, rule, key, value, lease, mod, before)
        assert made == slow.record(
            envelope, AT, "kv.put", rule=rule, resource=Resource(key), change=change
        )
    assert fast.frontier.root() == slow.frontier.root()
    assert fast.frontier.size == 2


def test_a_plain_put_stays_within_350_bytes() -> None:
    leaf, _ = Recorder().put(
        Envelope(), AT, "rbac:registry-writer", KEY, bytes(256), 0, 4, bytes(256)
    )
    assert len(leaf) <= 350


def test_nothing_makes_a_leaf_longer_than_8_kib() -> None:
    long = "ä" * 5000
    resource = Resource(
        key=bytes(2048), range_end=b"\xff" * 2048, user=long, role=long, object=long, method=long
    )
    recorder = Recorder()
    leaf, _ = recorder.record(
        Envelope(reason=long, ticket=long),
        AT,
        "kv.delete",
        rule=long,
        detail=long,
        resource=resource,
        changes=ChangeRecords(bytes(32)),
    )
    assert len(leaf) <= 8192
    assert (
        decode_leaf(leaf)["key_digest"] == (2048).to_bytes(8, "big") + sha256(bytes(2048)).digest()
    )


def test_texts_are_cut_at_a_character() -> None:
    cut = shortened("ä" * 400)
    assert cut == "ä" * 256
    assert shortened("a" + "ä" * 400) == "a" + "ä" * 255


def test_a_refusal_has_no_change_and_names_its_rule() -> None:
    leaf, values = Recorder().record(
        Envelope(), AT, "kv.put", code="PERMISSION_DENIED", rule="default", resource=Resource(b"/s")
    )
    fields = decode_leaf(leaf)
    assert fields["code"] == 7
    assert values[9] == "PERMISSION_DENIED"
    assert not {"commit", "length", "count"} & set(fields)


def test_several_changes_stand_beside_the_leaf() -> None:
    """AUD-4."""
    changes = [KeyChange(0, b"a", b"1"), KeyChange(1, b"b", None, 0, 4, b"0")]
    leaf, values = Recorder().record(
        Envelope(), AT, "kv.txn", changes=ChangeRecords(Envelope().salt, changes)
    )
    fields = decode_leaf(leaf)
    records = list(split_records(values[13]))
    assert fields["count"] == 2
    assert fields["root"] == root_of(records)
    first, second = map(decode_leaf, records)
    assert (first["kind"], first["sub"], first["key"]) == (1, 0, b"a")
    assert (second["kind"], second["sub"], second["prev_mod_rev"]) == (2, 1, 4)
    assert second["prev_commit"] == commit_entry(Envelope().salt, "prev_value", 1, b"0")


def test_no_changes_at_all_is_a_count_of_zero() -> None:
    leaf, values = Recorder().record(Envelope(), AT, "kv.txn", changes=ChangeRecords(bytes(32)))
    assert decode_leaf(leaf)["count"] == 0
    assert "root" not in decode_leaf(leaf)
    assert values[13] == b""


def test_reason_and_ticket_are_bound_but_not_shown() -> None:
    leaf, values = Recorder().record(Envelope(reason="secret why", ticket="CHG-1"), AT, "user.add")
    assert b"secret why" not in leaf
    assert b"CHG-1" not in leaf
    assert decode_leaf(leaf)["reason_commit"] == commit_entry(
        Envelope().salt, "reason", 0, b"secret why"
    )
    assert values[11:13] == ("secret why", "CHG-1")


def test_values_and_salt_never_enter_a_leaf() -> None:
    envelope = Envelope(salt=b"S" * 32)
    leaf, _ = Recorder().put(
        envelope, AT, "root", b"k", b"new-value-marker", 0, 3, b"old-value-marker"
    )
    for secret in (b"new-value", b"old-value", b"S" * 32):
        assert secret not in leaf


def test_same_commands_same_leaves() -> None:
    one, two = sample(), sample()
    assert [entry.leaf for entry in one.entries] == [entry.leaf for entry in two.entries]
    assert one.checkpoint() == two.checkpoint()


@pytest.mark.parametrize("data", [b"\0", b"\0\5abc", b"\xff\xff" + bytes(65535)])
def test_cut_change_records_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        list(split_records(data))


def test_shared_parts_are_cached_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.audit.put_leaves.LEAF_AUTHORS_CACHED_MAX", 2)
    recorder = Recorder()
    for number in (0, 1, 2, 0, 3):
        leaf, _ = recorder.put(Envelope(), AT, f"rbac:{number}", b"k", b"v", 0, 0, None)
        assert decode_leaf(leaf)["rule"] == f"rbac:{number}"
        assert len(recorder._put_leaves._authors) <= 2


# --- actors ----------------------------------------------------------------------------------


def test_actor_records_come_back() -> None:
    fields = dict(decode_actor(encode_actor(HANA, HOME)))
    assert fields["cert_uri"] == "spiffe://test/user/hana"
    assert fields["ip"] == "10.20.1.2"
    assert "jti" not in fields


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\2",
        b"\1\1",
        b"\1\1\0\1",
        b"\1\1\0\0",
        b"\1\x0e\0\1a",
        b"\1\2\0\1a\1\0\1a",
        b"\1\1\0\1\xff",
    ],
)
def test_actor_records_have_one_form(record: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_actor(record)


def test_an_actor_is_stored_once_under_a_salted_hash() -> None:
    actors = KnownActors()
    hashed, record, salt = actors.resolve(HANA, HOME, b"e" * 32)
    assert record == encode_actor(HANA, HOME)
    assert hashed == actor_hash(salt, record)
    assert salt != b"e" * 32
    assert actors.resolve(HANA, HOME, b"f" * 32) == (hashed, b"", b"")
    later = HANA._replace(auth_revision=9)  # another principal, the same record
    assert actors.resolve(later, HOME, b"f" * 32) == (hashed, b"", b"")
    assert KnownActors().resolve(HANA, HOME, b"f" * 32)[0] != hashed


def test_roles_are_part_of_who_acted() -> None:
    """AUD-2: roles as held when the entry was decided."""
    held: list[tuple[str, ...]] = [("app", "ops"), ("app", "ops"), ("app",)]
    recorder = Recorder(roles_of=lambda _: held[recorder.frontier.size])
    records = [
        recorder.record(Envelope(), AT, "kv.txn", changes=ChangeRecords(bytes(32)))[1][7]
        for _ in held
    ]
    assert dict(decode_actor(records[0]))["roles"] == "app\nops"
    assert records[1] == b""
    assert dict(decode_actor(records[2]))["roles"] == "app"
    fast = Recorder(roles_of=lambda _: ("app", "ops"))
    assert fast.put(Envelope(), AT, "", b"k", b"v", 0, 0, None)[1][7] == records[0]


def test_eviction_is_the_same_with_and_without_a_restart() -> None:
    """AUD-3: members that restarted and members that did not must make the same records."""
    steady = KnownActors(3)
    made: list[tuple[bytes, bytes]] = []
    restarted = KnownActors(3)
    for number in (0, 1, 2, 0, 3, 0, 1, 4, 2, 0, 0, 3, 5, 1):
        who = HANA._replace(user=f"u{number}")
        salt = bytes((number,)) * 32
        found = steady.resolve(who, HOME, salt)
        assert restarted.resolve(who, HOME, salt) == found
        if found[1]:
            made.append((found[1], found[0]))
        restarted = KnownActors(3)
        restarted.load(made[-3:])
        assert restarted.rows() == steady.rows()
        assert len(steady.rows()) <= 3


def test_the_shortcut_is_bounded_too() -> None:
    actors = KnownActors(2)
    actors.resolve(HANA, HOME, b"e" * 32)
    for revision in range(9):
        actors.resolve(HANA._replace(auth_revision=revision), HOME, b"e" * 32)
    assert len(actors._by_principal) <= 2
