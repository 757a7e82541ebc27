"""Rights at apply: N2, N3, N4, N22, N26; security.md 3.5; wire/behaviour.md A21-A24, section 13."""

from __future__ import annotations

from typing import Any

import pytest
from apply_world import (
    ADA,
    AGENT,
    BOB,
    NOBODY,
    POLICY,
    ROOT,
    SOURCE,
    SYSTEM,
    World,
    compiled,
    delete,
    get,
    person,
    put,
)
from hypothesis import given
from hypothesis import strategies as st

from configsvc.apply import commands as c
from configsvc.audit.actors import decode_actor
from configsvc.audit.leaf import decode_leaf
from configsvc.errors import (
    AuthOldRevisionError,
    CertificateNotAcceptableError,
    InvalidAuthTokenError,
    LeaseNotFoundError,
    NotFoundError,
    PermissionDeniedError,
)
from configsvc.mvcc.messages import Compare, TxnOp
from configsvc.types import span_of

READ, WRITE, BOTH = 0, 1, 2


@pytest.fixture
def world() -> World:
    """ada: READWRITE /a/, WRITE /w, READ /r; keys of each exist."""
    made = World()
    made.user(ADA, (BOTH, b"/a/", b"/a0"), (WRITE, b"/w", b""), (READ, b"/r", b""))
    for key in (b"/a/k", b"/w", b"/r", b"/x"):
        made.ok(ROOT, put(key))
    return made


def when(key: bytes) -> Compare:
    return Compare(span_of(key, b""), True, 0, 0, 1)


ALLOWED: list[Any] = [
    put(b"/a/k", prev_kv=True),
    put(b"/w"),
    delete(b"/w"),
    delete(b"/a/", b"/a0", prev_kv=True),
    TxnOp((when(b"/r"),), (get(b"/r"), put(b"/w")), (delete(b"/a/k"),)),
]
FORBIDDEN: list[Any] = [
    put(b"/x"),
    put(b"/r"),
    put(b"/w", prev_kv=True),
    delete(b"/r"),
    delete(b"/w", prev_kv=True),
    delete(b"/a/", b"/b"),
    delete(b"/a/", b"\0"),
    delete(b"/x", b"/a"),  # an empty span is judged by its start
    get(b"/w"),
    get(b"/a/", b"/b"),
    get(b"/r", b"\0"),
]


@pytest.mark.parametrize("op", ALLOWED)
def test_A21_allowed(world: World, op: Any) -> None:
    world.ok(ADA, op)
    assert decode_leaf(world.effects[-1].leaf)["rule"]


@pytest.mark.parametrize("op", FORBIDDEN)
def test_N2_N3_forbidden_alone_and_at_every_depth_in_both_branches(world: World, op: Any) -> None:
    requests = [
        TxnOp((), (op,), ()),
        TxnOp((), (), (op,)),
        TxnOp((), (get(b"/r"), TxnOp((), (), (op,))), ()),
        TxnOp((), (), (TxnOp((), (TxnOp((), (op,), ()),), ()),)),
    ]
    if not isinstance(op, type(get(b"k"))):  # a range alone does not pass the log
        requests.append(op)
    for request in requests:
        assert isinstance(world.refused(ADA, request), PermissionDeniedError)
        world.ok(ROOT, request)
        assert decode_leaf(world.effects[-2].leaf)["rule"] == "default"


@pytest.mark.parametrize("key", [b"/w", b"/x"])
def test_N2_compares_need_read_also_in_nested_transactions(world: World, key: bytes) -> None:
    for request in (
        TxnOp((when(key),), (put(b"/a/k"),), ()),
        TxnOp((), (put(b"/a/k"), TxnOp((when(key),), (), ())), ()),
        TxnOp((), (), (TxnOp((when(b"/r"), when(key)), (), ()),)),
    ):
        assert isinstance(world.refused(ADA, request), PermissionDeniedError)


