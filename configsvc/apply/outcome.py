"""Which gRPC code name an audit leaf records for an error that apply raises on purpose.

The table covers what apply can raise; what clients get is decided in ``api.status``, and a test
there holds the two together.
"""

from __future__ import annotations

from typing import Final

from configsvc import errors as e
from configsvc.errors import RequestError

_INVALID: Final = "INVALID_ARGUMENT"
_PRECONDITION: Final = "FAILED_PRECONDITION"

CODE_OF: Final[dict[type[RequestError], str]] = {
    e.EmptyKeyError: _INVALID,
    e.KeyNotFoundError: _INVALID,
    e.ValueProvidedError: _INVALID,
    e.LeaseProvidedError: _INVALID,
    e.TooManyOpsError: _INVALID,
    e.DuplicateKeyError: _INVALID,
    e.InvalidSortOptionError: _INVALID,
    e.CompactedError: "OUT_OF_RANGE",
    e.FutureRevError: "OUT_OF_RANGE",
    e.NoSpaceError: "RESOURCE_EXHAUSTED",
    e.LeaseNotFoundError: "NOT_FOUND",
    e.LeaseExistError: _PRECONDITION,
    e.LeaseTTLTooLargeError: "OUT_OF_RANGE",
    e.MemberExistError: _PRECONDITION,
    e.PeerURLExistError: _PRECONDITION,
    e.MemberNotEnoughStartedError: _PRECONDITION,
    e.MemberBadURLsError: _INVALID,
    e.MemberNotFoundError: "NOT_FOUND",
    e.MemberNotLearnerError: _PRECONDITION,
    e.TooManyLearnersError: _PRECONDITION,
    e.RootUserNotExistError: _PRECONDITION,
    e.RootRoleNotExistError: _PRECONDITION,
    e.UserAlreadyExistError: _PRECONDITION,
    e.UserEmptyError: _INVALID,
    e.UserNotFoundError: _PRECONDITION,
    e.RoleAlreadyExistError: _PRECONDITION,
    e.RoleNotFoundError: _PRECONDITION,
    e.RoleEmptyError: _INVALID,
    e.PermissionNotGivenError: _INVALID,
    e.PermissionDeniedError: "PERMISSION_DENIED",
    e.RoleNotGrantedError: _PRECONDITION,
    e.PermissionNotGrantedError: _PRECONDITION,
    e.AuthNotEnabledError: _PRECONDITION,
    e.InvalidAuthTokenError: "UNAUTHENTICATED",
    e.InvalidAuthMgmtError: _INVALID,
    e.AuthOldRevisionError: _INVALID,
    e.RequestTooManyRequestsError: "RESOURCE_EXHAUSTED",
    e.CorruptError: "DATA_LOSS",
    e.AuthDisableRefusedError: _PRECONDITION,
    e.CertificateNotAcceptableError: "UNAUTHENTICATED",
    e.InvalidArgumentError: _INVALID,
    e.PolicyInvalidError: _INVALID,
    e.ConflictError: _PRECONDITION,
    e.NotFoundError: "NOT_FOUND",
}


def code_of(error: RequestError) -> str:
    """Name of the gRPC code of ``error``; "UNKNOWN" for one that apply should not raise."""
    return CODE_OF.get(type(error), "UNKNOWN")
