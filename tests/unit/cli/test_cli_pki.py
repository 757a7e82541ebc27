"""pki init, issue, renew, show; debug log."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from configsvc.cli.commands_pki import read_leaf
from configsvc.identity.certificate import parse_leaf
from configsvc.identity.profiles import PROFILES
from tests.support.cli_runner import Shell

DAY_NS = 86_400 * 1_000_000_000


@pytest.fixture
def pki(shell: Shell, tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    made = shell.ok("pki", "init", str(directory), "--trust-domain", "dev.example", "--json").json
    assert [Path(one["cert"]).name for one in made] == ["user-root.pem"]
    return directory


def test_init_makes_all_that_a_first_start_needs(shell: Shell, tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    cluster = "m1=https://127.0.0.1:2380,m2=https://db2.example:2380"
    words = ["pki", "init", str(directory), "--trust-domain", "dev.example", "--development"]
    made = shell.ok(*words, "--initial-cluster", cluster, "--host", "localhost", "--json").json
    assert len(made) == 5
    peer = read_leaf(directory / "m1" / "peer.pem")
    assert (peer.kind, peer.name) == (
        "member",
        shell.ok("pki", "member-id", "https://127.0.0.1:2380").out.strip(),
    )
    assert peer.ips == ("127.0.0.1",)
    server = read_leaf(directory / "m2" / "server.pem")
    assert (server.name, server.dns) == ("m2", ("db2.example", "localhost"))
    for one in made:
        assert Path(one["key"]).stat().st_mode & 0o777 == 0o600
        pem = x509.load_pem_x509_certificate(Path(one["cert"]).read_bytes())
        parse_leaf(
            pem.public_bytes(Encoding.DER), trust_domain="dev.example", kinds=frozenset(PROFILES)
        )
    assert shell.run(*words).code == 78  # never overwritten


def test_bad_calls(shell: Shell, pki: Path, tmp_path: Path) -> None:
    init = ["init", str(tmp_path / "x"), "--trust-domain"]
    for words, code in (
        ([*init, "UPPER"], 2),
        ([*init, "a", "--initial-cluster", "x"], 2),
        ([*init, "a", "--initial-cluster", "m=https://h:port"], 2),
        ([*init, "a", "--initial-cluster", "m=https://[::1"], 2),
        (["pki", "member-id", "nonsense"], 2),
        ([*init, "a", "--initial-cluster", "../m=https://h:1"], 2),
        (["issue", str(pki), "user", "Alice"], 2),
        (["issue", str(pki), "user", "alice", "--host", "h"], 2),
        (["issue", str(pki), "user", "alice", "--lifetime", "99d"], 2),
        (["issue", str(pki), "robot", "alice"], 2),
        (["issue", str(tmp_path / "no"), "user", "alice"], 78),
        (["issue", str(pki), "user", "alice", "--kek", "/no/such"], 78),
        (["show", "/no/such"], 2),
        (["renew", str(pki), str(pki / "root.pem")], 2),
    ):  # fmt: skip
        ran = shell.run("pki", *words)
        assert (ran.code, len(ran.err.splitlines())) == (code, 1), words
    assert not (tmp_path / "x").exists()


def test_issue_and_lifetimes(shell: Shell, pki: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "users")
    shell.ok("pki", "issue", str(pki), "user", "alice", "--out", out)
    leaf = read_leaf(tmp_path / "users" / "user-alice.pem")
    assert leaf.uri == "spiffe://dev.example/user/alice"
    assert abs(leaf.not_after_ns - leaf.not_before_ns - DAY_NS // 2) < DAY_NS // 100
    shell.ok("pki", "issue", str(pki), "user", "bob", "--out", out, "--longest")
    bob = read_leaf(tmp_path / "users" / "user-bob.pem")
    assert bob.not_after_ns - leaf.not_after_ns > DAY_NS // 3
    shell.ok("pki", "issue", str(pki), "agent", "web-1", "--out", out, "--lifetime", "2h")
    assert shell.ok("pki", "show", str(tmp_path / "users" / "user-bob.pem")).out.count(" ok ") == 1


def test_a_request_brings_only_its_key(shell: Shell, pki: Path, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    plain = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    path = tmp_path / "request"
    path.write_bytes(plain.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    pem = shell.ok("pki", "issue", str(pki), "user", "alice", "--csr", str(path)).out
    cert = x509.load_pem_x509_certificate(pem.encode())
    assert cert.public_key() == key.public_key()
    greedy = plain.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path.write_bytes(greedy.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    assert shell.run("pki", "issue", str(pki), "user", "alice", "--csr", str(path)).code == 2
    path.write_bytes(b"-----BEGIN nonsense")
    assert shell.run("pki", "issue", str(pki), "user", "alice", "--csr", str(path)).code == 2


def test_renew_keeps_names_hosts_and_files(shell: Shell, pki: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["pki", "issue", str(pki), "server", "s1", "--out", str(out), "--host", "127.0.0.1"]
    shell.ok(*words)
    path = out / "server-s1.pem"
    before = path.read_bytes()
    assert "left as they are" in shell.ok("pki", "renew", str(pki), str(path)).err
    assert path.read_bytes() == before
    old = read_leaf(path)
    shell.ok("pki", "renew", str(pki), str(path), "--force")
    new = read_leaf(path)
    assert new.serial != old.serial
    assert (new.uri, new.ips) == (old.uri, old.ips)
    assert sorted(one.name for one in out.iterdir()) == ["server-s1.key", "server-s1.pem"]


def test_show_says_when_a_certificate_is_out_of_time(
    shell: Shell, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * DAY_NS)
    ran = shell.run("pki", "show", str(pki / "user-root.pem"))
    assert ran.code == 1
    assert "NOT VALID NOW" in ran.out


def test_rewrap_names_what_is_no_member_and_keys_that_lie_inside(
    shell: Shell, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    old, new = str(tmp_path / "old.key"), str(tmp_path / "new.key")
    inside = str(data / "inside.key")
    for path in (old, new, inside):
        shell.ok("pki", "keyfile", path)
    words = ["pki", "rewrap", str(data), "--encryption-key-file", old]
    ended = shell.run(*words, "--new-encryption-key-file", new)
    assert ended.code == 78
    assert "no member's data directory" in ended.err
    ended = shell.run(*words, "--new-encryption-key-file", inside)
    assert ended.code == 78
    assert "inside the data directory" in ended.err
