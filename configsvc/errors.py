"""Every error raised on purpose, and the process exit codes.

One root, ``ConfigServiceError``. Callers branch on types, never on text. The text of an
``EtcdError`` is an interface fact of the etcd v3 API: Go clients compare it. Which gRPC status
an error travels with is decided in one table, ``api.status``.

``InvariantViolationError`` is not part of that tree: it is a bug of ours and stops the member.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Why a member ended; codes 80 and up are listed in the operator guide with their remedy."""

    OK = 0
    USAGE = 2
    CONFIG = 78  # settings or keys: nothing was touched
    STORAGE = 80  # a write, sync, rename, unlink or directory sync failed
    NO_SPACE = 81  # the next log segment cannot be made at start
    LOG_DAMAGED = 82  # bad frame with valid ones behind it, or a missing segment
    HARD_STATE_LOST = 83  # no trustworthy copy of term and vote
    STORES_DISAGREE = 84  # SQL ahead of log, guard missed, second writer, generation missing
    WRONG_IDENTITY = 85  # cluster, member or store id differs
    TOO_NEW = 86  # format, entry kind or cluster version above this program
    WENT_BACK = 87  # a peer proves that this member acknowledged more than it holds
    REMOVED = 88  # this member was removed from the cluster
    STALLED = 89  # event loop silent for ten election timeouts
    INVARIANT = 90  # an ensure() failed
    DIVERGED = 91  # result digest differs from a majority
    MEMORY = 92  # hard memory limit passed


class InvariantViolationError(Exception):
    """A bug in this program, not in a request. Only the supervisor sees it and stops the member."""


def ensure(condition: object, what: str) -> None:
    """An ``assert`` that ``python -O`` cannot remove.

    Raises:
        InvariantViolationError: ``condition`` is falsy.
    """
    if not condition:
        raise InvariantViolationError(what)


class ConfigServiceError(Exception):
    """Root of every error raised on purpose."""


