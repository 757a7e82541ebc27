"""Tokens: EdDSA JWTs, bound to the certificate they were issued to (security.md 3.4).

The library checks the signature and nothing of what matters is left to its policy: header, claims
and types are judged here, all of them (JWT-12). Who the user is now, what is revoked, and which
rights count is state, and judged where the request is decided.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from configsvc.errors import ConfigError, ConfigServiceError
from configsvc.identity.errors import InvalidToken
from configsvc.identity.files import PRIVATE, read_file, write_file
from configsvc.limits import TOKEN_BYTES_MAX, TOKEN_LEEWAY_S, TOKEN_TTL_S_MAX

TYPE: Final = "configsvc-at+jwt"
ALGORITHM: Final = "EdDSA"
CLAIMS: Final = frozenset({"iss", "aud", "sub", "uid", "cid", "arev", "iat", "nbf", "exp", "jti"})
_KID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_HEX32 = re.compile(r"[0-9a-f]{32}")
_SUBJECT = re.compile(r"((agent|service)/)?[a-z0-9][a-z0-9._-]{0,62}")
_SUBJECT_CHARS_MAX: Final = 252  # of a user in a store born under --insecure-dev
_PART = re.compile(r"[A-Za-z0-9_-]+")


class TokenKeyPublic(NamedTuple):
    """A public key and whether tokens it signed are accepted."""

    key: Ed25519PublicKey
    accepted: bool


TokenKeys = Mapping[str, TokenKeyPublic]


def is_token_id(text: str) -> bool:
    """Whether ``text`` can be a token's ``jti``: 128 bits in lower-case hex."""
    return _HEX32.fullmatch(text) is not None


def is_key_id(text: str) -> bool:
    """Whether ``text`` can be a token key's ``kid`` (JWT-2)."""
    return _KID.fullmatch(text) is not None


class TokenClaims(NamedTuple):
    """What a good token says. Everything about it that is state is still to be judged."""

    sub: str
    uid: str
    cid: str
    arev: int
    jti: str
    kid: str
    exp: int


class KeySeal(Protocol):
    """What seals a key file at rest; ``storage.seal.KeyFile`` is one."""

    def wrap(self, seed: bytes, aad: bytes) -> bytes: ...

    def unwrap(self, blob: bytes, aad: bytes) -> bytes: ...


