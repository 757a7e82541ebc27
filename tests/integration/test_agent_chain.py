"""An agent whose new certificate needs the issuer that was printed with it, in real handshakes."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from configsvc.client import Client, ClientSettings, TlsFiles, UnavailableError, parse_endpoints
from configsvc.client import administration as admin
from configsvc.client.operations import prefix_span
from configsvc.identity.authority import Authority, certificate_pem, key_pem, new_key
from configsvc.identity.pki import init_pki, issue, load_authority
from configsvc.proto import auth_pb2
from tests.support.agent_config import configuration
from tests.support.etcd_servers import Running, Tls
from tests.support.members import MemberCluster

pytestmark = pytest.mark.integration
DAY_S = 24 * 3600
CONFIG = """\
tls = {{ ca = "{ca}", cert = "{base}/node.pem", key = "{base}/node.key" }}
renew = {{ cmd = ["{base}/sign", "{{csr}}"] }}
backoff = {{ min = "20ms", max = "100ms" }}
[security]
allow_roots = ["{base}/root"]
[defaults]
settle = {{ min = "0ms", max = "1s" }}
[[set]]
name = "s"
prefix = "/s"
  [[set.file]]
  dest = "{base}/root/a.conf"
  text = '''{{{{ getv("/n") }}}}
'''
"""
# What an authority's host would run: the request's key, signed by the authority in the folder.
SIGN = """\
#!{python}
import sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from configsvc.identity.authority import Authority
from configsvc.identity.requests import Enrolment, issue_from_csr
base = Path({base!r})
pem = (base / "issuer.pem").read_bytes()
key = load_pem_private_key((base / "issuer.key").read_bytes(), None)
authority = Authority(x509.load_pem_x509_certificate(pem), key, {domain!r})
csr = x509.load_pem_x509_csr(Path(sys.argv[1]).read_bytes()).public_bytes(Encoding.DER)
leaf = issue_from_csr(authority, csr, Enrolment("agent", "n1", (), (), None), int(time.time()))
print(leaf.public_bytes(Encoding.PEM).decode() + pem.decode() + {root!r})
"""


class Node:
    """A node with a certificate that is to be renewed at once, and an agent of it at most."""

    def __init__(self, base: Path, urls: list[str], ca: Path, pki: Path) -> None:
        self.base, self.urls, self.ca, self.pki = base, urls, ca, pki
        base.mkdir(mode=0o700)
        (base / "root").mkdir()
        self.config = base / "agent.toml"
        self.config.write_text(configuration(CONFIG, base, urls, ca=ca))
        self.config.chmod(0o600)
        born = int(time.time() - 0.7 * DAY_S)
        issue(pki, "agent", "n1", out=base, stem="node", lifetime_s=DAY_S, now=born)
        self.process: subprocess.Popen[bytes] | None = None

    def sign_with(self, authority: Authority) -> None:
        """Whose certificates the renewal command gets, and prints the issuer of."""
        (self.base / "issuer.pem").write_bytes(certificate_pem(authority.certificate))
        (self.base / "issuer.key").write_bytes(key_pem(authority.key))
        sign = self.base / "sign"
        root = (self.pki / "root.pem").read_text()
        values = {"python": sys.executable, "path": [os.getcwd(), *sys.path]}
        domain = authority.trust_domain
        sign.write_text(SIGN.format(**values, base=str(self.base), domain=domain, root=root))
        sign.chmod(0o700)

    def start(self) -> None:
        code = "import sys; sys.path[:0] = %r; from configagent.cli import main; sys.exit(main())"
        argv = [sys.executable, "-c", code % (sys.path,), "run", "--config", str(self.config)]
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in (self.base / "log").read_text().splitlines()]

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20.0
        while not holds():
            assert time.monotonic() < deadline, (self.base / "log").read_text()[-3000:]
            time.sleep(0.01)

    def until_shown(self, text: str) -> None:
        path = self.base / "root" / "a.conf"
        self.until(lambda: path.exists() and path.read_text() == text)

    def chain(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates((self.base / "node.pem").read_bytes())

    def reads(self, cert: Path) -> None:
        """One call as the node, over a connection of its own.

        Raises:
            UnavailableError: the member does not take this certificate.
        """
        files = TlsFiles(str(self.ca), str(cert), str(self.base / "node.key"))
        settings = ClientSettings(parse_endpoints(self.urls), files, timeout_s=3.0)
        with Client(settings) as client:
            client.get(b"/s/n")


def under_a_new_key(old: Authority) -> Authority:
    """The same authority with another key, which the old one vouches for (RFC 4210, 4.4)."""
    key = new_key()
    now = dt.datetime.now(dt.UTC)
    known = old.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usage = old.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    made = (
        x509.CertificateBuilder(old.certificate.subject, old.certificate.subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False
        )
        .sign(old.key, hashes.SHA256())
    )
    return Authority(made, key, old.trust_domain)


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    try:
        yield node
    finally:
        node.end(signal.SIGKILL)


def renews_and_goes_on(node: Node, put: Callable[[str], object]) -> None:
    """The renewed pair serves connections of its own, then and after a restart."""
    put("1")
    node.start()
    node.until_shown("1\n")
    node.until(lambda: "certificate_renewed" in node.events())
    assert len(node.chain()) == 2, "the issuer is kept, the root is not"
    put("2")
    node.until_shown("2\n")
    node.end()
    put("3")
    node.start()  # nothing of an older connection can help now
    node.until_shown("3\n")
    node.reads(node.base / "node.pem")
    alone = node.base / "alone.pem"
    alone.write_bytes(certificate_pem(node.chain()[0]))
    with pytest.raises(UnavailableError):
        node.reads(alone)


def test_members_follow_a_node_to_an_authority_under_a_new_key(
    make_cluster: Callable[[int], MemberCluster], tmp_path: Path
) -> None:
    cluster = make_cluster(1)
    cluster.start()
    pki = cluster.pki
    node = Node(tmp_path / "node", [cluster.members[0].client_url], pki / "ca-server.pem", pki)
    node.sign_with(under_a_new_key(load_authority(pki, "client")))
    with cluster.client() as root, running(node):
        root.do(admin.user_add("agent/n1", None))
        root.do(admin.role_add("reader"))
        root.do(admin.role_grant("reader", auth_pb2.Permission.READ, *prefix_span(b"/s/")))
        root.do(admin.user_grant_role("agent/n1", "reader"))
        renews_and_goes_on(node, lambda text: root.put(b"/s/n", text.encode()))


def test_a_member_that_trusts_the_root_alone_follows_the_printed_issuer(tmp_path: Path) -> None:
    """As etcd's clusters are often set up; a secure member of ours trusts no root."""
    pki = tmp_path / "pki"
    init_pki(pki, "test.example", development=True)
    server = issue(pki, "server", "m1", ips=["127.0.0.1"])
    user = issue(pki, "user", "root")
    chained = pki / "user-chain.pem"
    chained.write_bytes(user.cert_path.read_bytes() + (pki / "ca-client.pem").read_bytes())
    tls = Tls(server.cert_path, server.key_path, pki / "root.pem", pki / "ca-server.pem",
              chained, user.key_path)  # fmt: skip
    program = [sys.executable, "-m", "configsvc.cli.configsvc", "--insecure-dev"]
    program.append("--trust-domain=test.example")
    member = Running("default", program, tmp_path, tls)
    try:
        member.wait_ready()
        node = Node(tmp_path / "node", [member.url], tls.server_ca, pki)
        node.base.joinpath("node.pem").write_bytes(
            node.base.joinpath("node.pem").read_bytes() + (pki / "ca-client.pem").read_bytes()
        )
        node.sign_with(load_authority(pki, "client"))
        files = TlsFiles(str(tls.server_ca), str(chained), str(user.key_path))
        settings = ClientSettings(parse_endpoints(member.url), files)
        with Client(settings) as root, running(node):
            renews_and_goes_on(node, lambda text: root.put(b"/s/n", text.encode()))
    finally:
        member.stop()