class FatalError(ConfigServiceError):
    """The world is in a state in which this member must not go on.

    ``remedy`` is the one line an operator needs next; it is printed after the message.
    """

    def __init__(self, code: ExitCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


class ConfigError(FatalError):
    """A setting, file mode or key that cannot be used; exit 78, nothing was touched."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(ExitCode.CONFIG, message, remedy)


class DecodeError(ConfigServiceError):
    """Bytes from outside (peer, disk, client) that do not mean what they must."""


class RequestError(ConfigServiceError):
    """A request that is refused; ``str()`` is the text that the client gets."""

    text: ClassVar[str] = ""

    # What its record in the audit log says besides the text; never shown to the client.
    recorded = False  # it has a record already
    rule = ""  # that decided
    detail = ""  # the exact reason, a text of ours
    about: object = None  # audit.record.Resource

    def __init__(self, text: str | None = None) -> None:
        super().__init__(self.text if text is None else text)


class EtcdError(RequestError):
    """A refusal whose text and code are etcd's."""


# --- KV and MVCC ---------------------------------------------------------------------


class EmptyKeyError(EtcdError):
    text = "etcdserver: key is not provided"


class KeyNotFoundError(EtcdError):
    text = "etcdserver: key not found"


class ValueProvidedError(EtcdError):
    text = "etcdserver: value is provided"


class LeaseProvidedError(EtcdError):
    text = "etcdserver: lease is provided"


class TooManyOpsError(EtcdError):
    text = "etcdserver: too many operations in txn request"


class DuplicateKeyError(EtcdError):
    text = "etcdserver: duplicate key given in txn request"


class InvalidSortOptionError(EtcdError):
    text = "etcdserver: invalid sort option"


class CompactedError(EtcdError):
    text = "etcdserver: mvcc: required revision has been compacted"


class FutureRevError(EtcdError):
    text = "etcdserver: mvcc: required revision is a future revision"


class NoSpaceError(EtcdError):
    text = "etcdserver: mvcc: database space exceeded"


# --- Lease and watch -----------------------------------------------------------------


class LeaseNotFoundError(EtcdError):
    text = "etcdserver: requested lease not found"


class LeaseExistError(EtcdError):
    text = "etcdserver: lease already exists"


class LeaseTTLTooLargeError(EtcdError):
    text = "etcdserver: too large lease TTL"


class WatchCanceledError(EtcdError):
    text = "etcdserver: watch canceled"


# --- Cluster -------------------------------------------------------------------------


class MemberExistError(EtcdError):
    text = "etcdserver: member ID already exist"


class PeerURLExistError(EtcdError):
    text = "etcdserver: Peer URLs already exists"


class MemberNotEnoughStartedError(EtcdError):
    text = "etcdserver: re-configuration failed due to not enough started members"


class MemberBadURLsError(EtcdError):
    text = "etcdserver: given member URLs are invalid"


class MemberNotFoundError(EtcdError):
    text = "etcdserver: member not found"


class MemberNotLearnerError(EtcdError):
    text = "etcdserver: can only promote a learner member"


class LearnerNotReadyError(EtcdError):
    text = "etcdserver: can only promote a learner member which is in sync with leader"


class TooManyLearnersError(EtcdError):
    text = "etcdserver: too many learner members in cluster"


class ClusterIDMismatchError(EtcdError):
    text = "etcdserver: cluster ID mismatch"


class UnhealthyError(EtcdError):
    text = "etcdserver: unhealthy cluster"


# --- Auth ----------------------------------------------------------------------------


class RootUserNotExistError(EtcdError):
    text = "etcdserver: root user does not exist"


class RootRoleNotExistError(EtcdError):
    text = "etcdserver: root user does not have root role"


class UserAlreadyExistError(EtcdError):
    text = "etcdserver: user name already exists"


class UserEmptyError(EtcdError):
    text = "etcdserver: user name is empty"


class UserNotFoundError(EtcdError):
    text = "etcdserver: user name not found"


class RoleAlreadyExistError(EtcdError):
    text = "etcdserver: role name already exists"


class RoleNotFoundError(EtcdError):
    text = "etcdserver: role name not found"


class RoleEmptyError(EtcdError):
    text = "etcdserver: role name is empty"


class AuthFailedError(EtcdError):
    text = "etcdserver: authentication failed, invalid user ID or password"


class PermissionNotGivenError(EtcdError):
    text = "etcdserver: permission not given"


class PermissionDeniedError(EtcdError):
    text = "etcdserver: permission denied"


class RoleNotGrantedError(EtcdError):
    text = "etcdserver: role is not granted to the user"


class PermissionNotGrantedError(EtcdError):
    text = "etcdserver: permission is not granted to the role"


class AuthNotEnabledError(EtcdError):
    text = "etcdserver: authentication is not enabled"


class InvalidAuthTokenError(EtcdError):
    text = "etcdserver: invalid auth token"


class InvalidAuthMgmtError(EtcdError):
    text = "etcdserver: invalid auth management"


class AuthOldRevisionError(EtcdError):
    text = "etcdserver: revision of auth store is old"


# --- Request, leadership and server state --------------------------------------------


class RequestTooLargeError(EtcdError):
    text = "etcdserver: request is too large"


class RequestTooManyRequestsError(EtcdError):
    text = "etcdserver: too many requests"


class InvalidClientAPIVersionError(EtcdError):
    text = "etcdserver: invalid client api version"


class NoLeaderError(EtcdError):
    text = "etcdserver: no leader"


class NotLeaderError(EtcdError):
    text = "etcdserver: not leader"


class LeaderChangedError(EtcdError):
    text = "etcdserver: leader changed"


class NotCapableError(EtcdError):
    text = "etcdserver: not capable"


class StoppedError(EtcdError):
    text = "etcdserver: server stopped"


class RequestTimeoutError(EtcdError):
    text = "etcdserver: request timed out"


class TimeoutDueToLeaderFailError(EtcdError):
    text = "etcdserver: request timed out, possibly due to previous leader failure"


class TimeoutDueToConnectionLostError(EtcdError):
    text = "etcdserver: request timed out, possibly due to connection lost"


class TimeoutWaitAppliedIndexError(EtcdError):
    text = "etcdserver: request timed out, waiting for the applied index took too long"


class CorruptError(EtcdError):
    text = "etcdserver: corrupt cluster"


class NotSupportedForLearnerError(EtcdError):
    text = "etcdserver: rpc not supported for learner"


class BadLeaderTransfereeError(EtcdError):
    text = "etcdserver: bad leader transferee"


class CanceledError(EtcdError):
    text = "etcdserver: request canceled"


class DeadlineExceededError(EtcdError):
    text = "etcdserver: context deadline exceeded"


# --- Downgrade -----------------------------------------------------------------------


class WrongDowngradeVersionFormatError(EtcdError):
    text = "etcdserver: wrong downgrade target version format"


class InvalidDowngradeTargetVersionError(EtcdError):
    text = "etcdserver: invalid downgrade target version"


class ClusterVersionUnavailableError(EtcdError):
    text = "etcdserver: cluster version not found during downgrade"


class DowngradeInProcessError(EtcdError):
    text = "etcdserver: cluster has a downgrade job in progress"


class NoInflightDowngradeError(EtcdError):
    text = "etcdserver: no inflight downgrade job"


# --- ours ---------------------------------------------------------------------------------------


class AuthDisableRefusedError(RequestError):
    text = "configsvc: authentication cannot be switched off"


class CertificateNotAcceptableError(RequestError):
    text = "certificate not acceptable"


class AuditUnavailableError(RequestError):
    text = "audit log unavailable"


class OverloadedError(RequestError):
    text = "configsvc: too many requests in flight"


class InvalidArgumentError(RequestError):
    """A field that cannot be used; the text names the field and never echoes its value."""


class PolicyInvalidError(RequestError):
    """A policy bundle that was refused; the text names file, line and element."""


class ConflictError(RequestError):
    """A guarded change found other state than it named (rollback, policy version)."""


class NotFoundError(RequestError):
    """Something asked for by name or number does not exist."""


class UnimplementedError(RequestError):
    text = "unknown method"


class InternalFailureError(RequestError):
    """What a client is told about a bug of ours: only the id under which it was logged."""


class ElectionError(RequestError):
    """A refusal of the lock and election services, which etcd sends as Unknown."""
