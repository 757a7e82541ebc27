"""Users and roles of a migration. Passwords cannot be read from either side: who was carried
needs a new one, or a certificate.

Always true: what the target has is added to, never taken away; a permission of another kind on
the same range is replaced only under ``overwrite``; one refused name does not stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from configsvc.cli.exits import CliError, Exit
from configsvc.cli.migrate_ends import End, Ends
from configsvc.cli.output import escape
from configsvc.client import Client, Operation, Why
from configsvc.client import administration as admin
from configsvc.errors import (
    PermissionDeniedError,
    RequestError,
    RoleAlreadyExistError,
    UserAlreadyExistError,
)
from configsvc.proto import auth_pb2

Range = tuple[bytes, bytes]
_OURS_ONLY: Final = "only in configsvc"
_ROOT: Final = "root"  # has every right on both sides


class Rights(NamedTuple):
    """Roles with their ranges, and users with their roles."""

    roles: dict[str, dict[Range, auth_pb2.Permission.Type]]
    users: dict[str, frozenset[str]]


class Carried(NamedTuple):
    """What was done about users and roles."""

    roles: list[str]
    users: list[str]  # new ones: none of them has a password
    refused: list[str]  # one line each


def read_rights(client: Client) -> Rights:
    """Everything one side has.

    Raises:
        ConfigServiceError: as ``Client.do``; reading this takes the role root.
    """
    roles = {}
    for role in client.do(admin.role_list()).roles:
        perms = client.do(admin.role_get(role)).perm if role != _ROOT else ()
        roles[role] = {(one.key, one.range_end): one.permType for one in perms}
    users = {
        user: frozenset(client.do(admin.user_get(user)).roles)
        for user in client.do(admin.user_list()).users
    }
    return Rights(roles, users)


class RightsCopy:
    """Carries what the target lacks."""

    def __init__(self, ends: Ends, why: Why, *, overwrite: bool) -> None:
        self._target: End = ends.target
        self._why = why
        self._overwrite = overwrite
        self._source = read_rights(ends.source.client)
        self._there = read_rights(ends.target.client)
        self._refused: list[str] = []

    def in_the_way(self) -> list[str]:
        """Roles whose ranges have another kind in the target."""
        return [
            role
            for role, ranges in self._source.roles.items()
            for range_, kind in ranges.items()
            if self._there.roles.get(role, {}).get(range_, kind) != kind
        ]

    def missing(self) -> tuple[list[str], list[str]]:
        """Roles and users that the target lacks."""
        roles = [one for one in self._source.roles if one not in self._there.roles]
        return roles, [one for one in self._source.users if one not in self._there.users]

    def check(self) -> None:
        """Raise when a permission would be replaced.

        Raises:
            CliError: conflict.
        """
        if not self._overwrite and (roles := self.in_the_way()):
            raise CliError(
                Exit.CONFLICT,
                f"roles have other permissions in the target: {escape(', '.join(roles))}: "
                "--overwrite replaces them",
            )

    def run(self) -> Carried:
        """Carry; what a name's own rules refuse is reported, everything else is raised."""
        roles, users = self.missing()
        for role, ranges in self._source.roles.items():
            if role not in self._there.roles and not self._try(
                f"role {role}", admin.role_add(role)
            ):
                continue
            for range_, kind in ranges.items():
                if self._there.roles.get(role, {}).get(range_) != kind:
                    self._grant(role, range_, kind)
        for user, granted in self._source.users.items():
            new = user not in self._there.users
            if new and not self._try(f"user {user}", admin.user_add(user, None)):
                continue
            for role in sorted(granted - self._there.users.get(user, frozenset())):
                self._try(f"user {user}, role {role}", admin.user_grant_role(user, role))
        return Carried(roles, users, self._refused)

    def _grant(self, role: str, range_: Range, kind: auth_pb2.Permission.Type) -> None:
        self._try(
            f"role {role}, {auth_pb2.Permission.Type.Name(kind).lower()} {escape(range_[0])}",
            admin.role_grant(role, kind, *range_),
        )

    def _try(self, what: str, operation: Operation[Any]) -> bool:
        try:
            self._target.client.do(operation.repeatable(), why=self._why)
        except (RoleAlreadyExistError, UserAlreadyExistError):
            return True
        except PermissionDeniedError:
            raise
        except RequestError as error:
            self._refused.append(f"{what}: {error}")
            return False
        return True


class Difference(NamedTuple):
    """A role or user that etcd and ours do not have alike."""

    what: str
    where: str

    @property
    def counts(self) -> bool:
        """Ours has people and roles of its own; that is no fault."""
        return self.where != _OURS_ONLY


def differences(source: Rights, target: Rights) -> list[Difference]:
    """How etcd (the source) and ours (the target) differ."""
    return [
        Difference(f"{kind} {name}", _where(name, one, other))
        for kind, one, other in (
            ("role", source.roles, target.roles),
            ("user", source.users, target.users),
        )
        for name in sorted(one.keys() | other.keys())
        if name != _ROOT and one.get(name) != other.get(name)
    ]


def _where(name: str, source: Mapping[str, object], target: Mapping[str, object]) -> str:
    if name not in target:
        return "only in etcd"
    return _OURS_ONLY if name not in source else "differs"
