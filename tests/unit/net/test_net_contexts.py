"""PKI-2, PKI-15, DEF-3, DEF-9: what contexts accept, and replacing one while it runs."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from configsvc.identity.authority import Authority, certificate_pem, make_issuing, make_root
from configsvc.identity.tls_files import judge_of
from configsvc.net.contexts import (
    ALPN_CLIENT_PORT,
    ALPN_PEER,
    ReloadableContext,
    TlsFiles,
    TlsSetupError,
    client_context,
    server_context,
)
from tests.support.pki import CLIENT, SERVER, TRUST_DOMAIN, Odd, Pki, odd_leaf, revocation_list, uri
from tests.support.tls_wires import Wire, shaken

CLIENT_PORT = ALPN_CLIENT_PORT


def port(pki: Pki) -> ssl.SSLContext:
    """A client port: server leaf, trusts the client CA."""
    return server_context(pki.files("server", "m1", "client"), alpn=CLIENT_PORT)


def knock(pki: Pki, odd: Odd, *, chain: bytes = b"") -> Wire:
    """Dial the client port with any certificate."""
    files = pki.write("knocker", odd.certificate, odd.key, "server")
    if chain:
        Path(files.cert).write_bytes(Path(files.cert).read_bytes() + chain)
    wire = Wire(port(pki), client_context(files, alpn=["h2"]))
    wire.shake()
    return wire


# --- who gets in ----------------------------------------------------------------------------------


def test_ours_get_in(pki: Pki) -> None:
    client = client_context(pki.files("user", "root", "server"), alpn=["h2"])
    assert shaken(port(pki), client).server.alpn == "h2"


def test_nobody_without_a_certificate(pki: Pki) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    bare.load_verify_locations(pki.ca("server"))
    wire = Wire(port(pki), bare)
    assert not wire.shake()
    assert wire.server_reason == "peer_did_not_return_a_certificate"


def _foreign(_: Authority) -> Odd:
    root = make_root(TRUST_DOMAIN, int(time.time()))
    return odd_leaf(make_issuing(root, "client", int(time.time())))


REFUSED: list[tuple[str, Callable[[Authority], Odd], str]] = [
    ("foreign-ca", _foreign, "unable to get local issuer"),
    ("expired", lambda ca: odd_leaf(ca, begins=-100, ends=-10), "expired"),
    ("early", lambda ca: odd_leaf(ca, begins=100), "not yet valid"),
    ("server-eku", lambda ca: odd_leaf(ca, usages=[SERVER]), "unsuitable certificate purpose"),
    ("code-signing", lambda ca: odd_leaf(ca, usages=[ExtendedKeyUsageOID.CODE_SIGNING]),
     "unsuitable certificate purpose"),
    ("critical-stranger", lambda ca: odd_leaf(ca, adjust=lambda b: b.add_extension(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), critical=True)),
     "unhandled critical extension"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), [pytest.param(m, r, id=i) for i, m, r in REFUSED])
def test_what_the_handshake_refuses(
    pki: Pki, make: Callable[[Authority], Odd], reason: str
) -> None:
    wire = knock(pki, make(pki.authority("client")))
    assert reason in wire.server_reason
    assert not wire.server.established


@pytest.mark.parametrize("purpose", ["peer", "server"])
def test_leaves_of_our_other_cas_with_their_issuer_sent_along(pki: Pki, purpose: str) -> None:
    chain = Path(pki.ca(purpose)).read_bytes() + (pki.directory / "root.pem").read_bytes()
    wire = knock(pki, odd_leaf(pki.authority(purpose)), chain=chain)
    assert "certificate refused" in wire.server_reason


def test_a_leaf_is_no_issuer(pki: Pki) -> None:
    user = odd_leaf(pki.authority("client"))
    below = odd_leaf(Authority(user.certificate, user.key, TRUST_DOMAIN))
    wire = knock(pki, below, chain=certificate_pem(user.certificate))
    assert "certificate refused" in wire.server_reason


def test_an_issuing_ca_makes_no_further_cas(pki: Pki) -> None:
    ca = make_issuing(pki.authority("client"), "further", int(time.time()))
    wire = knock(pki, odd_leaf(ca), chain=certificate_pem(ca.certificate))
    assert "path length constraint" in wire.server_reason


# Accepted by OpenSSL, and therefore judged by ``identity.certificate`` (ID-3): a change upstream
# should be noticed.
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda ca: odd_leaf(ca, usages=None), id="no-eku"),
        pytest.param(lambda ca: odd_leaf(ca, uris=[uri("user", "a"), uri("user", "b")]), id="uris"),
        pytest.param(lambda ca: odd_leaf(ca, ends=36_500 * 86_400), id="hundred-years"),
        pytest.param(lambda ca: odd_leaf(ca, uris=[uri("user", "a", "evil")]), id="domain"),
    ],
)
def test_what_only_our_own_rules_refuse(pki: Pki, make: Callable[[Authority], Odd]) -> None:
    wire = knock(pki, make(pki.authority("client")))
    assert wire.server.established, wire.server_reason


def test_a_revoked_serial_is_refused_and_an_old_list_refuses_everybody(pki: Pki) -> None:
    ca = pki.authority("client")
    bad, good = odd_leaf(ca), odd_leaf(ca)
    crl_path = pki.directory / "client.crl"
    base = pki.files("server", "m1", "client")
    listener = TlsFiles(base.cert, base.key, base.ca, str(crl_path))

    def crl(days: int) -> None:
        listed = [bad.certificate.serial_number]
        crl_path.write_bytes(revocation_list(ca, listed, days=days))

    def knocked(odd: Odd) -> Wire:
        context = server_context(listener, alpn=CLIENT_PORT)
        files = pki.write("crl-knocker", odd.certificate, odd.key, "server")
        wire = Wire(context, client_context(files, alpn=["h2"]))
        wire.shake()
        return wire

    crl(days=1)
    assert "revoked" in knocked(bad).server_reason
    assert knocked(good).server.established
    crl(days=-1)
    assert "CRL has expired" in knocked(good).server_reason


# --- what a dialler checks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "common_name", "host"),
    [
        pytest.param([x509.DNSName("other.example")], "", "localhost", id="other"),
        pytest.param([], "localhost", "localhost", id="common-name-alone"),
        pytest.param([x509.DNSName("127.0.0.1")], "", "127.0.0.1", id="address-as-dns"),
        pytest.param([x509.DNSName("localhost\0.evil.example")], "", "localhost", id="nul"),
    ],
)
def test_host_names(pki: Pki, names: list[x509.GeneralName], common_name: str, host: str) -> None:
    odd = odd_leaf(
        pki.authority("server"),
        uris=[uri("server", "m1")],
        names=names,
        usages=[SERVER],
        common_name=common_name,
    )
    server = server_context(
        pki.write("odd-server", odd.certificate, odd.key, "client"), alpn=CLIENT_PORT
    )
    client = client_context(pki.files("user", "root", "server"), alpn=["h2"])
    wire = Wire(server, client, host)
    assert not wire.shake()
    assert "mismatch" in wire.client_reason


# --- versions, tickets, surroundings --------------------------------------------------------------


def _client_1_2(pki: Pki) -> ssl.SSLContext:
    context = client_context(pki.files("user", "root", "server"), alpn=["h2"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def test_tls_1_2_needs_the_flag(pki: Pki) -> None:
    assert not Wire(port(pki), _client_1_2(pki)).shake()
    files = pki.files("server", "m1", "client")
    older = server_context(files, alpn=CLIENT_PORT, min_version="TLS1.2")
    wire = shaken(older, _client_1_2(pki))
    assert wire.server.version == "TLSv1.2"
    suite = wire.server._object.cipher()
    assert suite is not None
    assert suite[0].startswith("ECDHE")
    assert "GCM" in suite[0] or "CHACHA20" in suite[0]


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_no_session_outlives_its_connection(pki: Pki, version: str) -> None:
    files = pki.files("server", "m1", "client")
    server = server_context(files, alpn=CLIENT_PORT, min_version="TLS1.2")
    client = (
        _client_1_2(pki)
        if version == "1.2"
        else client_context(pki.files("user", "root", "server"), alpn=["h2"])
    )
    first = shaken(server, client)
    first.client.receive(first.server.send(b"x"))  # a ticket would have come with it
    session = first.client._object.session
    assert session is None or not session.has_ticket
    second = Wire(server, client)
    if session is not None:
        second.client._object.session = session
    second.shake()
    assert not second.server._object.session_reused or second.server_reason == "resumed session"


def test_the_key_log_variable_is_not_obeyed(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    shaken(port(pki), client_context(pki.files("user", "root", "server"), alpn=["h2"]))
    assert not (tmp_path / "keys").exists()


# --- loading and replacing ------------------------------------------------------------------------


class Side:
    """One side's files in a directory of their own, to be broken."""

    def __init__(self, pki: Pki, where: Path) -> None:
        leaf = pki.leaf("server", "m1")
        self.files = TlsFiles(str(where / "c.pem"), str(where / "c.key"), str(where / "ca.pem"))
        Path(self.files.cert).write_bytes(leaf.cert_path.read_bytes())
        Path(self.files.key).write_bytes(leaf.key_path.read_bytes())
        Path(self.files.key).chmod(0o600)
        Path(self.files.ca).write_bytes(Path(pki.ca("client")).read_bytes())

    def context(self, name: str = "m1", ahead: int = 0) -> ReloadableContext:
        return ReloadableContext(
            self.files,
            lambda files: server_context(files, alpn=CLIENT_PORT),
            judge_of(
                trust_domain=TRUST_DOMAIN,
                kind="server",
                name=name,
                now=lambda: int(time.time()) + ahead,
            ),
        )


