"""Users, roles, tokens and rights against etcd, mutually authenticated.

Nobody comes without a token here: etcd then reads the certificate's CN, which our leaves do not
have, and ours reads the identity in the certificate.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from auth_script import OTHERS, script

from configsvc.identity.pki import init_pki, issue
from tests.support.etcd_cases import compare
from tests.support.etcd_servers import Tls

SCRIPT = script((*OTHERS[1:], "root"))


def make_tls(root: Path) -> Tls:
    """One server certificate and one client certificate for both servers."""
    init_pki(root / "pki", "configsvc", development=True)
    server = issue(root / "pki", "server", "one", ips=["127.0.0.1"], out=root / "server")
    client = issue(root / "pki", "user", "gate", out=root / "client")
    return Tls(
        cert=server.cert_path,
        key=server.key_path,
        ca=root / "pki" / "ca-client.pem",
        server_ca=root / "pki" / "ca-server-chain.pem",
        client_cert=client.cert_path,
        client_key=client.key_path,
    )


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_auth_over_tls_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
