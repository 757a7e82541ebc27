"""Users, roles and switch, by the ids of wire/behaviour.md section 12."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from configsvc import errors
from configsvc.auth.messages import READ, READWRITE, WRITE, Change, Permission
from configsvc.auth.rules import Policy, encode_policy
from configsvc.auth.state import AuthState

Tables = dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]


class Kept:
    """A state together with the small tables that its changes make."""

    def __init__(self, *, insecure: bool = False) -> None:
        self.state = AuthState()
        self.tables: Tables = {}
        self.take(self.state.bootstrap(insecure=insecure, root_uid="00"))

    def take(self, changes: tuple[Change, ...]) -> int:
        for table, key, row in changes:
            rows = self.tables.setdefault(table, {})
            if row is None:
                del rows[key]
            else:
                rows[key] = row
        return len(changes)

    def reloaded(self) -> AuthState:
        rows = {name: [k + r for k, r in table.items()] for name, table in self.tables.items()}
        fresh = AuthState()
        fresh.load(
            users=rows.get("users", []),
            roles=rows.get("roles", []),
            permissions=rows.get("permissions", []),
            meta=dict(rows["meta"]),
            policies=rows.get("policy_bundles", []),
            revocations=rows.get("revocations", []),
        )
        return fresh


@pytest.fixture
def kept() -> Kept:
    made = Kept()
    made.take(made.state.role_add("app"))
    made.take(made.state.user_add("hana", "$phc", False, "01"))
    return made


def same(left: AuthState, right: AuthState) -> bool:
    names = ("insecure", "enabled", "revision", "tokens_min", "users", "roles", "policy", "denied")
    return all(getattr(left, name) == getattr(right, name) for name in names)


def test_bootstrap_makes_root_and_nothing_else() -> None:
    """BOOT-1: auth on, user root without password holding role root."""
    state = Kept().state
    assert state.enabled
    assert state.user_names() == ["root"]
    assert state.role_names() == ["root"]
    root = state.user("root")
    assert (root.no_password, root.password_hash, root.roles) == (True, "", ("root",))
    assert state.revision == 1


def test_insecure_bootstrap_leaves_auth_off() -> None:
    """DEV-4."""
    state = Kept(insecure=True).state
    assert not state.enabled
    assert not state.users


def test_a1_enable_needs_root_with_role_root() -> None:
    state = Kept(insecure=True).state
    with pytest.raises(errors.RootUserNotExistError):
        state.enable()
    state.user_add("root", "", True, "00")
    with pytest.raises(errors.RootRoleNotExistError):
        state.enable()
    state.user_grant_role("root", "root")
    before = state.revision
    assert state.enable()
    assert state.enable() == ()
    assert (state.enabled, state.revision) == (True, before)


def test_a2_role_root_shows_everything_once_added() -> None:
    state = Kept(insecure=True).state
    with pytest.raises(errors.RoleNotFoundError):
        state.role("root")
    state.role_add("root")
    state.role_grant_permission("root", READ, b"k", b"")
    assert state.role("root") == (Permission(b"", b"\0", READWRITE),)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda s: s.user_delete("root"), id="delete-user"),
        pytest.param(lambda s: s.role_delete("root"), id="delete-role"),
        pytest.param(lambda s: s.user_revoke_role("root", "root"), id="revoke"),
    ],
)
def test_a3_root_is_protected_while_on(call: Callable[[AuthState], object]) -> None:
    with pytest.raises(errors.InvalidAuthMgmtError):
        call(Kept().state)


def test_def4_disable_is_refused_unless_born_insecure() -> None:
    with pytest.raises(errors.AuthDisableRefusedError):
        Kept().state.disable()


def test_a4_a6_disable_is_idempotent_and_counts_when_on() -> None:
    state = Kept(insecure=True).state
    assert state.disable() == ()
    state.user_add("root", "", True, "00")
    state.user_grant_role("root", "root")
    state.enable()
    before = state.revision
    assert state.disable()
    assert state.revision == before + 1


def test_a6_what_counts(kept: Kept) -> None:
    state = kept.state

    def grows(call: Callable[[], object]) -> int:
        before = state.revision
        call()
        return state.revision - before

    assert grows(lambda: state.user_grant_role("hana", "app")) == 1
    assert grows(lambda: state.user_grant_role("hana", "app")) == 0
    assert grows(lambda: state.role_grant_permission("app", WRITE, b"a", b"b")) == 1
    assert grows(lambda: state.role_revoke_permission("app", b"a", b"b")) == 1
    assert grows(lambda: state.user_change_password("hana", "$new")) == 1
    assert grows(lambda: state.enable()) == 0
    assert grows(lambda: state.user_delete("hana")) == 1
    with pytest.raises(errors.UserNotFoundError):
        grows(lambda: state.user_delete("hana"))
    assert grows(lambda: state.role_delete("app")) == 1


def test_a7_names_and_lists(kept: Kept) -> None:
    state = kept.state
    with pytest.raises(errors.UserEmptyError):
        state.user_add("", "", True, "02")
    with pytest.raises(errors.RoleEmptyError):
        state.role_add("")
    with pytest.raises(errors.UserAlreadyExistError):
        state.user_add("hana", "", True, "02")
    with pytest.raises(errors.RoleAlreadyExistError):
        state.role_add("app")
    state.user_add("agent/n1", "", True, "03")
    assert state.user_names() == ["agent/n1", "hana", "root"]
    assert state.role_names() == ["app", "root"]


@pytest.mark.parametrize(
    "name",
    ["Hana", "hana ", "a/b", "agent/", "agent/service/x", "x" * 64, "-a", "a\n", "ä", "a{b}"],
)
def test_n51_n66_user_names_have_one_spelling(name: str) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        Kept().state.user_add(name, "", True, "02")
    assert name not in str(caught.value)


def test_insecure_store_takes_etcds_user_names() -> None:
    state = Kept(insecure=True).state
    state.user_add("User One/äöü", "", True, "02")
    with pytest.raises(errors.InvalidArgumentError):
        state.user_add("a\x1b[2J", "", True, "02")


def test_a8_deleting_a_role_takes_it_from_all_users(kept: Kept) -> None:
    state = kept.state
    kept.take(state.role_grant_permission("app", READ, b"a", b""))
    kept.take(state.user_grant_role("hana", "app"))
    kept.take(state.role_delete("app"))
    assert state.user("hana").roles == ()
    assert kept.tables["permissions"] == {}
    assert same(kept.reloaded(), state)


def test_a9_grants_sort_replace_and_need_the_exact_pair(kept: Kept) -> None:
    state = kept.state
    state.role_grant_permission("app", READ, b"b", b"")
    state.role_grant_permission("app", READ, b"a", b"c")
    state.role_grant_permission("app", WRITE, b"b", b"")
    assert state.role("app") == (Permission(b"a", b"c", READ), Permission(b"b", b"", WRITE))
    with pytest.raises(errors.PermissionNotGrantedError):
        state.role_revoke_permission("app", b"a", b"")


@pytest.mark.parametrize(
    ("perm_type", "key", "range_end", "legal"),
    [
        pytest.param(READ, b"", b"", False, id="empty-key"),
        pytest.param(READ, b"z", b"a", False, id="backwards"),
        pytest.param(READ, b"z", b"z", False, id="empty-span"),
        pytest.param(3, b"a", b"b", False, id="unknown-type"),
        pytest.param(-1, b"a", b"b", False, id="negative-type"),
        pytest.param(READ, b"k" * 2049, b"", False, id="long-key"),
        pytest.param(READ, b"a", b"\0", True, id="open"),
        pytest.param(READWRITE, b"\0", b"\0", True, id="everything"),
        pytest.param(WRITE, b"a", b"", True, id="single"),
    ],
)
def test_a10_n29_grants_mean_a_span(
    kept: Kept, perm_type: int, key: bytes, range_end: bytes, legal: bool
) -> None:
    if legal:
        assert kept.state.role_grant_permission("app", perm_type, key, range_end)
    else:
        with pytest.raises(errors.InvalidAuthMgmtError):
            kept.state.role_grant_permission("app", perm_type, key, range_end)
        assert kept.state.role("app") == ()


def test_a11_no_password_users_keep_no_hash(kept: Kept) -> None:
    kept.state.user_add("cert", "$phc", True, "05")
    assert kept.state.user("cert").password_hash == ""


def test_setting_a_password_opens_an_account_that_had_none() -> None:
    state = Kept().state
    state.user_change_password("root", "$phc")
    assert (state.user("root").no_password, state.user("root").password_hash) == (False, "$phc")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.user("x"), errors.UserNotFoundError),
        (lambda s: s.role("x"), errors.RoleNotFoundError),
        (lambda s: s.user_change_password("x", "h"), errors.UserNotFoundError),
        (lambda s: s.user_grant_role("x", "app"), errors.UserNotFoundError),
        (lambda s: s.user_grant_role("hana", "x"), errors.RoleNotFoundError),
        (lambda s: s.user_revoke_role("hana", "app"), errors.RoleNotGrantedError),
        (lambda s: s.role_delete("x"), errors.RoleNotFoundError),
        (lambda s: s.role_grant_permission("x", READ, b"a", b""), errors.RoleNotFoundError),
        (lambda s: s.role_revoke_permission("x", b"a", b""), errors.RoleNotFoundError),
        (lambda s: s.revoke("user", "x", 0, 1), errors.UserNotFoundError),
        (lambda s: s.revoke("nonsense", "x", 0, 1), errors.InvalidArgumentError),
        (lambda s: s.revoke("jti", "", 0, 1), errors.InvalidArgumentError),
    ],
)
def test_refused_calls_leave_no_trace(
    kept: Kept, call: Callable[[AuthState], object], error: type[Exception]
) -> None:
    before = kept.reloaded()
    version = kept.state.version
    with pytest.raises(error):
        call(kept.state)
    assert same(before, kept.state)
    assert kept.state.version == version


def test_tables_bring_the_same_state_back(kept: Kept) -> None:
    state = kept.state
    compiled = [encode_policy(Policy("p", v, ())) for v in (1, 3)]
    steps: tuple[Callable[[], tuple[Change, ...]], ...] = (
        lambda: state.user_grant_role("hana", "app"),
        lambda: state.role_grant_permission("app", READWRITE, b"a", b"b"),
        lambda: state.load_policy(name="p", version=1, source="one", compiled=compiled[0]),
        lambda: state.load_policy(name="p", version=3, source="three", compiled=compiled[1]),
        lambda: state.revoke("serial", "abc", 0, 1),
        lambda: state.revoke("user", "hana", 0, 1),
        lambda: state.revoke("all", "", 0, 1),
    )
    for step in steps:
        version = state.version
        assert kept.take(step())
        assert state.version > version
        assert same(kept.reloaded(), state)
    assert kept.tables["policy_bundles"][(1,)][3] is False
    assert kept.tables["policy_bundles"][(3,)][3] is True
    assert json.loads(kept.tables["users"][("hana",)][3]) == ["app"]


def test_pol9_versions_only_rise_and_bytes_must_be_canonical() -> None:
    state = Kept().state
    good = encode_policy(Policy("p", 2, ()))
    state.load_policy(name="p", version=2, source="", compiled=good)
    with pytest.raises(errors.ConflictError):
        state.load_policy(name="p", version=2, source="", compiled=good)
    third = encode_policy(Policy("p", 3, ()))
    for name, compiled in (("q", third), ("p", third + b" "), ("p", b"{}"), ("p", b"")):
        with pytest.raises(errors.PolicyInvalidError):
            state.load_policy(name=name, version=3, source="", compiled=compiled)
    assert state.policy.version == 2


def test_the_deny_list_only_gets_stricter() -> None:
    state = Kept().state
    state.revoke("jti", "aa", 100, 1)
    assert state.revoke("jti", "aa", 50, 1) == ()
    assert state.revoke("jti", "aa", 200, 1)
    assert state.revoke("jti", "aa", 0, 1)
    assert state.revoke("jti", "aa", 900, 1) == ()
    assert state.is_denied("jti", "aa", 10**30)


def test_an_entry_off_the_deny_list_lets_in_again_and_is_gone() -> None:
    state = Kept().state
    state.revoke("jti", "aa", 0, 1)
    state.revoke("jti", "bb", 0, 1)
    version, denials = state.version, state.denials
    assert state.unrevoke("jti", "aa") == (Change("revocations", ("jti", "aa"), None),)
    assert not state.is_denied("jti", "aa", 1)
    assert state.is_denied("jti", "bb", 1)
    assert state.version > version
    assert state.denials == denials  # nobody new is denied
    for what, value in (("jti", "aa"), ("kid", "bb"), ("user", "hana"), ("all", "")):
        with pytest.raises(errors.NotFoundError):
            state.unrevoke(what, value)
    assert state.revoke("jti", "aa", 7, 1)  # and it may come back, for less long
    assert state.denials == denials + 1


def test_a_full_deny_list_forgets_what_has_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.auth.state.REVOCATIONS_MAX", 2)
    state = Kept().state
    state.revoke("jti", "aa", 10, 1)
    state.revoke("jti", "bb", 0, 1)
    with pytest.raises(errors.InvalidArgumentError):
        state.revoke("jti", "cc", 0, 9)
    changes = state.revoke("jti", "cc", 0, 10)
    assert changes == (
        Change("revocations", ("jti", "aa"), None),
        Change("revocations", ("jti", "cc"), (0,)),
    )


def test_role_names_are_printable() -> None:
    state = Kept().state
    for name in ("a\n", "x" * 253):
        with pytest.raises(errors.InvalidArgumentError):
            state.role_add(name)
    assert state.role_add("Team A/ops")


@pytest.mark.parametrize(
    ("bound", "call"),
    [
        ("USERS_MAX", lambda s: s.user_add("omar", "", True, "02")),
        ("ROLES_MAX", lambda s: s.role_add("more")),
        ("ROLES_PER_USER_MAX", lambda s: s.user_grant_role("hana", "app")),
        ("PERMISSIONS_PER_ROLE_MAX", lambda s: s.role_grant_permission("app", READ, b"k", b"")),
    ],
)
def test_every_table_is_bounded(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, bound: str, call: Callable[[AuthState], object]
) -> None:
    monkeypatch.setattr(f"configsvc.auth.state.{bound}", 0)
    before = kept.reloaded()
    with pytest.raises(errors.InvalidArgumentError, match="too many"):
        call(kept.state)
    assert same(before, kept.state)
