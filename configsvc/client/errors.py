"""What a call can fail with, seen from the client.

A status becomes a typed error by its text first and by its code second, as etcd's own clients do.
``RequestError`` (from ``configsvc.errors``) is a member's refusal: it was judged and not done.
``ClientError`` is everything that happened on the way.

Always true:
  * ``OutcomeUnknownError`` is raised for writes only, and means: look before you do it again.
  * A write that fails with anything else was not done.

Not here: when a call is tried again (``client.retry``).
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from configsvc import errors
from configsvc.errors import ConfigServiceError, RequestError


class ClientError(ConfigServiceError):
    """A failure that is no member's refusal."""


class UnavailableError(ClientError):
    """No member answered in time; if the call was a write, it was never sent."""


class OutcomeUnknownError(ClientError):
    """A write was sent and its answer is missing: it may have happened or may yet happen."""


class EndpointError(ClientError):
    """An endpoint, TLS file or token that cannot be used; nothing was sent."""


class LeaseLostError(ClientError):
    """A lease that was to be kept alive is gone, or may be: its holder must stop acting."""


class WatchCompactedError(errors.CompactedError):
    """The revision to resume from is gone; ``compact_revision`` is the first that remains."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__()
        self.compact_revision = compact_revision


class UnauthenticatedError(RequestError):
    """The member does not accept this identity."""


class RefusedError(RequestError):
    """A refusal with a code and text that this client has no type for; ``code`` is gRPC's name."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code


class Failure(NamedTuple):
    """How one attempt ended."""

    code: str  # gRPC's name, as "UNAVAILABLE"
    text: str
    endpoint: str  # as the user wrote it
    sent: bool  # False: the request certainly never left


# What the library says when it writes to a stream that the member ended: its status came too late.
_ENDED_MEANWHILE: Final = "Internal error from Core"
_NOT_SENT: Final = re.compile(r"failed to connect to all addresses|dns resolution failed", re.I)
_REASON: Final = re.compile(r"rpc error: code = (\w+) desc = (.*)", re.S)
_CONNECT_CAUSE: Final = re.compile(r"failed to connect to all addresses; last error: (.*)", re.S)

# What TLS failed for, in its own words and in ours; the first that fits.
CERTIFICATE_REFUSED: Final = "it does not take this client's certificate"
_TLS_CAUSES: Final = (
    ("TSI_DATA_CORRUPTED", f"{CERTIFICATE_REFUSED}: expired, of another authority, or none"),
    (
        "VERIFY_FAILED: certificate has expired",
        "its certificate has expired, or the clock is wrong",
    ),
    (
        "VERIFY_FAILED: certificate is not yet valid",
        "its certificate is not valid yet: see the clock",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate was not issued by the given CA bundle"),
    ("Hostname Verification Check failed", "its certificate is not for this host name"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
)

# Codes under which a write that was sent may have happened.
DOUBTFUL: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
# Texts under such a code that are refusals all the same: judged before anything was proposed.
_CERTAIN: Final = (errors.NoLeaderError, errors.UnhealthyError)

_BY_CODE: Final[dict[str, type[RequestError]]] = {
    "CANCELLED": errors.CanceledError,
    "INVALID_ARGUMENT": errors.InvalidArgumentError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "NOT_FOUND": errors.NotFoundError,
    "PERMISSION_DENIED": errors.PermissionDeniedError,
    "RESOURCE_EXHAUSTED": errors.OverloadedError,
    "FAILED_PRECONDITION": errors.ConflictError,
    "ABORTED": errors.ConflictError,
    "UNIMPLEMENTED": errors.UnimplementedError,
    "INTERNAL": errors.InternalFailureError,
    "DATA_LOSS": errors.CorruptError,
    "UNAUTHENTICATED": UnauthenticatedError,
}


def _texts(root: type[RequestError]) -> dict[str, type[RequestError]]:
    table: dict[str, type[RequestError]] = {}
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            if kind.text:
                table[kind.text] = kind
            table.update(_texts(kind))
    return table


BY_TEXT: Final = _texts(RequestError)


def refusal(code: str, text: str) -> RequestError:
    """The typed error of a status: by text, then by code."""
    kind = BY_TEXT.get(text)
    if kind is not None:
        return kind()
    by_code = _BY_CODE.get(code)
    return by_code(text or code) if by_code is not None else RefusedError(code, text)


def cancel_error(reason: str) -> RequestError:
    """The typed error of a watch's ``cancel_reason``."""
    match = _REASON.fullmatch(reason)
    if match is None:
        return refusal("CANCELLED", reason or errors.WatchCanceledError.text)
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", match[1]).upper()
    return refusal(code, match[2])


def failure_of(error: Any, endpoint: str) -> Failure:
    """Read a ``grpc.RpcError``; never keeps metadata, which may hold a token."""
    code = error.code()
    text = error.details() or ""
    name = code.name if code is not None else "UNKNOWN"
    if text == _ENDED_MEANWHILE:
        return Failure("UNAVAILABLE", "the member ended the call", endpoint, True)
    return Failure(name, text, endpoint, not (name == "UNAVAILABLE" and _NOT_SENT.search(text)))


def explain(failure: Failure) -> str:
    """One line for people: which endpoint, and what the transport said about it."""
    text = failure.text
    cause = _CONNECT_CAUSE.search(text)
    if cause is not None:
        text = cause[1].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")
        text = next((said for mark, said in _TLS_CAUSES if mark in text), text)
    return f"{failure.endpoint}: {' '.join(text.split()) or failure.code}"


def error_of(failure: Failure, *, write: bool) -> ConfigServiceError:
    """What the caller gets for a failure that is not tried again."""
    if not failure.sent:
        return UnavailableError(explain(failure))
    known = BY_TEXT.get(failure.text)
    if write and failure.code in DOUBTFUL and known not in _CERTAIN:
        return OutcomeUnknownError(explain(failure))
    if known is not None:
        return known()
    if failure.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return UnavailableError(explain(failure))
    return refusal(failure.code, failure.text)
