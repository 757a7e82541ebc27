"""N40 to N46, N63: tokens that other libraries have let in."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from configsvc.identity.errors import InvalidToken
from configsvc.identity.tokens import TokenKey, mint, public_key, verify

NOW = 1_800_000_000
KEY = TokenKey.generate()
PUBLIC = KEY.private.public_key()
KEYS = {KEY.kid: public_key(KEY.public_bytes, accepted=True)}
HEADER = {"kid": KEY.kid, "typ": "configsvc-at+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": "cfg", "aud": "c1", "sub": "root", "uid": "ab" * 16, "cid": "spiffe://t/user/a",
    "arev": 7, "iat": NOW, "nbf": NOW, "exp": NOW + 300, "jti": "cd" * 16,
}  # fmt: skip


def judge(token: str) -> object:
    return verify(token, KEYS, iss="cfg", aud="c1", cid="spiffe://t/user/a", now=NOW)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def assemble(header: str, claims: str, *, sign: bool = True) -> str:
    signed = f"{b64(header.encode())}.{b64(claims.encode())}"
    return f"{signed}.{b64(KEY.sign(signed.encode()) if sign else b'')}"


GOOD_HEADER = json.dumps({"alg": "EdDSA", **HEADER})
GOOD_CLAIMS = json.dumps(CLAIMS)
GOOD = assemble(GOOD_HEADER, GOOD_CLAIMS)


def test_the_template_itself_is_good() -> None:
    assert judge(GOOD)


def _hs256(secret: bytes) -> str:
    signed = f"{b64(json.dumps({'alg': 'HS256', **HEADER}).encode())}.{b64(GOOD_CLAIMS.encode())}"
    import hashlib
    import hmac

    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


SECRETS = {
    "pem": PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "der": PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "ssh": PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "raw": KEY.public_bytes,
    "jwk": json.dumps({"kty": "OKP", "crv": "Ed25519", "x": b64(KEY.public_bytes)}).encode(),
    "empty": b"",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_public_keys_are_no_hmac_secrets(secret: bytes) -> None:
    with pytest.raises(InvalidToken):
        judge(_hs256(secret))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("sign", [True, False])
def test_no_algorithm_is_none(alg: str, sign: bool) -> None:
    with pytest.raises(InvalidToken):
        judge(assemble(json.dumps({"alg": alg, **HEADER}), GOOD_CLAIMS, sign=sign))


def test_one_algorithm_per_key() -> None:
    es256 = jwt.encode(
        CLAIMS, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=HEADER
    )
    other_curve = ed448.Ed448PrivateKey.generate()
    pem = other_curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    ed448_token = jwt.encode(CLAIMS, pem, algorithm="EdDSA", headers=HEADER)
    relabelled = assemble(json.dumps({"alg": "ES256", **HEADER}), GOOD_CLAIMS)
    for token in (es256, ed448_token, relabelled):
        with pytest.raises(InvalidToken):
            judge(token)


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        pytest.param(GOOD_HEADER, GOOD_CLAIMS[:-1] + ', "sub": "root"}', id="sub-twice"),
        pytest.param(GOOD_HEADER[:-1] + ', "alg": "EdDSA"}', GOOD_CLAIMS, id="alg-twice"),
        pytest.param(GOOD_HEADER[:-1] + ', "b64": false}', GOOD_CLAIMS, id="b64"),
        pytest.param(GOOD_HEADER[:-1] + ', "crit": ["exp"]}', GOOD_CLAIMS, id="crit"),
        pytest.param(f"[{GOOD_HEADER}]", GOOD_CLAIMS, id="header-list"),
        pytest.param(GOOD_HEADER, f"[{GOOD_CLAIMS}]", id="claims-list"),
        pytest.param(GOOD_HEADER, "null", id="claims-null"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace(str(NOW + 300), "NaN"), id="nan"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace(str(NOW + 300), "Infinity"), id="infinity"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace(str(NOW + 300), "1e309"), id="overflow"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace(str(NOW + 300), "null"), id="exp-null"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace(str(NOW + 300), "[1]"), id="exp-list"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace(str(NOW + 300), "9" * 900), id="900-digits"),
        pytest.param("[" * 900 + "]" * 900, GOOD_CLAIMS, id="nested-header"),
        pytest.param(GOOD_HEADER, '{"a":' * 400 + "1" + "}" * 400, id="nested-claims"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace('"root"', '"\\ud800"'), id="surrogate"),
        pytest.param(GOOD_HEADER, GOOD_CLAIMS.replace('"root"', '"root\\u0000"'), id="nul"),
        pytest.param("\ufeff" + GOOD_HEADER, GOOD_CLAIMS, id="byte-order-mark"),
    ],
)
def test_json_has_one_reading(header: str, claims: str) -> None:
    with pytest.raises(InvalidToken):
        judge(assemble(header, claims))


def _parts() -> tuple[str, str, str]:
    header, claims, signature = GOOD.split(".")
    return header, claims, signature


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda h, c, s: f"{h}.{c}.{s}==", id="padded-signature"),
        pytest.param(lambda h, c, s: f"{h}=.{c}.{s}", id="padded-header"),
        pytest.param(lambda h, c, s: f"{h}.{c}.{s}\n", id="newline"),
        pytest.param(lambda h, c, s: f" {h}.{c}.{s}", id="blank"),
        pytest.param(lambda h, c, s: f"{h}.{c}", id="two-parts"),
        pytest.param(lambda h, c, s: f"{h}.{c}.{s}.{s}", id="four-parts"),
        pytest.param(lambda h, c, s: f"{h}.{c}.", id="no-signature"),
        pytest.param(lambda h, c, s: f"{h}..{s}", id="no-claims"),
        pytest.param(lambda h, c, s: f"{h}.{c}.{s.swapcase()}", id="other-signature"),
        pytest.param(lambda h, c, s: f"{h}.{c}.{b64(bytes(64))}", id="zero-signature"),
        pytest.param(
            lambda h, c, s: f"{h}.{c}.{s[:-1]}{chr(ord(s[-1]) + 1)}", id="non-canonical-end"
        ),
        pytest.param(lambda h, c, s: f"{h}.{c}.{s}".replace(".", "․"), id="unicode-dots"),
        pytest.param(lambda h, c, s: "." * 4_000, id="dots"),
        pytest.param(lambda h, c, s: "", id="empty"),
    ],
)
def test_text_has_one_spelling(change: Callable[[str, str, str], str]) -> None:
    with pytest.raises(InvalidToken):
        judge(change(*_parts()))


@pytest.mark.parametrize("size", [4_097, 1_000_000, 5_000_000])
def test_length_is_judged_before_any_decoding(size: int) -> None:
    began = time.perf_counter()
    with pytest.raises(InvalidToken, match="too long"):
        judge("A" * size)
    with pytest.raises(InvalidToken, match="too long"):
        judge("." * size)
    assert time.perf_counter() - began < 0.02


def test_issuer_and_audience_by_equality() -> None:
    for changed in ({"iss": "cf"}, {"iss": "cfg1"}, {"iss": ["cfg"]}, {"aud": ["c1"]}):
        with pytest.raises(InvalidToken):
            judge(assemble(GOOD_HEADER, json.dumps({**CLAIMS, **changed})))
    with pytest.raises(InvalidToken):
        verify(GOOD, KEYS, iss="cf", aud="c1", cid=CLAIMS["cid"], now=NOW)


def test_a_token_serves_only_the_certificate_it_was_made_for() -> None:
    for cid in ("spiffe://t/user/b", "", "spiffe://t/user/a/"):
        with pytest.raises(InvalidToken):
            verify(GOOD, KEYS, iss="cfg", aud="c1", cid=cid, now=NOW)


def test_refusals_never_show_the_token() -> None:
    secret = assemble(GOOD_HEADER, json.dumps({**CLAIMS, "sub": "Secret-Marker-String"}))
    with pytest.raises(InvalidToken) as caught:
        judge(secret)
    assert "Marker" not in str(caught.value)
    assert "Marker" not in repr(caught.value.__cause__)


@given(st.text(max_size=200))
def test_junk_is_an_invalid_token_and_nothing_else(text: str) -> None:
    with pytest.raises(InvalidToken):
        judge(text)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 127))
def test_no_changed_character_passes(at: int, change: int) -> None:
    token = GOOD[:at] + chr(ord(GOOD[at]) ^ change) + GOOD[at + 1 :]
    with pytest.raises(InvalidToken):
        judge(token)


def test_minted_tokens_are_bound_to_what_was_proven() -> None:
    token = mint(
        KEY, iss="cfg", aud="c1", sub="a", uid="ab" * 16, cid="spiffe://t/user/a", arev=1, now=NOW,
        ttl=300,
    )  # fmt: skip
    assert judge(token)
