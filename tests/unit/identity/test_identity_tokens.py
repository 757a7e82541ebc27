"""JWT-1 to JWT-5, JWT-12: tokens as minted, and the key file behind them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import jwt
import pytest

from configsvc.errors import ConfigError
from configsvc.identity.errors import InvalidToken
from configsvc.identity.tokens import (
    CLAIMS,
    TokenClaims,
    TokenKey,
    TokenKeys,
    mint,
    public_key,
    verify,
)
from configsvc.limits import TOKEN_BYTES_MAX
from configsvc.storage.seal.keyfile import KeyFile

NOW = 1_800_000_000
ISS = "spiffe://test.example/cluster/00000000000000c1"
AUD = "00000000000000c1"
CID = "spiffe://test.example/user/alice"
UID = "ab" * 16
KEY = TokenKey.generate()
KEYS: TokenKeys = {KEY.kid: public_key(KEY.public_bytes, accepted=True)}


def token(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "iss": ISS, "aud": AUD, "sub": "alice", "uid": UID, "cid": CID, "arev": 7, "now": NOW,
        "ttl": 300,
    }  # fmt: skip
    return mint(KEY, **{**fields, **changes})


def judge(text: str, *, keys: TokenKeys = KEYS, cid: str = CID, now: int = NOW) -> TokenClaims:
    return verify(text, keys, iss=ISS, aud=AUD, cid=cid, now=now)


def raw(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A well-signed token with claims of our choosing; None drops one."""
    good = {
        "iss": ISS, "aud": AUD, "sub": "alice", "uid": UID, "cid": CID, "arev": 7, "iat": NOW,
        "nbf": NOW, "exp": NOW + 300, "jti": "cd" * 16, **claims,
    }  # fmt: skip
    return jwt.encode(
        {name: value for name, value in good.items() if value is not None},
        KEY.private,
        algorithm="EdDSA",
        headers={"kid": KEY.kid, "typ": "configsvc-at+jwt", **(header or {})},
    )


def test_what_is_minted_is_good() -> None:
    claims = judge(token())
    assert claims._replace(jti="") == TokenClaims("alice", UID, CID, 7, "", KEY.kid, NOW + 300)
    assert len(claims.jti) == 32
    assert judge(token()).jti != claims.jti
    assert len(token()) < TOKEN_BYTES_MAX / 4


def test_raw_is_good_until_something_is_changed() -> None:
    assert judge(raw()).sub == "alice"
    assert judge(raw(sub="agent/node-1")).sub == "agent/node-1"


@pytest.mark.parametrize("ttl", [3_600, 10**9])
def test_nothing_outlives_the_maximum(ttl: int) -> None:
    assert judge(token(ttl=ttl)).exp == NOW + 3_600


@pytest.mark.parametrize(
    ("offset", "good"),
    [(-6, False), (-5, True), (0, True), (299, True), (304, True), (305, False), (10**9, False)],
)
def test_lifetime_with_leeway(offset: int, good: bool) -> None:
    text = token()
    if good:
        judge(text, now=NOW + offset)
    else:
        with pytest.raises(InvalidToken):
            judge(text, now=NOW + offset)


@pytest.mark.parametrize(
    "claims",
    [
        *({name: None} for name in sorted(CLAIMS)),
        {"role": "root"},
        {"iss": ISS[:-1]}, {"iss": ISS + "0"}, {"iss": [ISS]},
        {"aud": AUD[:-1]}, {"aud": [AUD]}, {"aud": [AUD, "other"]},
        {"cid": "spiffe://test.example/user/bob"}, {"cid": ""},
        {"sub": "Alice"}, {"sub": ""}, {"sub": "a/b/c"}, {"sub": "root\u0000"}, {"sub": 7},
        {"sub": "\ud800"}, {"sub": "server/a"},
        {"uid": UID[:-1]}, {"uid": UID.upper()}, {"uid": ""},
        {"jti": "cd"}, {"jti": 7},
        {"arev": True}, {"arev": "7"}, {"arev": 7.0}, {"arev": -1}, {"arev": 2**53},
        {"exp": True}, {"exp": str(NOW + 300)}, {"exp": NOW + 300.5}, {"exp": 10**30},
        {"exp": NOW + 3_601}, {"exp": NOW + 315_000_000}, {"exp": NOW}, {"exp": NOW - 1},
        {"iat": NOW + 6, "exp": NOW + 300}, {"iat": 0}, {"iat": float(NOW)},
        {"nbf": NOW + 6}, {"nbf": None},
        {"sub": {"a": 1}}, {"sub": ["alice"]},
    ],
    ids=str,
)  # fmt: skip
def test_claims_are_exact(claims: dict[str, Any]) -> None:
    try:
        text = raw(**claims)
    except (TypeError, UnicodeEncodeError):
        return  # the library does not even make one
    with pytest.raises(InvalidToken):
        judge(text)


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"}, {"typ": None}, {"typ": "at+jwt"}, {"typ": "CONFIGSVC-AT+JWT"},
        {"kid": "short"}, {"kid": None}, {"kid": "../../etc/passwd"}, {"kid": "' or 1=1 --aaa"},
        {"kid": "A" * 22}, {"kid": "A" * 65},
        {"jku": "https://evil.example/keys"}, {"jwk": {"kty": "OKP"}}, {"x5u": "https://e"},
        {"crit": []}, {"crit": ["b64"], "b64": False}, {"cty": "JWT"},
    ],
    ids=str,
)  # fmt: skip
def test_headers_are_exact(header: dict[str, Any]) -> None:
    try:
        text = raw(header)
    except (TypeError, ValueError, jwt.PyJWTError):
        return
    with pytest.raises(InvalidToken):
        judge(text)


def test_a_key_that_is_unknown_or_removed() -> None:
    with pytest.raises(InvalidToken):
        judge(token(), keys={})
    with pytest.raises(InvalidToken):
        judge(token(), keys={KEY.kid: public_key(KEY.public_bytes, accepted=False)})
    other = TokenKey.generate()
    with pytest.raises(InvalidToken):
        judge(token(), keys={KEY.kid: public_key(other.public_bytes, accepted=True)})


def test_without_a_certificate_users_are_called_as_etcd_allows() -> None:
    text = token(cid="", sub="Some User")
    assert judge(text, cid="").sub == "Some User"
    with pytest.raises(InvalidToken):
        judge(text)
    with pytest.raises(InvalidToken):
        judge(token(cid="", sub="a\nb"), cid="")
    with pytest.raises(InvalidToken):
        judge(token(cid="", sub="x" * 253), cid="")


def test_keys_survive_in_their_sealed_file(tmp_path: Path) -> None:
    seal = KeyFile.create(tmp_path / "kek")
    where = tmp_path / "token.key"
    made = TokenKey.load_or_create(where, seal)
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    assert made.private.private_bytes_raw() not in where.read_bytes()
    assert TokenKey.load_or_create(where, seal).kid == made.kid
    assert made.public_bytes.hex() not in repr(made)
    with pytest.raises(ConfigError):
        TokenKey.load_or_create(where, KeyFile.create(tmp_path / "other"))
    # Bound to its name: a copy in the place of another key is not that key.
    (tmp_path / "log.key").write_bytes(where.read_bytes())
    with pytest.raises(ConfigError):
        TokenKey.load_or_create(tmp_path / "log.key", seal)