def test_A22_open_ends_need_open_ended_grants(world: World) -> None:
    world.ok(ROOT, c.RoleGrantPermissionOp("ada-role", BOTH, b"/z", b"\0"))
    world.ok(ADA, delete(b"/z", b"\0"))
    world.ok(ADA, delete(b"/zz", b"\0"))
    assert isinstance(world.refused(ADA, delete(b"/y", b"\0")), PermissionDeniedError)


def test_A24_log_order_decides(world: World) -> None:
    assert isinstance(world.refused(ADA, put(b"/x")), PermissionDeniedError)
    world.ok(ROOT, c.RoleGrantPermissionOp("ada-role", WRITE, b"/x", b""))
    world.ok(ADA, put(b"/x"))
    world.ok(ROOT, c.RoleRevokePermissionOp("ada-role", b"/x", b""))
    assert isinstance(world.refused(ADA, put(b"/x")), PermissionDeniedError)


def test_a_recreated_user_is_another_one(world: World) -> None:
    world.ok(ROOT, c.UserDeleteOp("ada"))
    assert isinstance(world.refused(ADA, put(b"/a/k")), AuthOldRevisionError)
    world.ok(ROOT, c.UserAddOp("ada", "", True), new_uid="a2")
    world.ok(ROOT, c.UserGrantRoleOp("ada", "ada-role"))
    assert isinstance(world.refused(ADA, put(b"/a/k")), AuthOldRevisionError)
    world.ok(ADA._replace(uid="a2"), put(b"/a/k"))


@pytest.mark.parametrize(
    ("what", "value", "error"),
    [
        ("serial", ADA.cert_serial, CertificateNotAcceptableError),
        ("identity", ADA.cert_uri, CertificateNotAcceptableError),
        ("jti", "77", InvalidAuthTokenError),
        ("kid", "key-0001", InvalidAuthTokenError),
        ("user", "ada", AuthOldRevisionError),
        ("all", "", AuthOldRevisionError),
    ],
)
def test_N22_revocation_works_from_the_next_entry_on(
    world: World, what: str, value: str, error: type[Exception]
) -> None:
    token = ADA._replace(
        method="token", jti="77", key_id="key-0001", auth_revision=world.state.auth.revision
    )
    world.ok(token, put(b"/a/k"))
    admin = ROOT._replace(cert_serial="ff")
    world.ok(admin, c.RevokeOp(what, value, 0))
    for op in (put(b"/a/k"), TxnOp((), (get(b"/r"),), ()), c.LeaseGrantOp(10, 4)):
        assert isinstance(world.refused(token, op), error)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("serial", ADA.cert_serial),
        ("identity", ADA.cert_uri),
        ("jti", "77"),
        ("kid", "key-0001"),
    ],
)
def test_what_is_off_the_deny_list_counts_again_from_the_next_entry_on(
    world: World, what: str, value: str
) -> None:
    token = ADA._replace(
        method="token", jti="77", key_id="key-0001", auth_revision=world.state.auth.revision
    )
    admin = ROOT._replace(cert_serial="ff")
    world.ok(token, put(b"/a/k"))
    world.ok(admin, c.RevokeOp(what, value, 0))
    world.refused(token, put(b"/a/k"))
    world.ok(admin, c.UnrevokeOp(what, value))
    world.ok(token, put(b"/a/k"))
    assert world.refused(admin, c.UnrevokeOp(what, value)).__class__ is NotFoundError
    assert decode_leaf(world.effects[-1].leaf)["object"] == f"{what}:{value}"


def test_revocations_run_out_by_leader_time(world: World) -> None:
    admin = ROOT._replace(cert_serial="ff")
    world.ok(admin, c.RevokeOp("serial", ADA.cert_serial, 10**12))
    assert isinstance(
        world.refused(ADA, put(b"/a/k"), time_ns=10**12 - 1), CertificateNotAcceptableError
    )
    world.ok(ADA, put(b"/a/k"), time_ns=10**12)


