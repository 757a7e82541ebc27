"""HTTP header fields into the metadata of a call (GW-3).

A closed list passes. Of ``Grpc-Metadata-X`` only names that raise no privilege become metadata X;
a token there, or in a field ``token``, is never an identity: it may only repeat what
``Authorization`` says (ID-6).
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Final, NamedTuple

from configsvc.errors import InvalidArgumentError, InvalidAuthTokenError

Fields = tuple[tuple[bytes, bytes], ...]

_AS_THEY_ARE: Final = frozenset((b"authorization", b"user-agent"))
_FOREIGN_GATEWAY: Final = b"grpcgateway-"  # says that the certificate is a gateway's (ID-7)
_PREFIX: Final = b"grpc-metadata-"
_ALLOWED: Final = frozenset(
    (b"hasleader", b"client-api-version", b"x-change-reason", b"x-change-ticket")
)
_TOKENS: Final = frozenset((b"token", b"authorization"))
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Metadata(NamedTuple):
    """What a request's header says to the API."""

    timeout: float | None  # seconds; None without one
    fields: Fields  # names lower-case, ``-bin`` values decoded


def metadata_of(headers: Fields) -> Metadata:
    """Pick what passes.

    Raises:
        InvalidArgumentError: a timeout or binary value that cannot be read.
        InvalidAuthTokenError: a second token that differs from ``Authorization``.
    """
    timeout = None
    passed: list[tuple[bytes, bytes]] = []
    tokens: list[bytes] = []
    for name, value in headers:
        if name in _AS_THEY_ARE or name.startswith(_FOREIGN_GATEWAY):
            passed.append((name, value))
        elif name == b"grpc-timeout":
            timeout = _seconds(value)
        elif name == b"token":
            tokens.append(value)
        elif name.startswith(_PREFIX):
            inner = name[len(_PREFIX) :]
            if inner in _TOKENS:
                tokens.append(value)
            elif inner in _ALLOWED:
                passed.append((inner, value))
            elif inner.removesuffix(b"-bin") in _ALLOWED:
                passed.append((inner, _binary(value)))
    if tokens:
        own = [_bare(value) for name, value in passed if name == b"authorization"]
        if len(own) != 1 or any(_bare(token) != own[0] for token in tokens):
            raise InvalidAuthTokenError
    return Metadata(timeout, tuple(passed))


def _bare(token: bytes) -> bytes:
    return token.removeprefix(b"Bearer ")


def _seconds(value: bytes) -> float:
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise InvalidArgumentError("Grpc-Timeout: a number and one of H M S m u n is expected")
    return int(found[1]) * _UNIT_S[found[2]]


def _binary(value: bytes) -> bytes:
    value = value.strip(b" \t")
    try:
        return a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True) if value else b""
    except Base64Error:
        raise InvalidArgumentError("Grpc-Metadata: a -bin value is not base64") from None
