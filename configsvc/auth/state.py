"""Users, roles, grants, the active policy and the deny-list: everything that a decision reads.

Changed only by apply, through the methods below. Each one checks first and changes afterwards, so
a refused call leaves no trace, and returns the rows that the small tables must take over.

Always true:
  * ``revision`` (etcd's authRevision) starts at 1 and grows by one with each change to users,
    roles or grants, with AuthDisable, and with a revocation that ends tokens (A6).
  * ``version`` grows with every change that could alter a decision, also of policy or deny-list.
    It is the key of every cache of decisions (AZ-2); it counts from the start of this process.
  * A user holds only roles that exist, apart from ``root``, which needs no definition (A2).
  * An entry of the deny-list is prolonged, never shortened; only ``unrevoke`` lets in again.

Not here: decisions (``decide``), whether a principal is still good (``standing``), hashing of
passwords (``identity``), who may call these methods (``apply``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from configsvc.auth import names
from configsvc.auth.messages import READWRITE, ROOT, Change, Permission, User
from configsvc.auth.operands import policy_problem
from configsvc.auth.rules import NO_POLICY, Policy, decode_policy
from configsvc.errors import (
    AuthDisableRefusedError,
    ConflictError,
    DecodeError,
    InvalidArgumentError,
    InvalidAuthMgmtError,
    NotFoundError,
    PermissionNotGrantedError,
    PolicyInvalidError,
    RoleAlreadyExistError,
    RoleNotFoundError,
    RoleNotGrantedError,
    RootRoleNotExistError,
    RootUserNotExistError,
    UserAlreadyExistError,
    UserNotFoundError,
    ensure,
)
from configsvc.limits import (
    PERMISSIONS_PER_ROLE_MAX,
    REVOCATIONS_MAX,
    ROLES_MAX,
    ROLES_PER_USER_MAX,
    USERS_MAX,
)

Changes = tuple[Change, ...]

META_ENABLED: Final = "auth_enabled"  # b"1" or b"0"
META_REVISION: Final = "auth_revision"  # decimal
META_TOKENS_MIN: Final = "auth_tokens_min"  # decimal: tokens of an older auth revision are dead
META_INSECURE: Final = "insecure"  # b"1" or b"0"; written once, at bootstrap

DENIED_KINDS: Final = ("serial", "identity", "jti", "kid")

_ROOT_SHOWN: Final = (Permission(b"", b"\0", READWRITE),)


class AuthState:
    """See the module's description. Attributes are read freely, written only here."""

    def __init__(self, *, insecure: bool = False) -> None:
        self.insecure = insecure  # store born under --insecure-dev: etcd's laxer ways (DEV-4)
        self.enabled = False
        self.revision = 1
        self.version = 1
        self.tokens_min = 0  # floor of every user's min_arev
        self.users: dict[str, User] = {}
        self.roles: dict[str, dict[tuple[bytes, bytes], int]] = {}  # (key, range_end) -> type
        self.policy: Policy = NO_POLICY
        self.policy_source = ""
        self.policy_compiled = b""
        self.denied: dict[tuple[str, str], int] = {}  # (what, value) -> until_ns, 0 for ever
        self.denials = 0  # grows when somebody may be denied who was not

    # --- start and restore ------------------------------------------------------------------

    def bootstrap(self, *, insecure: bool, root_uid: str) -> Changes:
        """First entry of a new cluster: user and role root, auth on; nothing if insecure.

        The shipped policy is loaded by ``load_policy`` in the same entry (BOOT-1).
        """
        ensure(not self.users and not self.roles and not self.enabled, "bootstrap comes first")
        self.insecure = insecure
        self.version += 1
        changes = [_meta(META_INSECURE, insecure), _meta(META_REVISION, self.revision)]
        if insecure:
            return (*changes, _meta(META_ENABLED, False))
        self.roles[ROOT] = {}
        root = User(ROOT, root_uid, "", True, (ROOT,), 0)
        self.users[ROOT] = root
        self.enabled = True
        return (*changes, _meta(META_ENABLED, True), Change("roles", (ROOT,), ()), _user_row(root))

    def load(
        self,
        *,
        users: Iterable[tuple[str, str, str, bool, str, int]],
        roles: Iterable[tuple[str]],
        permissions: Iterable[tuple[str, bytes, bytes, int]],
        meta: Mapping[str, bytes],
        policies: Iterable[tuple[int, str, str, bytes, bool]],
        revocations: Iterable[tuple[str, str, int]],
    ) -> None:
        """Become what the rows of the small tables say; row = key columns, then value columns.

        Raises:
            DecodeError: the stored policy cannot be read. Nothing may be served then (FC-5).
        """
        self.users = {
            name: User(name, uid, phc, bool(bare), tuple(json.loads(held)), arev)
            for name, uid, phc, bare, held, arev in users
        }
        self.roles = {name: {} for (name,) in roles}
        for role, key, range_end, perm_type in permissions:
            self.roles[role][(key, range_end)] = perm_type
        self.insecure = meta.get(META_INSECURE, b"0") == b"1"
        self.enabled = meta.get(META_ENABLED, b"0") == b"1"
        self.revision = int(meta.get(META_REVISION, b"1"))
        self.tokens_min = int(meta.get(META_TOKENS_MIN, b"0"))
        self.policy, self.policy_source, self.policy_compiled = NO_POLICY, "", b""
        for _version, _name, source, compiled, active in policies:
            if active:
                self.policy = decode_policy(compiled)
                self.policy_source, self.policy_compiled = source, compiled
        self.denied = {(what, value): until for what, value, until in revocations}
        self.denials += 1
        self.version += 1

    # --- switch -----------------------------------------------------------------------------

    def enable(self) -> Changes:
        """A1; already on is a success that changes nothing."""
        if self.enabled:
            return ()
        root = self.users.get(ROOT)
        if root is None:
            raise RootUserNotExistError
        if ROOT not in root.roles:
            raise RootRoleNotExistError
        self.enabled = True
        self.version += 1
        return (_meta(META_ENABLED, True),)

    def disable(self) -> Changes:
        """A4, A6; refused unless the store was born insecure (DEF-4)."""
        if not self.insecure:
            raise AuthDisableRefusedError
        if not self.enabled:
            return ()
        self.enabled = False
        self.tokens_min = self.revision + 1  # no token outlives it (A4)
        return (_meta(META_ENABLED, False), _meta(META_TOKENS_MIN, self.tokens_min), self._grown())

    # --- users ------------------------------------------------------------------------------

    def user(self, name: str) -> User:
        """Raises ``UserNotFoundError`` when there is none."""
        found = self.users.get(name)
        if found is None:
            raise UserNotFoundError
        return found

    def user_names(self) -> list[str]:
        """Ascending (A7)."""
        return sorted(self.users)

    def user_add(self, name: str, password_hash: str, no_password: bool, uid: str) -> Changes:
        """``uid``: random hex of this creation, drawn by the proposer."""
        names.check_user_name(name, insecure=self.insecure)
        if name in self.users:
            raise UserAlreadyExistError
        if len(self.users) >= USERS_MAX:
            raise InvalidArgumentError("configsvc: too many users")
        phc = "" if no_password else password_hash
        return self._put_user(User(name, uid, phc, no_password, (), 0))

    def user_delete(self, name: str) -> Changes:
        """A3: not ``root`` while auth is on."""
        if self.enabled and name == ROOT:
            raise InvalidAuthMgmtError
        self.user(name)
        del self.users[name]
        return (Change("users", (name,), None), self._grown())

    def user_change_password(self, name: str, password_hash: str) -> Changes:
        """Ends the user's tokens. A user without password gets one, unless the hash is empty."""
        user = self.user(name)
        return self._put_user(
            user._replace(
                password_hash=password_hash,
                no_password=user.no_password and not password_hash,
                min_arev=self.revision + 1,
            )
        )

    def user_grant_role(self, name: str, role: str) -> Changes:
        """Granting again is a success that changes nothing (A7)."""
        user = self.user(name)
        if role != ROOT and role not in self.roles:
            raise RoleNotFoundError
        if role in user.roles:
            return ()
        if len(user.roles) >= ROLES_PER_USER_MAX:
            raise InvalidArgumentError("configsvc: too many roles of one user")
        return self._put_user(user._replace(roles=tuple(sorted((*user.roles, role)))))

    def user_revoke_role(self, name: str, role: str) -> Changes:
        """Ends the user's tokens (N22)."""
        if self.enabled and name == ROOT and role == ROOT:
            raise InvalidAuthMgmtError
        user = self.user(name)
        if role not in user.roles:
            raise RoleNotGrantedError
        return self._put_user(self._without(user, role))

    # --- roles ------------------------------------------------------------------------------

    def role(self, name: str) -> tuple[Permission, ...]:
        """Grants of a role by key (A9); role root shows everything (A2).

        Raises ``RoleNotFoundError`` when it was never added, ``root`` too.
        """
        grants = self.roles.get(name)
        if grants is None:
            raise RoleNotFoundError
        if name == ROOT:
            return _ROOT_SHOWN
        return tuple(Permission(*pair, grants[pair]) for pair in sorted(grants))

    def role_names(self) -> list[str]:
        """Ascending (A7)."""
        return sorted(self.roles)

    def role_add(self, name: str) -> Changes:
        names.check_role_name(name)
        if name in self.roles:
            raise RoleAlreadyExistError
        if len(self.roles) >= ROLES_MAX:
            raise InvalidArgumentError("configsvc: too many roles")
        self.roles[name] = {}
        return (Change("roles", (name,), ()), self._grown())

    def role_delete(self, name: str) -> Changes:
        """Takes the role from all users (A8), whose tokens end."""
        if self.enabled and name == ROOT:
            raise InvalidAuthMgmtError
        grants = self.roles.get(name)
        if grants is None:
            raise RoleNotFoundError
        changes = [Change("permissions", (name, *pair), None) for pair in sorted(grants)]
        changes.append(Change("roles", (name,), None))
        for holder in sorted(user for user, held in self.users.items() if name in held.roles):
            user = self._without(self.users[holder], name)
            self.users[holder] = user
            changes.append(_user_row(user))
        del self.roles[name]
        return (*changes, self._grown())

    def role_grant_permission(
        self, role: str, perm_type: int, key: bytes, range_end: bytes
    ) -> Changes:
        """The same (key, range_end) again replaces the type (A9); refused: A10, N29."""
        names.check_permission(perm_type, key, range_end)
        grants = self.roles.get(role)
        if grants is None:
            raise RoleNotFoundError
        pair = (key, range_end)
        if pair not in grants and len(grants) >= PERMISSIONS_PER_ROLE_MAX:
            raise InvalidArgumentError("configsvc: too many permissions of one role")
        grants[pair] = perm_type
        return (Change("permissions", (role, *pair), (perm_type,)), self._grown())

    def role_revoke_permission(self, role: str, key: bytes, range_end: bytes) -> Changes:
        """Needs the exact pair (A9)."""
        grants = self.roles.get(role)
        if grants is None:
            raise RoleNotFoundError
        pair = (key, range_end)
        if pair not in grants:
            raise PermissionNotGrantedError
        del grants[pair]
        return (Change("permissions", (role, *pair), None), self._grown())

    # --- policy and deny-list -----------------------------------------------------------------

    def load_policy(self, *, name: str, version: int, source: str, compiled: bytes) -> Changes:
        """Activate a bundle; the one before stays in the table, inactive (POL-9).

        Raises:
            ConflictError: ``version`` is not above the active one.
            PolicyInvalidError: ``compiled`` is not canonical, not of this name and version, or says
                what no bundle may say.
        """
        if version <= self.policy.version:
            raise ConflictError(f"policy version must be above {self.policy.version}")
        try:
            policy = decode_policy(compiled)
        except DecodeError as error:
            raise PolicyInvalidError(str(error)) from error
        if (policy.name, policy.version) != (name, version):
            raise PolicyInvalidError("compiled policy is of another name or version")
        problem = policy_problem(policy)
        if problem:
            raise PolicyInvalidError(f"compiled policy: {problem}")
        changes = []
        if self.policy.version:
            before = (self.policy.name, self.policy_source, self.policy_compiled, False)
            changes.append(Change("policy_bundles", (self.policy.version,), before))
        changes.append(Change("policy_bundles", (version,), (name, source, compiled, True)))
        self.policy, self.policy_source, self.policy_compiled = policy, source, compiled
        self.version += 1
        return tuple(changes)

    def revoke(self, what: str, value: str, until_ns: int, time_ns: int) -> Changes:
        """End a certificate, an identity, a token, a user's tokens, a key's tokens, or all tokens.

        Args:
            what: "serial" (lower-case hex), "identity" (certificate URI), "jti", "kid",
                "user" (name), "all" (value unused).
            value: what to deny.
            until_ns: when the entry may be forgotten, 0 never; unused for "user" and "all".
            time_ns: the entry's leader time.
        """
        if what == "all":
            self.tokens_min = self.revision + 1
            return (_meta(META_TOKENS_MIN, self.tokens_min), self._grown())
        if what == "user":
            return self._put_user(self.user(value)._replace(min_arev=self.revision + 1))
        if what not in DENIED_KINDS or not value:
            raise InvalidArgumentError("configsvc: revocation names nothing that can be revoked")
        changes = self._forget_over(time_ns)
        until = self.denied.get((what, value))
        if until == 0 or (until is not None and 0 < until_ns <= until):
            return changes
        if until is None and len(self.denied) >= REVOCATIONS_MAX:
            raise InvalidArgumentError("configsvc: too many revocations")
        self.denied[(what, value)] = until_ns
        self.denials += 1
        self.version += 1
        return (*changes, Change("revocations", (what, value), (until_ns,)))

    def unrevoke(self, what: str, value: str) -> Changes:
        """Take one entry off the deny-list; ended tokens of a user, or of all, stay ended.

        Raises:
            NotFoundError: the list has no such entry.
        """
        if self.denied.pop((what, value), None) is None:
            raise NotFoundError("configsvc: not on the deny-list")
        self.version += 1
        return (Change("revocations", (what, value), None),)

    def is_denied(self, what: str, value: str, time_ns: int) -> bool:
        """Whether the deny-list names ``value`` at ``time_ns``."""
        until = self.denied.get((what, value))
        return until is not None and (until == 0 or time_ns < until)

    # --- inside -------------------------------------------------------------------------------

    def _forget_over(self, time_ns: int) -> Changes:
        """Make room when the list is full: entries that have run out go."""
        if len(self.denied) < REVOCATIONS_MAX:
            return ()
        over = sorted(entry for entry, until in self.denied.items() if 0 < until <= time_ns)
        for entry in over:
            del self.denied[entry]
        return tuple(Change("revocations", entry, None) for entry in over)

    def _without(self, user: User, role: str) -> User:
        left = tuple(held for held in user.roles if held != role)
        return user._replace(roles=left, min_arev=self.revision + 1)

    def _put_user(self, user: User) -> Changes:
        self.users[user.name] = user
        return (_user_row(user), self._grown())

    def _grown(self) -> Change:
        self.revision += 1
        self.version += 1
        return _meta(META_REVISION, self.revision)


def _meta(name: str, value: int | bool) -> Change:
    return Change("meta", (name,), (str(int(value)).encode(),))


def _user_row(user: User) -> Change:
    held = json.dumps(user.roles, separators=(",", ":"))
    row = (user.uid, user.password_hash, user.no_password, held, user.min_arev)
    return Change("users", (user.name,), row)