def test_nobody_writes_in_a_secure_store(world: World) -> None:
    for who in (NOBODY, AGENT, person("eve", ""), person("eve", "e1")):
        error = world.refused(who, put(b"/a/k"))
        assert isinstance(error, PermissionDeniedError | AuthOldRevisionError)


@pytest.mark.parametrize(
    "op",
    [
        c.CompactOp(2),
        c.AuthEnableOp(),
        c.AuthDisableOp(),
        c.UserAddOp("eve", "", True),
        c.UserDeleteOp("root"),
        c.UserChangePasswordOp("ada", "phc"),
        c.UserGrantRoleOp("ada", "root"),
        c.UserRevokeRoleOp("root", "root"),
        c.RoleAddOp("r"),
        c.RoleDeleteOp("ada-role"),
        c.RoleGrantPermissionOp("ada-role", BOTH, b"\0", b"\0"),
        c.RoleRevokePermissionOp("ada-role", b"/r", b""),
        c.PolicyLoadOp("", b"", 2, "x"),
        c.AlarmOp(True, 0x11, 1),
        c.MemberChangeOp("remove", 0x33, (), False),
        c.MemberAttributesOp(0x11, "m", (), b"s", "1.0.0"),
        c.ClusterVersionOp("9.0.0"),
        c.SigningKeyOp("kid-0001", "token", 0x11, bytes(32), "active"),
        c.RevokeOp("identity", ROOT.cert_uri, 0),
        c.RevokeOp("all", "", 0),
        c.UnrevokeOp("identity", ROOT.cert_uri),
        c.UnrevokeOp("kid", "key-0001"),
        c.AuditAnchorOp(0x11, "o", 1, bytes(32)),
        c.CheckpointSignatureOp(0x11, 1, bytes(32), bytes(64)),
        c.LeaseCheckpointOp(((1, 1),)),
        c.LeaseRevokeOp((1,), decided_term=1),
    ],
)
def test_administration_is_refused_to_a_user_without_it(world: World, op: Any) -> None:
    assert isinstance(world.refused(ADA, op), PermissionDeniedError)


def test_own_password_needs_the_old_one(world: World) -> None:
    op = c.UserChangePasswordOp("ada", "$argon2id$x")
    fact = (("auth.old_password", "verified"),)
    assert isinstance(world.refused(ADA, op), PermissionDeniedError)
    world.ok(ADA, op, facts=fact)
    assert world.state.auth.users["ada"].password_hash == "$argon2id$x"
    other = c.UserChangePasswordOp("root", "$argon2id$x")
    assert isinstance(world.refused(ADA, other, facts=fact), PermissionDeniedError)


# --- leases --------------------------------------------------------------------------------------


def leased() -> World:
    world = World()
    world.user(ADA, (BOTH, b"/a/", b"/a0"))
    world.user(BOB, (BOTH, b"/b/", b"/b0"), (BOTH, b"/a/shared", b""))
    world.ok(ADA, c.LeaseGrantOp(10, 1))
    return world


def test_an_empty_lease_is_its_creators_and_roots() -> None:
    world = leased()
    assert isinstance(world.refused(BOB, put(b"/b/k", lease=1)), PermissionDeniedError)
    assert isinstance(world.refused(BOB, c.LeaseRevokeOp((1,))), PermissionDeniedError)
    world.ok(ADA, put(b"/a/k", lease=1))
    world.ok(ADA, put(b"/a/k"))
    world.ok(ROOT, put(b"/b/k", lease=1))
    assert isinstance(world.refused(ADA, put(b"/a/k", lease=1)), PermissionDeniedError)
    world.ok(ROOT, delete(b"/b/k"))
    world.ok(ADA, c.LeaseRevokeOp((1,)))


