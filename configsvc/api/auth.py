"""etcdserverpb.Auth: users, roles, permissions, tokens.

Passwords are replaced by their hash before anything is proposed; a client-sent hash is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from configsvc.api.contract import Caller
from configsvc.api.service import Service
from configsvc.audit.record import Resource
from configsvc.codec import command as codec
from configsvc.codec import requests
from configsvc.codec.varint import bytes_field, int_field, string_field
from configsvc.errors import (
    AuthDisableRefusedError,
    AuthFailedError,
    AuthNotEnabledError,
    ConfigServiceError,
    InvalidArgumentError,
    PermissionDeniedError,
    PermissionNotGivenError,
    RoleEmptyError,
    UserEmptyError,
)
from configsvc.proto import auth_pb2, command_pb2, rpc_pb2
from configsvc.runtime.waiting import Waiting

UID_BYTES = 16


def _fail(error: ConfigServiceError) -> bytes:
    raise error


class AuthService(Service):
    """Handlers of Auth."""

    def enable(self, caller: Caller, raw: bytes) -> Waiting:
        """AuthEnable: idempotent for whoever may administrate (DEF-4, A1)."""
        requests.parse(rpc_pb2.AuthEnableRequest, raw)
        return self.propose(caller, codec.OP_AUTH_ENABLE, b"")

    def disable(self, caller: Caller, raw: bytes) -> Waiting:
        """AuthDisable: only in a store born under --insecure-dev."""
        requests.parse(rpc_pb2.AuthDisableRequest, raw)
        if not self.member.state.auth.insecure:
            self.need(caller, "auth.admin")
            raise AuthDisableRefusedError
        return self.propose(caller, codec.OP_AUTH_DISABLE, b"")

    def status(self, caller: Caller, raw: bytes) -> Waiting:
        """AuthStatus (A5, A6)."""
        requests.parse(rpc_pb2.AuthStatusRequest, raw)

        def answer() -> bytes:
            auth = self.member.state.auth
            enabled = b"\x10\x01" if auth.enabled else b""
            return self.header() + enabled + int_field(3, auth.revision)

        return self.linearizable(caller, answer)

    # --- tokens ----------------------------------------------------------------------------------

    def authenticate(self, caller: Caller, raw: bytes) -> Waiting:
        """Authenticate (A15): a password against a token (see ``Logins.login``)."""
        m = requests.parse(rpc_pb2.AuthenticateRequest, raw)
        name, password = m.name, m.password
        out = Waiting()

        def judged(result: str | ConfigServiceError) -> None:
            if isinstance(result, str):
                token = result
                self._login_recorded(
                    caller, name, "", lambda: self.header() + string_field(2, token)
                ).bind(out.complete)
            elif isinstance(result, AuthFailedError):
                result.recorded = True
                self._login_recorded(
                    caller, name, self._why_denied(name), lambda: _fail(result)
                ).bind(out.complete)
            else:
                out.complete(result)

        def start() -> bytes:
            if not self.member.state.auth.enabled:
                raise AuthNotEnabledError
            self.member.logins.login(caller.principal, caller.source, name, password, judged)
            return b""

        def failed(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                out.complete(result)

        self.linearizable(caller, start).bind(failed)
        return out

    def _why_denied(self, name: str) -> str:
        """The exact reason, for the record only (N16)."""
        user = self.member.state.auth.users.get(name)
        if user is None:
            return "unknown user"
        if self.member.logins.locked(name):
            return "locked after too many failures"
        return "wrong password" if user.password_hash else "user has no password"

    def _login_recorded(
        self, caller: Caller, name: str, denied: str, answer: Callable[[], bytes]
    ) -> Waiting:
        """Answer a login once its record is on disk; ``denied`` "": it was granted.

        A name that is no user's is not recorded: people type passwords there.
        """
        out, done = self.member.audit.before(answer)
        known = name if name in self.member.state.auth.users else None
        self.member.audit.note(
            "auth.denied" if denied else "auth.login",
            caller.principal,
            caller.source,
            done,
            code="INVALID_ARGUMENT" if denied else "OK",
            detail=denied,
            resource=Resource(user=known),
        )
        return out

    # --- users -----------------------------------------------------------------------------------

    def user_add(self, caller: Caller, raw: bytes) -> Waiting:
        """UserAdd (A7, A11, PW-1)."""
        m = requests.parse(rpc_pb2.AuthUserAddRequest, raw)
        if not m.name:
            raise UserEmptyError
        # etcd overwrites a hash that comes along (A12); a secure member refuses it (PW-1).
        if m.hashedPassword and not self.member.state.auth.insecure:
            raise InvalidArgumentError("hashedPassword: send the password itself")
        self.need(caller, "auth.admin")
        if m.options.no_password:
            if m.password:
                raise InvalidArgumentError("password: given together with no_password")
            return self._add_user(caller, m.name, "", no_password=True)
        return self._hashed(
            m.password, lambda phc: self._add_user(caller, m.name, phc, no_password=False)
        )

    def _add_user(self, caller: Caller, name: str, phc: str, *, no_password: bool) -> Waiting:
        op = command_pb2.UserAdd(name=name, password_hash=phc, no_password=no_password)
        uid = secrets.token_hex(UID_BYTES)
        return self.propose(caller, codec.OP_USER_ADD, op.SerializeToString(), new_uid=uid)

    def change_password(self, caller: Caller, raw: bytes) -> Waiting:
        """UserChangePassword; only administrators here: one's own needs the old one."""
        m = requests.parse(rpc_pb2.AuthUserChangePasswordRequest, raw)
        if m.hashedPassword:
            raise InvalidArgumentError("hashedPassword: send the password itself")
        self.need(caller, "auth.admin")

        def change(phc: str) -> Waiting:
            op = command_pb2.UserChangePassword(name=m.name, password_hash=phc)
            return self.propose(caller, codec.OP_USER_CHANGE_PASSWORD, op.SerializeToString())

        return self._hashed(m.password, change)

    def _hashed(self, password: str, go_on: Callable[[str], Waiting]) -> Waiting:
        out = Waiting()

        def hashed(result: str | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                out.complete(result)
                return
            try:
                go_on(result).bind(out.complete)
            except ConfigServiceError as error:
                out.complete(error)

        self.member.logins.hash(password, hashed)
        return out

    def user_get(self, caller: Caller, raw: bytes) -> Waiting:
        """UserGet: administrators, or the user itself."""
        m = requests.parse(rpc_pb2.AuthUserGetRequest, raw)

        def answer() -> bytes:
            if caller.principal.user != m.name or not m.name:
                self.need(caller, "auth.admin")
            else:
                self.standing(caller)
            user = self.member.state.auth.user(m.name)
            return self.header() + b"".join(string_field(2, role) for role in user.roles)

        return self.linearizable(caller, answer)

    def user_list(self, caller: Caller, raw: bytes) -> Waiting:
        """UserList, sorted."""
        requests.parse(rpc_pb2.AuthUserListRequest, raw)

        def answer() -> bytes:
            self.need(caller, "auth.admin")
            names = self.member.state.auth.user_names()
            return self.header() + b"".join(string_field(2, n) for n in names)

        return self.linearizable(caller, answer)

    def user_delete(self, caller: Caller, raw: bytes) -> Waiting:
        requests.parse(rpc_pb2.AuthUserDeleteRequest, raw)
        return self.propose(caller, codec.OP_USER_DELETE, raw)

    def user_grant_role(self, caller: Caller, raw: bytes) -> Waiting:
        requests.parse(rpc_pb2.AuthUserGrantRoleRequest, raw)
        return self.propose(caller, codec.OP_USER_GRANT_ROLE, raw)

    def user_revoke_role(self, caller: Caller, raw: bytes) -> Waiting:
        requests.parse(rpc_pb2.AuthUserRevokeRoleRequest, raw)
        return self.propose(caller, codec.OP_USER_REVOKE_ROLE, raw)

    # --- roles -----------------------------------------------------------------------------------

    def role_add(self, caller: Caller, raw: bytes) -> Waiting:
        m = requests.parse(rpc_pb2.AuthRoleAddRequest, raw)
        if not m.name:
            raise RoleEmptyError
        return self.propose(caller, codec.OP_ROLE_ADD, raw)

    def role_get(self, caller: Caller, raw: bytes) -> Waiting:
        """RoleGet: administrators, or whoever has the role."""
        m = requests.parse(rpc_pb2.AuthRoleGetRequest, raw)

        def answer() -> bytes:
            self.standing(caller)
            view = self.member.decider.view(caller.principal, caller.source)
            if m.role not in view.roles and not self.holds(caller, "auth.admin"):
                raise PermissionDeniedError
            out = [self.header()]
            for p in self.member.state.auth.role(m.role):
                perm: Any = auth_pb2.Permission(
                    permType=p.perm_type,  # type: ignore[arg-type]
                    key=p.key,
                    range_end=p.range_end,
                )
                out.append(bytes_field(2, perm.SerializeToString()))
            return b"".join(out)

        return self.linearizable(caller, answer)

    def role_list(self, caller: Caller, raw: bytes) -> Waiting:
        requests.parse(rpc_pb2.AuthRoleListRequest, raw)

        def answer() -> bytes:
            self.need(caller, "auth.admin")
            names = self.member.state.auth.role_names()
            return self.header() + b"".join(string_field(2, n) for n in names)

        return self.linearizable(caller, answer)

    def role_delete(self, caller: Caller, raw: bytes) -> Waiting:
        requests.parse(rpc_pb2.AuthRoleDeleteRequest, raw)
        return self.propose(caller, codec.OP_ROLE_DELETE, raw)

    def role_grant_permission(self, caller: Caller, raw: bytes) -> Waiting:
        m = requests.parse(rpc_pb2.AuthRoleGrantPermissionRequest, raw)
        if not m.HasField("perm"):
            raise PermissionNotGivenError
        return self.propose(caller, codec.OP_ROLE_GRANT_PERMISSION, raw)

    def role_revoke_permission(self, caller: Caller, raw: bytes) -> Waiting:
        requests.parse(rpc_pb2.AuthRoleRevokePermissionRequest, raw)
        return self.propose(caller, codec.OP_ROLE_REVOKE_PERMISSION, raw)
