"""Bootstrap, users, alarms, members, keys, anchors, versions through apply."""

from __future__ import annotations

from typing import Any

import pytest
from apply_world import ADA, MEMBERS, POLICY, ROOT, SYSTEM, World, compiled, genesis, put

from configsvc.apply import commands as c
from configsvc.apply.applier import Applier
from configsvc.apply.members import Members, check_url
from configsvc.apply.state import ApplyState
from configsvc.audit.leaf import decode_leaf
from configsvc.errors import (
    AuthDisableRefusedError,
    ConflictError,
    InvalidArgumentError,
    InvalidAuthMgmtError,
    MemberBadURLsError,
    MemberExistError,
    MemberNotEnoughStartedError,
    MemberNotFoundError,
    MemberNotLearnerError,
    NotFoundError,
    PeerURLExistError,
    PermissionDeniedError,
    PolicyInvalidError,
    RequestError,
    TooManyLearnersError,
    UserAlreadyExistError,
    UserEmptyError,
)

M1, M2, M3 = MEMBERS


@pytest.fixture
def world() -> World:
    return World()


def url(n: int) -> tuple[str, ...]:
    return (f"https://10.0.0.{n}:2380",)


# --- bootstrap -----------------------------------------------------------------------------------


def test_BOOT1_a_new_cluster(world: World) -> None:
    state = world.state
    assert (state.auth.enabled, state.trust_domain, state.bootstrapped) == (True, "corp", True)
    assert state.auth.users["root"].roles == ("root",)
    assert state.auth.policy.version == 1
    assert [m.id for m in state.members.sorted()] == list(MEMBERS)
    assert state.store.revision == 1
    assert decode_leaf(world.effects[0].leaf)["object"] == "corp"
    assert isinstance(world.refused(SYSTEM, genesis()), ConflictError)


@pytest.mark.parametrize(
    "op",
    [
        genesis()._replace(trust_domain=""),
        genesis()._replace(policy_compiled=b""),
        genesis()._replace(policy_compiled=b"junk"),
        genesis()._replace(policy_version=3),
        genesis()._replace(members=(c.MemberChangeOp("add", 1, ("nonsense",), False),)),
        genesis()._replace(members=genesis().members * 2),
    ],
)
def test_A2_a_refused_bootstrap_leaves_nothing(op: c.BootstrapOp) -> None:
    state = ApplyState()
    empty = state.snapshot_tables()
    world = World.__new__(World)
    world.state, world.applier, world.log, world.effects = state, Applier(state), [], []
    world.term = 1
    world.refused(SYSTEM, op, new_uid="00")
    assert state.snapshot_tables() == empty
    assert not state.bootstrapped
    world.ok(SYSTEM, genesis(), new_uid="00")


def test_bootstrap_is_the_clusters_own_word() -> None:
    state = ApplyState()
    world = World.__new__(World)
    world.state, world.applier, world.log, world.effects = state, Applier(state), [], []
    world.term = 1
    assert isinstance(world.refused(ADA, genesis(), new_uid="00"), PermissionDeniedError)


# --- auth ----------------------------------------------------------------------------------------


def test_DEF4_auth_stays_on_in_a_secure_store(world: World) -> None:
    assert isinstance(world.refused(ROOT, c.AuthDisableOp()), AuthDisableRefusedError)
    assert world.effects[-1].commit.outcome == "FAILED_PRECONDITION"  # type: ignore[union-attr]
    world.ok(ROOT, c.AuthEnableOp())


def test_A1_A6_an_insecure_store_behaves_as_etcd() -> None:
    from apply_world import NOBODY

    world = World(insecure=True)
    assert not world.state.auth.enabled
    world.ok(NOBODY, put(b"/k"))
    assert world.do(NOBODY, c.AuthEnableOp()).result.error.text  # type: ignore[union-attr]
    world.ok(NOBODY, c.UserAddOp("root", "", True), new_uid=ROOT.uid)
    world.ok(NOBODY, c.UserGrantRoleOp("root", "root"))
    world.ok(NOBODY, c.AuthEnableOp())
    assert isinstance(world.refused(NOBODY, put(b"/k")), UserEmptyError)
    assert isinstance(world.refused(ROOT, c.UserDeleteOp("root")), InvalidAuthMgmtError)
    revision = world.state.auth.revision
    world.ok(ROOT, c.AuthDisableOp())
    assert world.state.auth.revision == revision + 1
    world.ok(NOBODY, put(b"/k"))


