"""Logins by the common name of a client certificate, against etcd (A18)."""

from __future__ import annotations

from pathlib import Path

import pytest

from configsvc.identity.authority import certificate_pem, key_pem
from configsvc.identity.pki import init_pki, issue, load_authority
from tests.support.etcd_cases import Step, call, compare, note
from tests.support.etcd_servers import Tls
from tests.support.pki import odd_leaf

NO_ORACLE = "who has no rights does not learn which users exist"
SAME_TEXT = "a user without password is refused as a wrong password is (N25)"


def grant(role: str, kind: int, key: bytes, end: bytes) -> Step:
    return call("Auth.RoleGrantPermission", role, name=role,
                perm={"permType": kind, "key": key, "range_end": end})  # fmt: skip


SCRIPT = [
    call("Auth.UserAdd", name="root", password="root"),
    call("Auth.UserGrantRole", user="root", role="root"),
    call("Auth.RoleAdd", name="r"),
    grant("r", 2, b"a", b"m"),
    call("KV.Put", "auth off", key=b"a", value=b"1"),
    call("Auth.AuthEnable"),
    call("Auth.Authenticate", name="root", password="root"),
    note("root", "token"),
    call("KV.Put", "unknown name", key=b"a", value=b"2"),
    call("KV.Range", "unknown name", key=b"a"),
    call("Auth.UserList", "unknown name", differs=NO_ORACLE),
    call("Auth.UserAdd", "no password", who="root", name="hana", options={"no_password": True}),
    call("KV.Put", "no role yet", key=b"a", value=b"2"),
    call("Auth.UserGrantRole", who="root", user="hana", role="r"),
    call("KV.Put", "with role", key=b"a", value=b"2"),
    call("KV.Range", "with role", key=b"a", range_end=b"m"),
    call("KV.Range", "outside", key=b"a", range_end=b"n"),
    call("KV.Put", "outside", key=b"z", value=b"2"),
    call("KV.DeleteRange", "with role", key=b"a"),
    call("KV.Put", "a good token wins", who="root", key=b"z", value=b"2"),
    call("KV.Put", "a bad token does not fall back", who="bad.1", key=b"a", value=b"2"),
    call("Auth.UserGet", "own", name="hana"),
    call("Auth.UserGet", "another", name="root"),
    call("Auth.UserList", "no administrator"),
    call("Auth.UserAdd", "no administrator", name="x", password="x"),
    call("Auth.Authenticate", "no password", name="hana", password="", differs=SAME_TEXT),
    call("Auth.UserGrantRole", "root", who="root", user="hana", role="root"),
    call("Auth.UserList", "administrator"),
    call("KV.Put", "administrator", key=b"z", value=b"3"),
    call("Auth.UserDelete", who="root", name="hana"),
    call("KV.Put", "deleted", key=b"a", value=b"4"),
    call("Auth.AuthDisable", who="root"),
    call("KV.Put", "off again", key=b"z", value=b"4"),
]


def make_tls(root: Path) -> Tls:
    """A client certificate of etcd's kind under the CA that issues ours."""
    init_pki(root / "pki", "configsvc", development=True)
    server = issue(root / "pki", "server", "one", ips=["127.0.0.1"], out=root / "server")
    odd = odd_leaf(load_authority(root / "pki", "client"), uris=(), common_name="hana")
    cert, key = root / "hana.pem", root / "hana.key"
    cert.write_bytes(certificate_pem(odd.certificate))
    key.write_bytes(key_pem(odd.key))
    return Tls(
        cert=server.cert_path,
        key=server.key_path,
        ca=root / "pki" / "ca-client.pem",
        server_ca=root / "pki" / "ca-server-chain.pem",
        client_cert=cert,
        client_key=key,
    )


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_common_names_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
