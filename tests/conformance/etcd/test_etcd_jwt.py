"""Logins with etcd's JWTs, against etcd: the auth revision in them, and keys of two families."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.etcd_cases import Client, Step, call, compare, note, watch
from tests.support.etcd_servers import both

DECLARED = "etcd sends its internal text with code Unknown"


def login(name: str) -> list[Step]:
    return [call("Auth.Authenticate", name, name=name, password=name), note(name, "token")]


def keys(label: str, who: str = "u") -> list[Step]:
    return [
        call("KV.Put", label, who=who, key=b"b", value=b"1"),
        call("KV.Range", label, who=who, key=b"b"),
        call("KV.Range", f"serializable, {label}", who=who, key=b"b", serializable=True),
        call("KV.DeleteRange", label, who=who, key=b"b"),
        call("KV.Txn", label, who=who, success=[{"request_put": {"key": b"b"}}]),
        call("KV.Txn", f"reading, {label}", who=who, success=[{"request_range": {"key": b"b"}}]),
    ]


SCRIPT = [
    call("Auth.UserAdd", name="root", password="root"),
    call("Auth.UserGrantRole", user="root", role="root"),
    call("Auth.UserAdd", name="u", password="u"),
    call("Auth.RoleAdd", name="r"),
    call("Auth.RoleGrantPermission", name="r",
         perm={"permType": 2, "key": b"a", "range_end": b"m"}),
    call("Auth.UserGrantRole", user="u", role="r"),
    call("Auth.AuthEnable"),
    call("Auth.Authenticate", "wrong", name="u", password="x"),
    *login("root"), *login("u"),
    *keys("fresh"), *keys("fresh", "root"),
    call("KV.Put", "outside", who="u", key=b"z"),
    call("KV.Put", "no token of ours", who="a.b.c", key=b"b"),
    call("KV.Put", "a simple token", who="A" * 16 + ".7", key=b"b"),
    call("Auth.UserList", "no administrator", who="u"),
    call("Auth.RoleAdd", "a change of auth", who="root", name="other"),
    *keys("after it"), *keys("after it", "root"),
    watch("after it", ("send", {"create_request": {"key": b"b"}}), ("recv", 1), ("quiet",),
          who="u"),
    call("Auth.UserList", "after it", who="root"),
    call("Auth.UserGet", "own, after it", who="u", name="u"),
    call("Auth.RoleAdd", "administrators go on", who="root", name="another"),
    *login("u"),
    *keys("logged in again"),
    *login("root"),
    call("Lease.LeaseGrant", who="root", ID=77, TTL=2),
    call("KV.Put", "for two seconds", who="root", key=b"b", lease=77),
    watch("outlives a change of auth", ("send", {"create_request": {"key": b"b"}}), ("recv", 1),
          ("call", "Auth.RoleAdd", {"name": "third"}), ("recv", 1), who="root"),
    *login("root"),
    call("Auth.UserChangePassword", who="root", name="u", password="new"),
    *keys("another password"),
    call("Auth.UserDelete", who="root", name="u"),
    *keys("user gone"),
    call("Auth.AuthDisable", who="root"),
    call("Auth.Authenticate", "off", name="root", password="root"),
    call("KV.Put", "off, a bad token", who="a.b.c", key=b"b"),
    call("KV.Put", "off, no token", key=b"b"),
]  # fmt: skip

VERIFY_ONLY = [
    *SCRIPT[:2],
    call("Auth.AuthEnable"),
    call("Auth.Authenticate", "wrong", name="root", password="x"),
    call(
        "Auth.Authenticate", "nothing to sign with", name="root", password="root", differs=DECLARED
    ),
]


def key_flag(root: Path, method: str, *, private: bool = True) -> str:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
        ec.generate_private_key(ec.SECP256R1())
        if method == "ES256"
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    secret, shown = root / f"{method}.key", root / f"{method}.pub"
    secret.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    shown.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    signing = f",priv-key={secret}" if private else ""
    return f"--auth-token=jwt,sign-method={method},pub-key={shown}{signing},ttl=5m"


def compared(root: Path, flag: str, steps: list[Step]) -> Iterator[tuple[Step, object, object]]:
    with both(root, flags=[flag]) as servers:
        found = []
        for server in servers:
            with server.channel() as channel:
                client = Client(channel, {"target": server.target})
                found.append([step.run(client) for step in steps])
    yield from zip(steps, *found, strict=True)


@pytest.mark.parametrize("method", ["RS256", "PS384", "ES256"])
def test_jwts_as_etcd(method: str, tmp_path: Path) -> None:
    for step, theirs, ours in compared(tmp_path, key_flag(tmp_path, method), SCRIPT):
        compare(step, theirs, ours)


def test_a_public_key_alone_gives_out_nothing(tmp_path: Path) -> None:
    flag = key_flag(tmp_path, "RS256", private=False)
    for step, theirs, ours in compared(tmp_path, flag, VERIFY_ONLY):
        compare(step, theirs, ours)
