"""Exit codes of ``configctl``, and which error ends with which.

0 ok · 1 no, or not found · 2 usage · 3 denied · 4 unavailable, or outcome unknown · 5 conflict ·
70 a bug of ours · 78 configuration. ``audit verify`` has codes of its own (``commands_audit``).
"""

from __future__ import annotations

from enum import IntEnum

from configsvc import errors
from configsvc.errors import ConfigServiceError


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    NO = 1
    USAGE = 2
    DENIED = 3
    UNAVAILABLE = 4
    CONFLICT = 5
    BUG = 70
    CONFIG = 78


class CliError(ConfigServiceError):
    """Ends the command with this code and line; the line names the way out."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


_DENIED = (
    errors.PermissionDeniedError,
    errors.InvalidAuthTokenError,
    errors.AuthOldRevisionError,
    errors.AuthFailedError,
    errors.UserEmptyError,
    errors.CertificateNotAcceptableError,
    errors.AuthDisableRefusedError,
)
_UNAVAILABLE = (
    errors.NoLeaderError,
    errors.LeaderChangedError,
    errors.StoppedError,
    errors.RequestTimeoutError,
    errors.TimeoutDueToLeaderFailError,
    errors.TimeoutDueToConnectionLostError,
    errors.TimeoutWaitAppliedIndexError,
    errors.DeadlineExceededError,
    errors.CanceledError,
    errors.RequestTooManyRequestsError,
    errors.OverloadedError,
    errors.AuditUnavailableError,
    errors.UnhealthyError,
    errors.InternalFailureError,
    errors.UnimplementedError,
)
_CONFLICT = (
    errors.ConflictError,
    errors.UserAlreadyExistError,
    errors.RoleAlreadyExistError,
    errors.MemberExistError,
    errors.PeerURLExistError,
    errors.LeaseExistError,
)
_USAGE = (
    errors.InvalidArgumentError,
    errors.PolicyInvalidError,
    errors.EmptyKeyError,
    errors.ValueProvidedError,
    errors.LeaseProvidedError,
    errors.TooManyOpsError,
    errors.DuplicateKeyError,
    errors.InvalidSortOptionError,
    errors.FutureRevError,
    errors.LeaseTTLTooLargeError,
    errors.MemberBadURLsError,
    errors.RequestTooLargeError,
    errors.InvalidAuthMgmtError,
    errors.RoleEmptyError,
)
_HINTS: dict[type[ConfigServiceError], str] = {
    errors.PermissionDeniedError: "ask `configctl can-i ACTION KEY --explain`",
    errors.UserEmptyError: "name a client certificate with --cert and --key",
    errors.InvalidAuthTokenError: "get a new token with `configctl login`",
    errors.AuthOldRevisionError: "get a new token with `configctl login`",
    errors.CompactedError: "older values are in the history: `get --at`, `log`, `diff`",
    errors.NoSpaceError: "compact, defragment, then `configctl alarm disarm`",
    errors.InvalidAuthMgmtError: "KEY must not be empty, END lies behind it, root stays",
    errors.MemberBadURLsError: "write https://HOST:PORT",
    errors.NotLeaderError: "send it to the leader that `configctl status` names",
}


def exit_of(error: ConfigServiceError) -> Exit | int:
    """The exit code of an error. Imports the client only when it must have been used."""
    if isinstance(error, CliError):
        return error.code
    if isinstance(error, errors.FatalError):
        return int(error.code)
    for kinds, code in (
        (_DENIED, Exit.DENIED),
        (_UNAVAILABLE, Exit.UNAVAILABLE),
        (_CONFLICT, Exit.CONFLICT),
        (_USAGE, Exit.USAGE),
    ):
        if isinstance(error, kinds):
            return code
    return _exit_of_client_error(error)


def _exit_of_client_error(error: ConfigServiceError) -> Exit:
    from configsvc.client import errors as client_errors

    if isinstance(error, client_errors.EndpointError):
        return Exit.CONFIG
    if isinstance(error, client_errors.UnauthenticatedError):
        return Exit.DENIED
    return Exit.UNAVAILABLE if isinstance(error, client_errors.ClientError) else Exit.NO


def line_of(error: ConfigServiceError) -> str:
    """One line for people: what happened and the way out."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, errors.FatalError) and error.remedy:
        return f"{text}: {error.remedy}"
    if exit_of(error) == Exit.UNAVAILABLE and type(error).__name__ == "OutcomeUnknownError":
        return f"outcome unknown, look before you do it again: {text}"
    hint = _HINTS.get(type(error))
    return f"{text} ({hint})" if hint else text
