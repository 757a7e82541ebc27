"""A17: etcd's JWTs: options, keys, claims, and what makes one bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from configsvc.auth.standing import ETCD_JWT, check_principal, check_revision
from configsvc.auth.state import AuthState
from configsvc.config import ServerConfig
from configsvc.errors import (
    AuthOldRevisionError,
    ConfigError,
    ConfigServiceError,
    InvalidArgumentError,
)
from configsvc.identity.errors import InvalidToken
from configsvc.identity.etcd_jwt import EtcdJwts
from configsvc.identity.etcd_tokens import Bearer, SimpleTokens
from configsvc.limits import TOKEN_BYTES_MAX
from configsvc.server.etcd_tokens import open_etcd_tokens
from configsvc.types import KIND_USER, Principal

S = 1_000_000_000
NOW_S = 1_800_000_000
NOW = NOW_S * S
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
MADE: dict[str, Any] = {
    "rsa": RSA_KEY,
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
}
METHODS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "rsa"),
    "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed",
}  # fmt: skip


@pytest.fixture
def auth() -> AuthState:
    state = AuthState()
    state.bootstrap(insecure=True, root_uid="")
    state.user_add("root", "$hash", False, "0a")
    state.user_grant_role("root", "root")
    state.enable()
    return state


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, key in MADE.items():
        (tmp_path / f"{name}.key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (tmp_path / f"{name}.pub").write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
    (tmp_path / "hmac").write_bytes(b"k" * 64)
    return tmp_path


def options(files: Path, method: str, kind: str, *, private: bool = True, more: str = "") -> str:
    secret = f",priv-key={files / kind}.key" if private else ""
    return f"sign-method={method},pub-key={files / kind}.pub{secret}{more}"


def given(auth: AuthState, tokens: EtcdJwts) -> str:
    return tokens.assign(auth, auth.users["root"], 5, NOW)


@pytest.mark.parametrize(("method", "kind"), METHODS.items())
def test_each_method_signs_and_a_public_key_alone_verifies(
    auth: AuthState, files: Path, method: str, kind: str
) -> None:
    token = given(auth, EtcdJwts(options(files, method, kind)))
    other = EtcdJwts(options(files, method, kind, private=False))
    bearer = other.bearer(auth, token, NOW)
    assert bearer == Bearer("root", "0a", bearer.jti, ETCD_JWT, auth.revision)
    with pytest.raises(InvalidArgumentError, match="verify-only"):
        given(auth, other)


@pytest.mark.parametrize("method", ["HS256", "HS384", "HS512"])
def test_a_shared_key_does_both(auth: AuthState, files: Path, method: str) -> None:
    tokens = EtcdJwts(f"sign-method={method},priv-key={files / 'hmac'}")
    assert tokens.bearer(auth, given(auth, tokens), NOW).user == "root"


def test_the_claims_are_etcds(auth: AuthState, files: Path) -> None:
    tokens = EtcdJwts(options(files, "RS256", "rsa", more=",ttl=10m"))
    claims = jwt.decode(given(auth, tokens), options={"verify_signature": False})
    assert claims == {"username": "root", "revision": auth.revision, "exp": NOW_S + 600}
    without = given(auth, EtcdJwts(options(files, "RS256", "rsa")))
    assert jwt.decode(without, options={"verify_signature": False})["exp"] == NOW_S + 300


def test_it_runs_out(auth: AuthState, files: Path) -> None:
    tokens = EtcdJwts(options(files, "RS256", "rsa"))
    token = given(auth, tokens)
    tokens.bearer(auth, token, NOW + 300 * S - 1)
    with pytest.raises(InvalidToken, match="run out"):
        tokens.bearer(auth, token, NOW + 300 * S)


GOOD = {"username": "root", "revision": 1, "exp": NOW_S + 9}


@pytest.mark.parametrize(
    "claims",
    [
        {k: v for k, v in GOOD.items() if k != missing} for missing in GOOD
    ] + [
        GOOD | changed for changed in (
            {"username": ""}, {"username": 5}, {"revision": "1"}, {"revision": True},
            {"revision": -1}, {"exp": "later"}, {"exp": NOW_S}, {"nbf": NOW_S + 1},
        )
    ],
)  # fmt: skip
def test_bad_claims(auth: AuthState, files: Path, claims: dict[str, Any]) -> None:
    tokens = EtcdJwts(options(files, "RS256", "rsa"))
    good = jwt.encode(GOOD, RSA_KEY, algorithm="RS256")
    assert tokens.bearer(auth, good, NOW).user == "root"
    with pytest.raises(InvalidToken):
        tokens.bearer(auth, jwt.encode(claims, RSA_KEY, algorithm="RS256"), NOW)


def test_the_token_does_not_choose_the_algorithm(auth: AuthState, files: Path) -> None:
    tokens = EtcdJwts(options(files, "RS256", "rsa"))
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for bad in (
        jwt.encode(GOOD, None, algorithm="none"),
        jwt.encode(GOOD, RSA_KEY, algorithm="PS256"),
        jwt.encode(GOOD, b"k" * 64, algorithm="HS256"),
        jwt.encode(GOOD, stranger, algorithm="RS256"),
        "a.b.c", "", "x" * (TOKEN_BYTES_MAX + 1), "A" * 16 + ".7",
    ):  # fmt: skip
        with pytest.raises(InvalidToken):
            tokens.bearer(auth, bad, NOW)


def principal(bearer: Bearer) -> Principal:
    base = Principal(KIND_USER, bearer.user, "", "", "", "", "", "token", "", "", 0)
    return base._replace(**bearer._asdict())


def test_an_old_revision_stops_at_keys_and_a_change_of_the_user_everywhere(
    auth: AuthState, files: Path
) -> None:
    tokens = EtcdJwts(options(files, "RS256", "rsa"))
    token = given(auth, tokens)
    who = principal(tokens.bearer(auth, token, NOW))
    check_revision(auth, who)
    auth.role_add("r")
    check_principal(auth, who, NOW)
    with pytest.raises(AuthOldRevisionError):
        check_revision(auth, who)
    check_revision(auth, who._replace(key_id="etcd.simple"))
    auth.user_change_password("root", "$other")
    with pytest.raises(AuthOldRevisionError):
        check_principal(auth, who, NOW)


def test_a_user_that_is_gone_is_told_to_log_in_again(auth: AuthState, files: Path) -> None:
    tokens = EtcdJwts(options(files, "RS256", "rsa"))
    auth.user_add("hana", "$hash", False, "0b")
    token = tokens.assign(auth, auth.users["hana"], 5, NOW)
    auth.user_delete("hana")
    with pytest.raises(AuthOldRevisionError):
        check_principal(auth, principal(tokens.bearer(auth, token, NOW)), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "", "sign-method=RS256", "sign-method=none,pub-key={d}/rsa.pub",
        "pub-key={d}/rsa.pub", "sign-method=RS256,pub-key={d}/no", "sign-method=RS256,pub-key={d}",
        "sign-method=RS256,pub-key={d}/hmac", "sign-method=RS256,pub-key={d}/rsa.key",
        "sign-method=RS256,priv-key={d}/p256.key", "sign-method=ES384,priv-key={d}/p256.key",
        "sign-method=EdDSA,priv-key={d}/rsa.key", "sign-method=HS256,pub-key={d}/hmac",
        "sign-method=RS256,priv-key={d}/rsa.key,pub-key={d}/p256.pub",
        "sign-method=RS256,priv-key={d}/rsa.key,ttl=soon",
        "sign-method=RS256,priv-key={d}/rsa.key,color=red",
        "sign-method=RS256,sign-method=RS256,priv-key={d}/rsa.key",
    ],
)  # fmt: skip
def test_what_cannot_be_used_ends_the_start(files: Path, text: str) -> None:
    config = ServerConfig(insecure_dev=True, auth_token="jwt," + text.replace("{d}", str(files)))
    with pytest.raises(ConfigError) as caught:
        open_etcd_tokens(config)
    assert caught.value.code == 78


def test_the_kind_is_the_settings_choice(files: Path) -> None:
    jwts = "jwt," + options(files, "ES256", "p256")
    assert isinstance(open_etcd_tokens(ServerConfig(insecure_dev=True)), SimpleTokens)
    assert isinstance(open_etcd_tokens(ServerConfig(insecure_dev=True, auth_token=jwts)), EtcdJwts)
    assert open_etcd_tokens(ServerConfig(auth_token=jwts)) is None
    with pytest.raises(ConfigServiceError, match="no kind"):
        open_etcd_tokens(ServerConfig(insecure_dev=True, auth_token="opaque"))
