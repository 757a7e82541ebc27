"""A directory with the cluster's PKI: the authorities, and leaves issued from them.

``configctl pki`` and the development cluster work on such a directory; servers and clients get
only the bundles and their own leaves out of it. CA keys are sealed under a key-encryption key,
``ca.kek`` in the directory unless another is handed in; who keeps the root offline moves
``root.key`` away.

Not here: what a leaf may say (``identity.authority``), enrolment over the network (``api``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from configsvc.errors import ConfigError, ConfigServiceError
from configsvc.identity.authority import (
    Authority,
    certificate_pem,
    key_pem,
    make_issuing,
    make_root,
    new_key,
)
from configsvc.identity.errors import IssueRefused
from configsvc.identity.files import (
    PRIVATE,
    PUBLIC,
    make_private_directory,
    read_file,
    write_file,
)
from configsvc.identity.member_ids import member_name, member_of_text
from configsvc.identity.profiles import ISSUING_CAS, LIFETIME_MAX, PROFILES
from configsvc.identity.requests import Enrolment, issue_from_csr
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import KIND_MEMBER, KIND_SERVER

__all__ = [
    "LIFETIME_MAX",
    "Enrolment",
    "LeafFiles",
    "MemberFiles",
    "init_pki",
    "issue",
    "issue_from_csr",
    "issue_member",
    "load_authority",
    "needs_reissue",
    "trust_domain_of",
]

_FACTS: Final = "pki.json"  # written last: its presence means "complete"
_KEK: Final = "ca.kek"
_FORMAT: Final = 1
_WAY_OUT: Final = "make an authority: configctl pki init DIR"

PathLike = str | os.PathLike[str]


class LeafFiles(NamedTuple):
    """Where a leaf and its key were written."""

    cert_path: Path
    key_path: Path


class MemberFiles(NamedTuple):
    """The two leaves of one member: for its peers, and for its clients."""

    peer: LeafFiles
    server: LeafFiles


def init_pki(
    directory: PathLike,
    trust_domain: str,
    *,
    development: bool = False,
    key_file: KeyFile | None = None,
    now: int | None = None,
) -> None:
    """Make root, issuing CAs and bundles in a new or empty directory.

    Args:
        directory: becomes 0700. Files: ``root.pem``, ``ca-peer.pem``, ``ca-server.pem``,
            ``ca-client.pem`` and their sealed ``.key``; ``ca-server-chain.pem`` is the server CA
            with its root, for clients whose TLS wants a self-signed end (Python before 3.13).
        trust_domain: of every identity issued here.
        development: leaves get their kind's longest lifetime by default (PKI-8).
        key_file: seals the CA keys; None makes ``ca.kek`` beside them.
        now: seconds; None is the system's time.

    Raises:
        ConfigError: the directory is not empty, or cannot be used.
        IssueRefused: not a trust domain.
    """
    path = Path(directory)
    moment = _now(now)
    root = make_root(trust_domain, moment)
    make_private_directory(path)
    if any(path.iterdir()):
        raise ConfigError(f"{path}: not empty, and a PKI is never overwritten", "name another one")
    sealer = key_file or KeyFile.create(path / _KEK)
    _write_authority(path, "root", root, sealer)
    for purpose in ISSUING_CAS:
        _write_authority(path, f"ca-{purpose}", make_issuing(root, purpose, moment), sealer)
    chain = (path / "ca-server.pem").read_bytes() + (path / "root.pem").read_bytes()
    write_file(path / "ca-server-chain.pem", chain, PUBLIC)
    facts = {"format": _FORMAT, "trust_domain": trust_domain, "development": development}
    write_file(path / _FACTS, json.dumps(facts, indent=1).encode() + b"\n", PUBLIC)


def trust_domain_of(directory: PathLike) -> str:
    """The trust domain that a PKI directory was made for.

    Raises:
        ConfigError: there is no complete PKI.
    """
    return str(_facts(Path(directory))["trust_domain"])


def issue(
    directory: PathLike,
    kind: str,
    name: str,
    *,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    lifetime_s: int | None = None,
    out: PathLike | None = None,
    stem: str = "",
    key_file: KeyFile | None = None,
    now: int | None = None,
) -> LeafFiles:
    """Issue a leaf with a new key and write both, replacing an older pair of the same stem.

    Args:
        directory: what ``init_pki`` made.
        kind: user, agent, service, member or server.
        name: the name part; of a member its id in hex.
        dns: host names (member and server only).
        ips: addresses (member and server only).
        lifetime_s: seconds; None is the kind's default, in a development PKI its maximum.
        out: directory for the pair; None is ``directory``.
        stem: file names without ``.pem`` and ``.key``; "" is ``<kind>-<name>``.
        key_file: as for ``init_pki``.
        now: seconds; None is the system's time.

    Raises:
        IssueRefused: kind, name, host or lifetime is not allowed.
        ConfigError: the authority or its key cannot be used, or a file not be written.
    """
    if kind == KIND_MEMBER:
        member = member_of_text(name)
        if member is None:
            raise IssueRefused("name: of a member its id in hex")
        name = member_name(member)
    authority, seconds = _authority_for(directory, kind, lifetime_s, key_file)
    key = new_key()
    leaf = authority.issue(
        kind, name, key.public_key(), now=_now(now), dns=dns, ips=ips, lifetime_s=seconds
    )
    target = Path(out) if out is not None else Path(directory)
    make_private_directory(target)
    base = stem or f"{kind}-{name}"
    files = LeafFiles(target / f"{base}.pem", target / f"{base}.key")
    # Key first: a crash in between leaves a pair that does not match and is refused, not used.
    write_file(files.key_path, key_pem(key), PRIVATE)
    write_file(files.cert_path, certificate_pem(leaf), PUBLIC)
    return files


def issue_member(
    directory: PathLike,
    name: str,
    member: int,
    *,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    lifetime_s: int | None = None,
    out: PathLike | None = None,
    key_file: KeyFile | None = None,
    now: int | None = None,
) -> MemberFiles:
    """Both leaves of a member, as ``peer.pem`` and ``server.pem`` with their keys.

    Args:
        directory: what ``init_pki`` made.
        name: the member's name, for the server leaf's URI.
        member: its id (``identity.member_ids``), for the peer leaf's.
        dns: host names under which peers dial and clients connect.
        ips: addresses, likewise.
        lifetime_s: as for ``issue``.
        out: directory for the four files; None is ``directory``/``name``.
        key_file: as for ``init_pki``.
        now: as for ``issue``.

    Raises:
        IssueRefused: as for ``issue``.
        ConfigError: likewise.
    """
    target = Path(out) if out is not None else Path(directory) / name

    def leaf(kind: str, of: str, stem: str) -> LeafFiles:
        return issue(
            directory,
            kind,
            of,
            dns=dns,
            ips=ips,
            lifetime_s=lifetime_s,
            out=target,
            stem=stem,
            key_file=key_file,
            now=now,
        )

    server = leaf(KIND_SERVER, name, "server")
    return MemberFiles(leaf(KIND_MEMBER, member_name(member), "peer"), server)


def needs_reissue(cert: PathLike, now: int | None = None) -> bool:
    """Whether a leaf is past half of its life, missing, or not a certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(read_file(Path(cert)))
    except (ConfigError, ValueError):
        return True
    begin = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return _now(now) >= begin + (end - begin) / 2