class TokenKey:
    """A member's own signing key: made in place, never replicated or backed up (JWT-8)."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_bytes = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        digest = base64.urlsafe_b64encode(self.public_bytes).decode().rstrip("=")
        self.kid = digest[:22]

    def __repr__(self) -> str:
        return f"TokenKey(kid={self.kid})"

    def sign(self, data: bytes) -> bytes:
        """Raw Ed25519 signature."""
        return self._private.sign(data)

    @property
    def private(self) -> Ed25519PrivateKey:
        return self._private

    @classmethod
    def generate(cls) -> TokenKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str], seal: KeySeal) -> TokenKey:
        """The key in a sealed file of mode 0600, made on first use.

        Raises:
            ConfigError: the file does not open under this member's key; exit 78.
        """
        where = Path(path)
        if not where.exists():
            made = cls.generate()
            raw = made._private.private_bytes_raw()
            write_file(where, seal.wrap(raw, where.name.encode()), PRIVATE)
            return made
        try:
            raw = seal.unwrap(read_file(where), where.name.encode())
            return cls(Ed25519PrivateKey.from_private_bytes(raw))
        except ConfigError:
            raise
        except (ConfigServiceError, ValueError):
            raise ConfigError(
                f"{where}: does not open under this member's key", "name the right key file"
            ) from None


def public_key(raw: bytes, *, accepted: bool) -> TokenKeyPublic:
    """A replicated public key. Raises ``ValueError`` when it is none."""
    return TokenKeyPublic(Ed25519PublicKey.from_public_bytes(raw), accepted)


def mint(
    key: TokenKey,
    *,
    iss: str,
    aud: str,
    sub: str,
    uid: str,
    cid: str,
    arev: int,
    now: int,
    ttl: int,
) -> str:
    """A token for user ``sub``, usable only over a connection of certificate ``cid``."""
    claims = {
        "iss": iss,
        "aud": aud,
        "sub": sub,
        "uid": uid,
        "cid": cid,
        "arev": arev,
        "iat": now,
        "nbf": now,
        "exp": now + min(ttl, TOKEN_TTL_S_MAX),
        "jti": os.urandom(16).hex(),
    }
    return jwt.encode(
        claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid, "typ": TYPE}
    )


def verify(token: str, keys: TokenKeys, *, iss: str, aud: str, cid: str, now: int) -> TokenClaims:
    """Judge a token's form, signature, lifetime and binding (JWT-1 to JWT-5).

    Raises:
        InvalidToken: anything is other than exactly as minted by a member.
    """
    try:
        return _verify(token, keys, iss, aud, cid, now)
    except InvalidToken:
        raise
    except Exception as error:  # noqa: BLE001  # any doubt in authentication means no (FC-6)
        raise InvalidToken(f"token cannot be judged: {type(error).__name__}") from None


def _verify(token: str, keys: TokenKeys, iss: str, aud: str, cid: str, now: int) -> TokenClaims:
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise InvalidToken("token is too long or not ASCII")
    parts = token.split(".", 3)
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidToken("token has not three plain parts")
    header = _strict_object(parts[0])
    if set(header) != {"alg", "kid", "typ"}:
        raise InvalidToken("token header has other members than alg, kid, typ")
    kid = header["kid"]
    if header["alg"] != ALGORITHM or header["typ"] != TYPE:
        raise InvalidToken("token of another algorithm or type")
    if type(kid) is not str or not _KID.fullmatch(kid):
        raise InvalidToken("token names no usable key")
    known = keys.get(kid)
    if known is None or not known.accepted:
        raise InvalidToken("token of an unknown key")
    claims = _strict_object(parts[1])
    jwt.decode(
        token,
        known.key,
        algorithms=[ALGORITHM],
        audience=aud,
        issuer=iss,
        leeway=TOKEN_LEEWAY_S,
        options={
            "require": sorted(CLAIMS - {"uid", "cid", "arev"}),
            "strict_aud": True,
            "verify_exp": False,  # judged below, against the caller's clock
            "verify_nbf": False,
            "verify_iat": False,
            "enforce_minimum_key_length": True,
        },
    )
    return _judge(claims, kid, iss, aud, cid, now)


def _judge(c: dict[str, Any], kid: str, iss: str, aud: str, cid: str, now: int) -> TokenClaims:
    if set(c) != CLAIMS:
        raise InvalidToken("token has other claims than ours")
    for name in ("iat", "nbf", "exp", "arev"):
        if type(c[name]) is not int or not 0 <= c[name] < 1 << 53:
            raise InvalidToken(f"claim {name} is not a plain number")
    for name in CLAIMS - {"iat", "nbf", "exp", "arev"}:
        if type(c[name]) is not str:
            raise InvalidToken(f"claim {name} is not a string")
    if c["iss"] != iss or c["aud"] != aud:
        raise InvalidToken("token of another issuer or audience")
    if c["cid"] != cid:
        raise InvalidToken("token was issued to another certificate")
    if not _is_subject(c["sub"], cid) or not _HEX32.fullmatch(c["jti"]):
        raise InvalidToken("subject or token id does not match its grammar")
    if not _HEX32.fullmatch(c["uid"]):
        raise InvalidToken("uid does not match its grammar")
    if not 0 < c["exp"] - c["iat"] <= TOKEN_TTL_S_MAX:
        raise InvalidToken("token lives too long")
    if c["iat"] > now + TOKEN_LEEWAY_S or c["nbf"] > now + TOKEN_LEEWAY_S:
        raise InvalidToken("token is from the future")
    if now >= c["exp"] + TOKEN_LEEWAY_S:
        raise InvalidToken("token has run out")
    return TokenClaims(c["sub"], c["uid"], c["cid"], c["arev"], c["jti"], kid, c["exp"])


def _is_subject(text: str, cid: str) -> bool:
    if _SUBJECT.fullmatch(text):
        return True
    # Without a certificate, that is under --insecure-dev, users are called as etcd allows.
    return not cid and 0 < len(text) <= _SUBJECT_CHARS_MAX and text.isprintable()


def _strict_object(part: str) -> dict[str, Any]:
    """A JSON object without duplicate members, floats or nesting, from unpadded base64url."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise InvalidToken("token part is not base64url") from None
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != part:
        raise InvalidToken("token part is not canonical base64url")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise InvalidToken("token has a member twice")
        return out

    text = raw.decode("utf-8")  # bytes would be taken as UTF-16 or 32 as well
    found = json.loads(text, object_pairs_hook=members, parse_float=_no, parse_constant=_no)
    if type(found) is not dict or any(type(v) not in (str, int) for v in found.values()):
        raise InvalidToken("token part is not a flat object")
    return found


def _no(_: str) -> Any:
    raise InvalidToken("token holds a number that is no whole number")