def test_N3_a_lease_needs_write_on_every_key_it_holds() -> None:
    world = leased()
    world.ok(ADA, put(b"/a/shared", lease=1))
    world.ok(BOB, put(b"/b/k", lease=1))  # bob may write the one key that is there
    for who, key in ((ADA, b"/a/j"), (BOB, b"/b/j")):
        denied = who is ADA  # /b/k is on the lease now
        for op in (put(key, lease=1), TxnOp((), (TxnOp((), (), (put(key, lease=1),)),), ())):
            if denied:
                assert isinstance(world.refused(who, op), PermissionDeniedError)
            else:
                world.ok(who, op)
    assert isinstance(world.refused(ADA, c.LeaseRevokeOp((1,))), PermissionDeniedError)
    world.ok(BOB, c.LeaseRevokeOp((1,)))
    assert world.store.key_count == 0


def test_unknown_leases_are_told_after_rights() -> None:
    world = leased()
    assert isinstance(world.refused(BOB, put(b"/a/k", lease=9)), PermissionDeniedError)
    assert isinstance(world.refused(BOB, put(b"/b/k", lease=9)), LeaseNotFoundError)
    assert isinstance(world.refused(BOB, c.LeaseRevokeOp((9,))), LeaseNotFoundError)


def test_lease_keys_are_judged_again_when_rights_change() -> None:
    world = leased()
    for i in range(5):
        world.ok(ADA, put(b"/a/%d" % i, lease=1))
    world.ok(ROOT, c.RoleGrantPermissionOp("ada-role", BOTH, b"/c", b""))
    world.ok(ROOT, c.RoleRevokePermissionOp("ada-role", b"/a/", b"/a0"))
    assert isinstance(world.refused(ADA, put(b"/c", lease=1)), PermissionDeniedError)


def test_an_id_that_is_granted_anew_is_another_lease() -> None:
    """What is remembered of the old one's keys says nothing about the new one's."""
    world = leased()
    for i in range(3):
        world.ok(ADA, put(b"/a/%d" % i, lease=1))
    world.ok(ADA, c.LeaseRevokeOp((1,)))
    world.ok(ROOT, c.LeaseGrantOp(10, 1))
    world.ok(ROOT, put(b"/secret", lease=1))
    assert isinstance(world.refused(ADA, put(b"/a/0", lease=1)), PermissionDeniedError)
    assert isinstance(world.refused(ADA, c.LeaseRevokeOp((1,))), PermissionDeniedError)
    with pytest.raises(PermissionDeniedError):
        world.state.rights.judge_lease(ADA, SOURCE, 1, 0)


def test_only_writers_grant_leases() -> None:
    world = World()
    world.user(ADA, (READ, b"/a/", b"/a0"))
    assert isinstance(world.refused(ADA, c.LeaseGrantOp(10, 1)), PermissionDeniedError)
    assert isinstance(world.refused(AGENT, c.LeaseGrantOp(10, 1)), PermissionDeniedError)
    world.ok(ROOT, c.RoleGrantPermissionOp("ada-role", WRITE, b"/a/k", b""))
    world.ok(ADA, c.LeaseGrantOp(10, 1))


# --- policy --------------------------------------------------------------------------------------

GUARDED = (
    POLICY
    + """
[[rule]]
id      = "deny-prod-without-ticket"
effect  = "deny"
actions = ["kv.put"]
keys    = { prefix = "/prod/" }
unless  = { "change.ticket_prefix" = "CHG-", "value.max_bytes" = 8 }
[[rule]]
id      = "allow-drop"
effect  = "allow"
actions = ["kv.put"]
keys    = { prefix = "/drop/" }
when    = { "principal.kind" = ["user"] }
"""
)


def test_POL2_deny_binds_root_and_names_its_rule() -> None:
    world = World(policy=GUARDED)
    assert isinstance(world.refused(ROOT, put(b"/prod/k")), PermissionDeniedError)
    assert decode_leaf(world.effects[-1].leaf)["rule"] == "deny-prod-without-ticket"
    world.ok(ROOT, put(b"/prod/k"), ticket="CHG-7")
    too_long = put(b"/prod/k", b"x" * 9)
    assert isinstance(world.refused(ROOT, too_long, ticket="CHG-7"), PermissionDeniedError)
    nested = TxnOp((), (TxnOp((), (), (put(b"/prod/k"),)),), ())
    assert isinstance(world.refused(ROOT, nested), PermissionDeniedError)
    world.ok(ROOT, delete(b"/prod/k"))


