"""etcd's JWTs, for members under --insecure-dev only (A17): ``--auth-token=jwt,...``.

One algorithm, named by the member's settings and never by the token. Keys are read once, at the
start; with a public key only the member takes tokens and gives out none. A token names a user and
the auth revision it was made at; whether that revision still counts is judged where keys are
touched (``auth.standing``).

Not here: simple tokens (``etcd_tokens``), the tokens of a secure member (``tokens``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from configsvc.auth.messages import User
from configsvc.auth.standing import ETCD_JWT
from configsvc.auth.state import AuthState
from configsvc.config import parse_duration
from configsvc.errors import ConfigError, InvalidArgumentError
from configsvc.identity.errors import InvalidToken
from configsvc.identity.etcd_tokens import Bearer, digest
from configsvc.identity.files import read_file
from configsvc.limits import TOKEN_BYTES_MAX

KIND: Final = "jwt"
NOBODY: Final = "0" * 32  # uid of no user
TTL_S: Final = 300.0
VERIFY_ONLY: Final = "auth: token signing attempted with verify-only key"
_OPTIONS: Final = frozenset({"sign-method", "pub-key", "priv-key", "ttl"})
_HMAC_BYTES_MIN: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 3.2
_RSA_BITS_MIN: Final = 2048
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
METHODS: Final = _RSA | set(_CURVES) | set(_HMAC_BYTES_MIN) | {"EdDSA"}
_NUMBER_MAX: Final = 1 << 53
_HINT: Final = "jwt,sign-method=RS256,pub-key=<file>,priv-key=<file>,ttl=5m"


class _Keys(NamedTuple):
    private: Any  # None: verify only
    public: Any


class EtcdJwts:
    """JWTs of one member: made with its private key, good on every member with the public one."""

    def __init__(self, options: str) -> None:
        """``options``: what follows ``jwt,``.

        Raises:
            ConfigError: 78, an option or a key file that cannot be used.
        """
        given = _parsed(options)
        self._method = given.get("sign-method", "")
        if self._method not in METHODS:
            raise ConfigError(
                f"--auth-token: sign-method={self._method[:20]!r} is none",
                f"use one of {', '.join(sorted(METHODS))}",
            )
        ttl_s = parse_duration(given["ttl"], "auth-token") if "ttl" in given else TTL_S
        self._ttl_s = max(1, int(ttl_s))
        self._keys = _read_keys(self._method, given)

    def assign(self, auth: AuthState, user: User, index: int, now_ns: int) -> str:
        """See ``EtcdTokens``."""
        del index
        if self._keys.private is None:
            raise InvalidArgumentError(VERIFY_ONLY)
        claims = {
            "username": user.name,
            "revision": auth.revision,
            "exp": now_ns // 1_000_000_000 + self._ttl_s,
        }
        return jwt.encode(claims, self._keys.private, algorithm=self._method)

    def index_of(self, token: str) -> int:
        """See ``EtcdTokens``; a JWT names a revision of auth, which is compared at the check."""
        del token
        return 0

    def bearer(self, auth: AuthState, token: str, now_ns: int) -> Bearer:
        """See ``EtcdTokens``."""
        try:
            name, revision = self._verified(token, now_ns // 1_000_000_000)
        except InvalidToken:
            raise
        except Exception as error:  # noqa: BLE001  # any doubt in authentication means no (FC-6)
            raise InvalidToken(f"token cannot be judged: {type(error).__name__}") from None
        user = auth.users.get(name)
        uid = user.uid if user is not None else NOBODY  # told as a user that was deleted
        return Bearer(name, uid, digest(token), ETCD_JWT, revision)

    def _verified(self, token: str, now: int) -> tuple[str, int]:
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidToken("token is too long")
        claims = jwt.decode(
            token,
            self._keys.public,
            algorithms=[self._method],
            options={
                "require": ["exp"],
                "verify_exp": False,  # judged below, against the caller's clock
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
            },
        )
        name, revision = claims.get("username"), claims.get("revision")
        if type(name) is not str or not name or not _is_number(revision):
            raise InvalidToken("token names no user or no revision")
        if not _is_number(claims["exp"]) or now >= claims["exp"]:
            raise InvalidToken("token has run out")
        if "nbf" in claims and (not _is_number(claims["nbf"]) or now < claims["nbf"]):
            raise InvalidToken("token is from the future")
        return name, int(revision)


def _is_number(value: object) -> TypeGuard[int | float]:
    return type(value) in (int, float) and 0 <= value < _NUMBER_MAX  # type: ignore[operator]


def _parsed(options: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in filter(None, options.split(",")):
        name, equals, value = part.partition("=")
        if name not in _OPTIONS or not equals or name in given:
            raise ConfigError(f"--auth-token: option {part[:40]!r} cannot be used", _HINT)
        given[name] = value
    return given


def _read_keys(method: str, given: dict[str, str]) -> _Keys:
    private = _read("priv-key", given)
    public = _read("pub-key", given)
    if method in _HMAC_BYTES_MIN:
        least = _HMAC_BYTES_MIN[method]
        if len(private) < least:
            raise ConfigError(f"--auth-token: {method} needs a priv-key of {least} bytes", _HINT)
        return _Keys(private, private)
    if not private and not public:
        raise ConfigError("--auth-token: needs priv-key, or pub-key to verify only", _HINT)
    secret = _loaded("priv-key", private, method) if private else None
    shown = _loaded("pub-key", public, method) if public else None
    if secret is not None and shown is not None and secret.public_key() != shown:
        raise ConfigError("--auth-token: pub-key and priv-key are no pair", _HINT)
    return _Keys(secret, secret.public_key() if secret is not None else shown)


def _read(option: str, given: dict[str, str]) -> bytes:
    if not given.get(option):
        return b""
    try:
        return read_file(Path(given[option]))
    except ConfigError as error:
        raise ConfigError(f"--auth-token: {option}: {error}", "name a readable file") from None


def _loaded(option: str, pem: bytes, method: str) -> Any:
    """The key in a PEM, of the kind that ``method`` needs."""
    try:
        key: Any = (
            load_pem_public_key(pem)
            if option == "pub-key"
            else load_pem_private_key(pem, password=None)
        )
    except (ValueError, TypeError):
        raise ConfigError(f"--auth-token: {option} is no PEM key without password", _HINT) from None
    if method in _RSA:
        fits = isinstance(key, (RSAPrivateKey, RSAPublicKey)) and key.key_size >= _RSA_BITS_MIN
    elif method in _CURVES:
        fits = (
            isinstance(key, (EllipticCurvePrivateKey, EllipticCurvePublicKey))
            and key.curve.name == _CURVES[method]
        )
    else:
        fits = isinstance(key, (Ed25519PrivateKey, Ed25519PublicKey))
    if not fits:
        raise ConfigError(f"--auth-token: {option} is no key for {method}", _HINT)
    return key
