"""The one table from errors to gRPC codes; and from gRPC codes to HTTP.

Source: wire/errors.md. Go clients compare the text, others the code: both are interface facts.
Where etcd sends Unknown by a slip, the declared code is sent (wire/behaviour.md 21).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from configsvc import errors


class Code(IntEnum):
    """gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# As Go prints them; clients and dashboards compare these, one "l" in Canceled included.
GO_NAMES: Final = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
    "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted",
    "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
)  # fmt: skip

CODE_OF: Final[dict[type[errors.RequestError], int]] = {
    errors.EmptyKeyError: 3,
    errors.KeyNotFoundError: 3,
    errors.ValueProvidedError: 3,
    errors.LeaseProvidedError: 3,
    errors.TooManyOpsError: 3,
    errors.DuplicateKeyError: 3,
    errors.InvalidSortOptionError: 3,
    errors.CompactedError: 11,
    errors.FutureRevError: 11,
    errors.NoSpaceError: 8,
    errors.LeaseNotFoundError: 5,
    errors.LeaseExistError: 9,
    errors.LeaseTTLTooLargeError: 11,
    errors.WatchCanceledError: 1,
    errors.MemberExistError: 9,
    errors.PeerURLExistError: 9,
    errors.MemberNotEnoughStartedError: 9,
    errors.MemberBadURLsError: 3,
    errors.MemberNotFoundError: 5,
    errors.MemberNotLearnerError: 9,
    errors.LearnerNotReadyError: 9,
    errors.TooManyLearnersError: 9,
    errors.ClusterIDMismatchError: 9,
    errors.UnhealthyError: 14,
    errors.RootUserNotExistError: 9,
    errors.RootRoleNotExistError: 9,
    errors.UserAlreadyExistError: 9,
    errors.UserEmptyError: 3,
    errors.UserNotFoundError: 9,
    errors.RoleAlreadyExistError: 9,
    errors.RoleNotFoundError: 9,
    errors.RoleEmptyError: 3,
    errors.AuthFailedError: 3,
    errors.PermissionNotGivenError: 3,
    errors.PermissionDeniedError: 7,
    errors.RoleNotGrantedError: 9,
    errors.PermissionNotGrantedError: 9,
    errors.AuthNotEnabledError: 9,
    errors.InvalidAuthTokenError: 16,
    errors.InvalidAuthMgmtError: 3,
    errors.AuthOldRevisionError: 3,
    errors.RequestTooLargeError: 3,
    errors.RequestTooManyRequestsError: 8,
    errors.InvalidClientAPIVersionError: 3,
    errors.NoLeaderError: 14,
    errors.NotLeaderError: 9,
    errors.LeaderChangedError: 14,
    errors.NotCapableError: 9,
    errors.StoppedError: 14,
    errors.RequestTimeoutError: 14,
    errors.TimeoutDueToLeaderFailError: 14,
    errors.TimeoutDueToConnectionLostError: 14,
    errors.TimeoutWaitAppliedIndexError: 14,
    errors.CorruptError: 15,
    errors.NotSupportedForLearnerError: 9,
    errors.BadLeaderTransfereeError: 9,
    errors.CanceledError: 1,
    errors.DeadlineExceededError: 4,
    errors.WrongDowngradeVersionFormatError: 3,
    errors.InvalidDowngradeTargetVersionError: 3,
    errors.ClusterVersionUnavailableError: 9,
    errors.DowngradeInProcessError: 9,
    errors.NoInflightDowngradeError: 9,
    errors.AuthDisableRefusedError: Code.FAILED_PRECONDITION,
    errors.CertificateNotAcceptableError: Code.UNAUTHENTICATED,
    errors.AuditUnavailableError: Code.UNAVAILABLE,
    errors.OverloadedError: Code.RESOURCE_EXHAUSTED,
    errors.InvalidArgumentError: Code.INVALID_ARGUMENT,
    errors.PolicyInvalidError: Code.INVALID_ARGUMENT,
    errors.ConflictError: Code.ABORTED,
    errors.NotFoundError: Code.NOT_FOUND,
    errors.UnimplementedError: Code.UNIMPLEMENTED,
    errors.InternalFailureError: Code.INTERNAL,
    errors.ElectionError: Code.UNKNOWN,
}

# wire/behaviour.md G8.
HTTP_OF: Final[dict[int, int]] = {
    0: 200,
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}


def status_of(error: errors.RequestError) -> tuple[int, str]:
    """GRPC code and text of a refusal."""
    kind = type(error)
    for cls in kind.__mro__:
        code = CODE_OF.get(cls)
        if code is not None:
            return int(code), str(error)
    return int(Code.UNKNOWN), str(error)


def code_name(code: int) -> str:
    """Name of a code, such as ``PERMISSION_DENIED``: what audit records show."""
    try:
        return Code(code).name
    except ValueError:
        return Code.UNKNOWN.name