def test_auth_changes_become_rows_and_no_revision(world: World) -> None:
    effects = world.ok(ROOT, c.UserAddOp("ada", "", True), new_uid="a1")
    assert [change.table for change in effects.tables] == ["users", "meta"]
    assert effects.revision == 1
    leaf = decode_leaf(effects.leaf)
    assert leaf["user"] == "ada"
    assert isinstance(world.refused(ROOT, c.UserAddOp("ada", "", True)), UserAlreadyExistError)


def test_leaves_name_what_was_done(world: World) -> None:
    for op, event in (
        (c.RoleAddOp("r"), "role.add"),
        (c.RoleGrantPermissionOp("r", 2, b"/a", b"\0"), "permission.grant"),
        (c.UserGrantRoleOp("root", "r"), "role.grant"),
        (c.UserRevokeRoleOp("root", "r"), "role.revoke"),
        (c.RoleRevokePermissionOp("r", b"/a", b"\0"), "permission.revoke"),
        (c.RoleDeleteOp("r"), "role.delete"),
        (c.UserChangePasswordOp("root", "$argon2id$secret"), "user.password"),
        (c.AlarmOp(True, M1, 1), "alarm.set"),
        (c.AlarmOp(False, M1, 1), "alarm.clear"),
        (c.RevokeOp("serial", "0a", 0), "cert.revoke"),
        (c.RevokeOp("jti", "0a", 5), "token.revoke"),
        (c.UnrevokeOp("serial", "0a"), "cert.unrevoke"),
        (c.UnrevokeOp("jti", "0a"), "token.unrevoke"),
    ):
        effects = world.ok(ROOT._replace(cert_serial="77"), op)
        assert effects.commit is not None
        assert effects.commit.event == event
        assert b"argon2" not in effects.leaf


def test_policy_load(world: World) -> None:
    text = POLICY.replace("version = 1", "version = 4")
    op = c.PolicyLoadOp(text, compiled(text), 4, "base")
    for bad, error in (
        (op._replace(version=1), ConflictError),
        (op._replace(version=5), PolicyInvalidError),
        (op._replace(compiled=b"x"), PolicyInvalidError),
    ):
        assert isinstance(world.refused(ROOT, bad), error)
    effects = world.ok(ROOT, op)
    assert [t.table for t in effects.tables] == ["policy_bundles", "policy_bundles", "meta"]
    assert decode_leaf(effects.leaf)["version"] == 4


# --- alarms --------------------------------------------------------------------------------------


def test_N5_alarms(world: World) -> None:
    assert world.ok(ROOT, c.AlarmOp(True, M1, 0)).result == c.Done(())
    effects = world.ok(ROOT, c.AlarmOp(True, M1, 1))
    assert effects.result == c.Done(((M1, 1),))
    assert effects.tables == (c.TableChange("alarms", (M1, 1), ()),)
    repeated = world.ok(ROOT, c.AlarmOp(True, M1, 1))
    assert (repeated.result, repeated.tables) == (c.Done(((M1, 1),)), ())
    for miss in (c.AlarmOp(False, 0, 1), c.AlarmOp(False, M1, 2), c.AlarmOp(False, M2, 1)):
        assert world.ok(ROOT, miss).result == c.Done(())
    cleared = world.ok(ROOT, c.AlarmOp(False, M1, 1))
    assert cleared.tables == (c.TableChange("alarms", (M1, 1), None),)
    assert isinstance(world.refused(ROOT, c.AlarmOp(True, M1, 7)), InvalidArgumentError)
    assert isinstance(world.refused(ROOT, c.AlarmOp(True, 0x99, 1)), MemberNotFoundError)
    world.ok(SYSTEM, c.AlarmOp(True, M2, 2))  # a member raises its own


def test_N2_quota_is_asked_before_proposing() -> None:
    state = ApplyState(quota_bytes=1_000)
    assert not state.over_quota(0)
    assert not state.over_quota(999)
    assert state.over_quota(1_000)
    state.quota_bytes = -1
    assert not state.over_quota(10**12)


# --- members -------------------------------------------------------------------------------------


def publish(member: int, **more: Any) -> c.MemberAttributesOp:
    op = c.MemberAttributesOp(
        member, f"m{member:x}", (f"https://10.0.0.{member}:2379",), b"store", "1.0.0"
    )
    return op._replace(**more)


def started(world: World, *members: int) -> None:
    for member in members:
        world.ok(SYSTEM, publish(member), accepted_by=member)