def _other_key(side: Side, pki: Pki) -> None:
    Path(side.files.key).write_bytes(pki.leaf("server", "m2").key_path.read_bytes())


def _other_leaf(side: Side, pki: Pki) -> None:
    _other_key(side, pki)
    Path(side.files.cert).write_bytes(pki.leaf("server", "m2").cert_path.read_bytes())


def _open_key(side: Side, pki: Pki) -> None:
    Path(side.files.key).chmod(0o644)


def _encrypted_key(side: Side, pki: Pki) -> None:
    key = load_pem_private_key(Path(side.files.key).read_bytes(), None)
    Path(side.files.key).write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )


def _root_as_anchor(side: Side, pki: Pki) -> None:
    Path(side.files.ca).write_bytes((pki.directory / "root.pem").read_bytes())


def _leaf_as_anchor(side: Side, pki: Pki) -> None:
    Path(side.files.ca).write_bytes(pki.leaf("user", "root").cert_path.read_bytes())


def _user_leaf(side: Side, pki: Pki) -> None:
    leaf = pki.leaf("user", "root")
    Path(side.files.cert).write_bytes(leaf.cert_path.read_bytes())
    Path(side.files.key).write_bytes(leaf.key_path.read_bytes())


BREAK: list[tuple[Callable[[Side, Pki], object], str]] = [
    (_other_key, "KEY_VALUES_MISMATCH"),
    (_other_leaf, "is server/m2, not server/m1"),
    (_open_key, "chmod 600"),
    (_encrypted_key, "c.key"),
    (_root_as_anchor, "path length"),
    (_leaf_as_anchor, "no CA"),
    (_user_leaf, "this kind of identity"),
    (lambda s, p: Path(s.files.cert).unlink(), "No such file"),
    (lambda s, p: Path(s.files.ca).write_bytes(b""), "empty"),
    (lambda s, p: Path(s.files.cert).write_bytes(b"junk"), "no certificate"),
    (lambda s, p: Path(s.files.key).write_bytes(b"x" * 70_000), "too long"),
]


