"""What a client is made with, and the metadata that its calls carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from configsvc import limits
from configsvc.client.endpoints import Endpoint
from configsvc.client.tls import TlsFiles
from configsvc.errors import InvalidArgumentError

Metadata = tuple[tuple[str, str | bytes], ...]

NO_TLS: Final = TlsFiles("", "", "")


class Why(NamedTuple):
    """Why a change is made; kept with it for ever."""

    reason: str = ""
    ticket: str = ""


class Login(NamedTuple):
    """A user name and where its password comes from; asked for again when a token ran out."""

    user: str
    password: Callable[[], str]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to reach a cluster and as whom. Nothing secret shows in its ``repr``."""

    endpoints: tuple[Endpoint, ...]
    tls: TlsFiles = NO_TLS
    timeout_s: float = limits.CLIENT_TIMEOUT_S  # per call, all attempts together
    token: str = field(default="", repr=False)  # a token from elsewhere
    login: Login | None = field(default=None, repr=False)
    require_leader: bool = False  # a member without leader refuses instead of waiting
    open_channel: Callable[[Endpoint], Any] | None = field(default=None, repr=False)  # tests only


def _checked(text: str, what: str) -> str:
    if len(text) > limits.REASON_CHARS_MAX:
        raise InvalidArgumentError(f"{what} is longer than {limits.REASON_CHARS_MAX} characters")
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise InvalidArgumentError(f"{what} holds control characters")
    return text


def metadata_of(why: Why, token: str, *, require_leader: bool) -> Metadata:
    """Metadata of one call.

    Raises:
        InvalidArgumentError: reason or ticket is too long or holds control characters.
    """
    found: list[tuple[str, str | bytes]] = []
    if token:
        found.append(("token", token))
    if why.reason:
        found.append(("x-change-reason-bin", _checked(why.reason, "reason").encode()))
    if why.ticket:
        found.append(("x-change-ticket-bin", _checked(why.ticket, "ticket").encode()))
    if require_leader:
        found.append(("hasleader", "true"))
    return tuple(found)