def load_authority(directory: PathLike, purpose: str, key_file: KeyFile | None = None) -> Authority:
    """An issuing CA with its key.

    Args:
        directory: what ``init_pki`` made.
        purpose: "peer", "server" or "client".
        key_file: None reads ``ca.kek``.

    Raises:
        ConfigError: no PKI, or the sealed key does not open.
    """
    path = Path(directory)
    trust_domain = trust_domain_of(path)
    sealer = key_file or KeyFile.load(path / _KEK)
    stem = f"ca-{purpose}"
    where = path / f"{stem}.key"
    try:
        key = serialization.load_der_private_key(sealer.unwrap(read_file(where), _aad(stem)), None)
        certificate = x509.load_pem_x509_certificate(read_file(path / f"{stem}.pem"))
    except ConfigError:
        raise
    except (ConfigServiceError, ValueError):
        raise ConfigError(f"{where}: does not open", "bring the right ca.kek") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise ConfigError(f"{where}: not the key of {stem}.pem", _WAY_OUT)
    return Authority(certificate, key, trust_domain)


def _authority_for(
    directory: PathLike, kind: str, lifetime_s: int | None, key_file: KeyFile | None
) -> tuple[Authority, int | None]:
    """The CA of ``kind``, and the lifetime to ask it for."""
    path = Path(directory)
    if kind not in PROFILES:
        raise IssueRefused("kind: use user, agent, service, member or server")
    authority = load_authority(path, PROFILES[kind].authority, key_file)
    if lifetime_s is not None:
        return authority, lifetime_s
    return authority, LIFETIME_MAX[kind] if _facts(path)["development"] else None


def _write_authority(path: Path, stem: str, authority: Authority, sealer: KeyFile) -> None:
    der = authority.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_file(path / f"{stem}.key", sealer.wrap(der, _aad(stem)), PRIVATE)
    write_file(path / f"{stem}.pem", certificate_pem(authority.certificate), PUBLIC)


def _aad(stem: str) -> bytes:
    return b"configsvc/ca-key/v1/" + stem.encode()


def _facts(path: Path) -> dict[str, Any]:
    where = path / _FACTS
    try:
        facts = json.loads(read_file(where))
    except ValueError:
        raise ConfigError(f"{where}: cannot be parsed", _WAY_OUT) from None
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise ConfigError(f"{where}: of another format", "use the version that made it")
    if not {"trust_domain", "development"} <= facts.keys():
        raise ConfigError(f"{where}: incomplete", _WAY_OUT)
    return facts


def _now(now: int | None) -> int:
    return int(time.time()) if now is None else now