@pytest.mark.parametrize(("damage", "reason"), BREAK, ids=[r for _, r in BREAK])
def test_bad_files_never_replace_a_context_that_works(
    pki: Pki, tmp_path: Path, damage: Callable[[Side, Pki], object], reason: str
) -> None:
    side = Side(pki, tmp_path)
    context = side.context()
    before = context.current
    damage(side, pki)
    assert reason in context.reload()
    assert context.current is before
    shaken(before, client_context(pki.files("user", "root", "server"), alpn=["h2"]))
    with pytest.raises(TlsSetupError, match=reason):
        side.context()


def test_good_files_take_effect_for_the_next_connection(pki: Pki, tmp_path: Path) -> None:
    side = Side(pki, tmp_path)
    context = side.context(name="")
    client = client_context(pki.files("user", "root", "server"), alpn=["h2"])
    old = shaken(context.current, client)
    _other_leaf(side, pki)
    assert context.reload() == ""
    new = shaken(context.current, client)
    assert old.client.peer_der == pki.der("server", "m1")
    assert new.client.peer_der == pki.der("server", "m2")
    assert old.server.receive(old.client.send(b"still here"))[0] == b"still here"


def test_an_expired_leaf_or_ca_is_noticed_before_it_is_served(pki: Pki, tmp_path: Path) -> None:
    side = Side(pki, tmp_path)
    with pytest.raises(TlsSetupError, match="expired"):
        side.context(ahead=40 * 86_400)


def test_files_that_change_while_they_are_read(pki: Pki, tmp_path: Path) -> None:
    side = Side(pki, tmp_path)

    def build(files: TlsFiles) -> ssl.SSLContext:
        made = server_context(files, alpn=CLIENT_PORT)
        Path(files.ca).write_bytes(Path(files.ca).read_bytes() + b"\n")
        return made

    with pytest.raises(TlsSetupError, match="changed while"):
        ReloadableContext(side.files, build, lambda files: None)


def test_a_peer_leaf_must_come_from_the_peer_ca(pki: Pki) -> None:
    odd = odd_leaf(
        pki.authority("client"),
        uris=[uri("member", "00000000000000ff")],
        usages=[CLIENT, SERVER],
    )
    files = pki.write("stray", odd.certificate, odd.key, "peer")
    judge = judge_of(trust_domain=TRUST_DOMAIN, kind="member", now=lambda: int(time.time()))
    with pytest.raises(TlsSetupError, match="not issued by"):
        judge(files)
    judge(pki.member_files(1))
    assert ALPN_PEER[0] not in CLIENT_PORT  # a peer connection is not taken for a client's