def change(action: str, member: int, urls: tuple[str, ...] = (), learner: bool = False) -> Any:
    return c.MemberChangeOp(action, member, urls, learner)


def test_members_publish_themselves_only(world: World) -> None:
    effects = world.ok(SYSTEM, publish(M1), accepted_by=M1)
    assert effects.tables[0].key == (M1,)
    assert world.ok(SYSTEM, publish(M1), accepted_by=M1).tables == ()
    for op, by, error in (
        (publish(M2), M1, PermissionDeniedError),
        (publish(0x99), 0x99, MemberNotFoundError),
        (publish(M1, store_id=b"other"), M1, ConflictError),
        (publish(M1, client_urls=("x",)), M1, MemberBadURLsError),
        (publish(M1, name=""), M1, InvalidArgumentError),
    ):
        assert isinstance(world.refused(SYSTEM, op, accepted_by=by), error)


def test_M3_M5_M8_changes(world: World) -> None:
    started(world, *MEMBERS)
    for op, error in (
        (change("add", M1, url(9)), MemberExistError),
        (change("add", 0x44, url(M1)), PeerURLExistError),
        (change("add", 0x44, ()), MemberBadURLsError),
        (change("add", 0x44, ("https://10.0.0.4",)), MemberBadURLsError),
        (change("remove", 0x44), MemberNotFoundError),
        (change("update", 0x44, url(9)), MemberNotFoundError),
        (change("update", M1, url(M2)), PeerURLExistError),
        (change("promote", 0x44), MemberNotFoundError),
        (change("promote", M1), MemberNotLearnerError),
        (change("demote", M1), InvalidArgumentError),
    ):
        assert isinstance(world.refused(ROOT, op), error)
    world.ok(ROOT, change("add", 0x44, url(4), learner=True))
    assert isinstance(world.refused(ROOT, change("add", 0x55, url(5), True)), TooManyLearnersError)
    started(world, 0x44)
    world.ok(ROOT, change("promote", 0x44))
    world.ok(ROOT, change("update", M1, url(8)))
    effects = world.ok(ROOT, change("remove", M1))
    assert [t.table for t in effects.tables] == ["members", "removed_members"]
    for op in (change("add", M1, url(7)), change("remove", M1), publish(M1)):
        who = SYSTEM if op == publish(M1) else ROOT
        assert isinstance(world.refused(who, op, accepted_by=M1), MemberNotFoundError)


@pytest.mark.parametrize(
    ("voters", "up", "op", "allowed"),
    [
        (1, 1, "add", True),
        (1, 0, "add", False),
        (2, 2, "add", True),
        (2, 1, "add", False),
        (3, 2, "add", False),
        (3, 3, "add", True),
        (3, 2, "remove-up", False),
        (3, 2, "remove-down", True),
        (3, 3, "remove-up", True),
        (2, 2, "remove-up", True),
        (1, 1, "remove-up", False),
        (3, 1, "add-learner", True),
        (3, 2, "promote", True),
        (3, 1, "promote", False),
    ],
)
def test_M6_strict_reconfiguration(voters: int, up: int, op: str, allowed: bool) -> None:
    members = Members()
    members.genesis(change("add", i, url(i)) for i in range(1, voters + 1))
    for i in range(1, up + 1):
        members.publish(publish(i))
    if op == "promote":
        members.change(change("add", 9, url(9), True))
    todo = {
        "add": change("add", 8, url(8)),
        "add-learner": change("add", 8, url(8), True),
        "remove-up": change("remove", 1),
        "remove-down": change("remove", voters),
        "promote": change("promote", 9),
    }[op]
    before = dict(members.by_id)
    if allowed:
        members.change(todo)
        assert members.by_id != before
    else:
        with pytest.raises(MemberNotEnoughStartedError):
            members.change(todo)
        assert members.by_id == before


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://10.0.0.1:2380", True),
        ("http://[::1]:2380", True),
        ("unix://m1:0001", True),
        ("https://host:0", False),
        ("https://host:65536", False),
        ("https://host", False),
        ("https://:2380", False),
        ("https://host:2380/x", False),
        ("ftp://host:2380", False),
        ("https://user@host:1", False),
        ("https://ho st:1", False),
        ("https://host:²", False),
        ("https://" + "h" * 600 + ":1", False),
        ("", False),
    ],
)
def test_urls(text: str, good: bool) -> None:
    if good:
        check_url(text)
    else:
        with pytest.raises(MemberBadURLsError):
            check_url(text)