def test_allow_rules_widen_and_new_policies_count_at_once() -> None:
    world = World(policy=GUARDED)
    world.user(ADA)
    world.ok(ADA, put(b"/drop/k"))
    assert decode_leaf(world.effects[-1].leaf)["rule"] == "allow-drop"
    assert isinstance(world.refused(ADA, delete(b"/drop/k")), PermissionDeniedError)
    bare = POLICY.replace("version = 1", "version = 2")
    world.ok(ROOT, c.PolicyLoadOp(bare, compiled(bare), 2, "base"))
    assert isinstance(world.refused(ADA, put(b"/drop/k")), PermissionDeniedError)
    world.ok(ROOT, put(b"/prod/k"))


def test_the_cluster_itself_passes_policies() -> None:
    world = World(policy=GUARDED)
    world.ok(SYSTEM, put(b"/prod/k"))


KEYS = st.sampled_from([b"/a", b"/a/k", b"/a0", b"/b", b"/r"])
SPANS = st.tuples(KEYS, st.sampled_from([b"", b"\0", b"/a/", b"/a0", b"/b", b"/s"]))


@given(pieces=st.lists(st.tuples(st.integers(0, 2), SPANS), max_size=3), asked=SPANS)
def test_a_transaction_is_allowed_exactly_when_its_parts_are(
    pieces: list[tuple[int, tuple[bytes, bytes]]], asked: tuple[bytes, bytes]
) -> None:
    world = World()
    grants = [(kind, k, e) for kind, (k, e) in pieces if not e or e == b"\0" or e > k]
    world.user(ADA, *grants)

    def allowed(op: Any) -> bool:
        return not isinstance(world.do(ADA, op).result, c.Refused)

    removal, reading = delete(*asked), get(*asked)
    may_delete, may_read = allowed(removal), allowed(TxnOp((), (), (reading,)))
    both = TxnOp((), (reading,), (removal,))
    assert allowed(both) == (may_delete and may_read)
    assert allowed(delete(*asked, prev_kv=True)) == (may_delete and may_read)


def test_the_actor_record_names_the_roles_at_the_decision(world: World) -> None:
    def roles(effects: c.Effects) -> str:
        assert effects.commit is not None
        assert effects.commit.actor_record
        return dict(decode_actor(effects.commit.actor_record)).get("roles", "")

    world.ok(ROOT, c.RoleAddOp("second"))
    assert roles(world.do(ADA, put(b"/a/k"))) == "ada-role"
    world.ok(ROOT, c.UserGrantRoleOp("ada", "second"))
    assert roles(world.do(ADA, put(b"/a/k"))) == "ada-role\nsecond"
    world.ok(ROOT, c.UserGrantRoleOp("ada", "root"))
    gone = world.do(ADA, c.UserRevokeRoleOp("ada", "root"))
    assert roles(gone) == "ada-role\nroot\nsecond"


def test_renewals_are_judged_like_writes() -> None:
    world = leased()
    judge = world.state.judge_lease
    judge(ADA, SOURCE, 1, 0)
    judge(ROOT, SOURCE, 1, 0)
    judge(BOB, SOURCE, 99, 0)
    with pytest.raises(PermissionDeniedError):
        judge(BOB, SOURCE, 1, 0)
    world.ok(ADA, put(b"/a/shared", lease=1))
    judge(BOB, SOURCE, 1, 0)
    world.ok(ADA, put(b"/a/own", lease=1))
    with pytest.raises(PermissionDeniedError):
        judge(BOB, SOURCE, 1, 0)
    world.ok(ROOT, c.RevokeOp("user", "ada", 0))
    with pytest.raises(AuthOldRevisionError):
        judge(ADA._replace(jti="1", auth_revision=1), SOURCE, 1, 0)