# --- keys, anchors, signatures, versions ---------------------------------------------------------


def test_JWT8_signing_keys_only_go_forward(world: World) -> None:
    op = c.SigningKeyOp("kid-0001", "token", M1, b"\1" * 32, "pending")

    def error(changed: c.SigningKeyOp, by: int = M1) -> Exception:
        return world.refused(SYSTEM, changed, accepted_by=by)

    assert isinstance(error(op, by=M2), PermissionDeniedError)
    assert isinstance(error(op._replace(use="x")), InvalidArgumentError)
    assert isinstance(error(op._replace(public=b"")), InvalidArgumentError)
    assert isinstance(error(op._replace(member=0x99), by=0x99), MemberNotFoundError)
    first = world.ok(SYSTEM, op, accepted_by=M1)
    assert first.tables == (
        c.TableChange("signing_keys", ("kid-0001",), ("token", M1, b"\1" * 32, "pending", 2 + 4)),
    )
    assert world.ok(SYSTEM, op, accepted_by=M1).tables == ()
    world.ok(SYSTEM, op._replace(state="active"), accepted_by=M1)
    assert isinstance(error(op), ConflictError)
    assert isinstance(error(op._replace(state="active", public=b"\2" * 32)), ConflictError)
    world.ok(ROOT, op._replace(state="removed"))


def test_a_removed_members_keys_end(world: World) -> None:
    started(world, *MEMBERS)
    for kid, use in (("kid-token", "token"), ("kid-log", "log")):
        op = c.SigningKeyOp(kid, use, M3, b"\1" * 32, "active")
        world.ok(SYSTEM, op, accepted_by=M3)
    world.ok(ROOT, change("remove", M3))
    keys = world.state.signing_keys
    assert (keys["kid-token"].state, keys["kid-log"].state) == ("removed", "retired")


def test_AUD6_anchors_never_shrink(world: World) -> None:
    op = c.AuditAnchorOp(M1, "corp/c/local/11/1", 5, b"\1" * 32)
    world.ok(SYSTEM, op, accepted_by=M1)
    assert decode_leaf(world.effects[-1].leaf)["size"] == 5
    assert world.ok(SYSTEM, op, accepted_by=M1).tables == ()
    for bad, error in (
        (op._replace(size=4), ConflictError),
        (op._replace(root=b"\2" * 32), ConflictError),
        (op._replace(root=b"x"), InvalidArgumentError),
    ):
        assert isinstance(world.refused(SYSTEM, bad, accepted_by=M1), error)
    world.ok(SYSTEM, op._replace(origin="corp/c/local/11/2", size=1), accepted_by=M1)


def test_checkpoint_signatures_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.apply.cluster.SIGNATURES_PER_MEMBER_MAX", 2)
    for _ in range(5):
        world.ok(ROOT, put(b"/k"))

    def sign(size: int) -> c.CheckpointSignatureOp:
        return c.CheckpointSignatureOp(M1, size, b"\1" * 32, b"\2" * 64)

    for size in (1, 2, 3):
        effects = world.ok(SYSTEM, sign(size), accepted_by=M1)
    assert effects.leaf == b""
    assert effects.tables[-1] == c.TableChange("signatures", (M1, 1), None)
    assert sorted(world.state.signatures) == [(M1, 2), (M1, 3)]
    assert isinstance(world.refused(SYSTEM, sign(99), accepted_by=M1), NotFoundError)


def test_V1_cluster_version_goes_up(world: World) -> None:
    world.ok(SYSTEM, c.ClusterVersionOp("1.2.0"))
    world.ok(SYSTEM, c.ClusterVersionOp("1.10.0"))
    assert isinstance(world.refused(SYSTEM, c.ClusterVersionOp("1.9.0")), ConflictError)
    for bad in ("1.2", "1.2.x", "1.2.3.4", "", "1.2.-3", "1.2.999999"):
        assert isinstance(world.refused(SYSTEM, c.ClusterVersionOp(bad)), InvalidArgumentError)
    world.ok(ROOT, c.ClusterVersionOp("1.9.0"))
    assert world.state.cluster_version == "1.9.0"


def test_every_error_that_apply_can_meet_has_a_code() -> None:
    from configsvc.apply.outcome import CODE_OF, code_of
    from configsvc.audit.events import CODES

    assert set(CODE_OF.values()) <= set(CODES)
    assert code_of(RequestError("x")) == "UNKNOWN"
