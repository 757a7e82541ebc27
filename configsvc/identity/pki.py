"""A directory with the cluster's PKI: the authorities and the leaves issued from it.

``configctl pki`` and the development cluster work on such a directory; servers and clients get
only the bundles and their own leaves out of it. CA keys are sealed under a key-encryption key,
``ca.kek`` in the directory unless another is named; who keeps the root offline moves ``root.key``.

Not here: what a leaf may say (``identity.authority``), enrolment over the network (``api``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from configsvc.errors import ConfigServiceError
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
from configsvc.identity.member_ids import member_name
from configsvc.identity.profiles import ISSUING_CAS, PROFILES
from configsvc.identity.requests import Enrolment, issue_from_csr
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.types import KIND_MEMBER, KIND_SERVER

__all__ = [
    "Enrolment",
    "LeafFiles",
    "MemberFiles",
    "init_pki",
    "issue",
    "issue_from_csr",
    "issue_member",
    "load_authority",
    "needs_reissue",
]

_FACTS: Final = "pki.json"
_KEK: Final = "ca.kek"
_FORMAT: Final = 1


class LeafFiles(NamedTuple):
    """Where a leaf and its key were written."""

    cert_path: Path
    key_path: Path


class MemberFiles(NamedTuple):
    """The two leaves of one member: for its peers, and for its clients."""

    peer: LeafFiles
    server: LeafFiles


def init_pki(
    directory: Path | str,
    trust_domain: str,
    *,
    development: bool,
    key_file: KeyFile | None = None,
    now: int | None = None,
) -> None:
    """Make root, issuing CAs and bundles in a new or empty directory.

    Args:
        directory: becomes 0700.
        trust_domain: of every identity issued here.
        development: leaves get their kind's longest lifetime by default (PKI-8).
        key_file: seals the CA keys; None makes ``ca.kek`` beside them.
        now: seconds; None is the system's time.

    Raises:
        IssueRefused: the directory is not empty, or cannot be used.
    """
    path = Path(directory)
    make_private_directory(path)
    if any(path.iterdir()):
        raise IssueRefused(f"{path}: not empty; a PKI is never overwritten")
    moment = _now(now)
    root = make_root(trust_domain, moment)
    sealer = key_file or KeyFile.create(path / _KEK)
    _write_authority(path, "root", root, sealer)
    for purpose in ISSUING_CAS:
        _write_authority(path, f"ca-{purpose}", make_issuing(root, purpose, moment), sealer)
    facts = {"format": _FORMAT, "trust_domain": trust_domain, "development": development}
    write_file(path / _FACTS, json.dumps(facts, indent=1).encode() + b"\n", PUBLIC)


def issue(
    directory: Path | str,
    kind: str,
    name: str,
    *,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    lifetime_s: int | None = None,
    out: Path | str | None = None,
    stem: str | None = None,
    key_file: KeyFile | None = None,
    now: int | None = None,
) -> LeafFiles:
    """Issue a leaf with a new key and write both, replacing an older pair of the same stem.

    Args:
        directory: what ``init_pki`` made.
        kind: user, agent, service, member or server.
        name: the name part; of a member its id in 16 hex digits.
        dns: host names (member and server only).
        ips: addresses (member and server only).
        lifetime_s: None is the kind's default, in a development PKI its maximum.
        out: directory for the pair; None is ``directory``.
        stem: file names without ``.pem`` and ``.key``; None is ``<kind>-<name>``.
        key_file: as for ``init_pki``.
        now: seconds; None is the system's time.

    Raises:
        IssueRefused: not issuable, or the files cannot be read or written.
        ConfigError: the key-encryption key is missing or another one.
    """
    path = Path(directory)
    if kind not in PROFILES:
        raise IssueRefused("kind: user, agent, service, member or server")
    profile = PROFILES[kind]
    authority = load_authority(path, profile.authority, key_file)
    if lifetime_s is None and _facts(path)["development"]:
        lifetime_s = profile.lifetime_max
    key = new_key()
    leaf = authority.issue(
        kind, name, key.public_key(), now=_now(now), dns=dns, ips=ips, lifetime_s=lifetime_s
    )
    target = Path(out) if out is not None else path
    make_private_directory(target)
    base = stem or f"{kind}-{name}"
    files = LeafFiles(target / f"{base}.pem", target / f"{base}.key")
    # Key first: a crash in between leaves a pair that does not match and is refused, not used.
    write_file(files.key_path, key_pem(key), PRIVATE)
    write_file(files.cert_path, certificate_pem(leaf), PUBLIC)
    return files


def issue_member(
    directory: Path | str,
    name: str,
    member: int,
    *,
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    lifetime_s: int | None = None,
    out: Path | str | None = None,
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


def needs_reissue(cert_path: Path | str, now: int) -> bool:
    """Whether a leaf is past half of its life, missing, or not a certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(read_file(Path(cert_path)))
    except (IssueRefused, ValueError):
        return True
    begin = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return now >= begin + (end - begin) / 2


def load_authority(
    directory: Path | str, purpose: str, key_file: KeyFile | None = None
) -> Authority:
    """An issuing CA with its key.

    Args:
        directory: what ``init_pki`` made.
        purpose: "peer", "server" or "client".
        key_file: None reads ``ca.kek``.

    Raises:
        IssueRefused: no PKI, or the sealed key does not open.
        ConfigError: the key-encryption key cannot be used.
    """
    path = Path(directory)
    if purpose not in ISSUING_CAS:
        raise IssueRefused("no such CA")
    facts = _facts(path)
    sealer = key_file or KeyFile.load(path / _KEK)
    stem = f"ca-{purpose}"
    sealed = read_file(path / f"{stem}.key")
    try:
        der = sealer.unwrap(sealed, _aad(stem))
        key = serialization.load_der_private_key(der, None)
        certificate = x509.load_pem_x509_certificate(read_file(path / f"{stem}.pem"))
    except (ConfigServiceError, ValueError):
        raise IssueRefused(f"{path / stem}.key: does not open with this key file") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise IssueRefused(f"{path / stem}.key: not the key of {stem}.pem")
    return Authority(certificate, key, str(facts["trust_domain"]))


def _write_authority(path: Path, stem: str, authority: Authority, sealer: KeyFile) -> None:
    der = authority.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_file(path / f"{stem}.key", sealer.wrap(der, _aad(stem)), PRIVATE, replace=False)
    write_file(path / f"{stem}.pem", certificate_pem(authority.certificate), PUBLIC)


def _aad(stem: str) -> bytes:
    return b"configsvc/ca-key/v1/" + stem.encode()


def _facts(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(read_file(path / _FACTS))
    except ValueError:
        raise IssueRefused(f"{path / _FACTS}: cannot be parsed") from None
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise IssueRefused(f"{path / _FACTS}: made by another version")
    if not {"trust_domain", "development"} <= facts.keys():
        raise IssueRefused(f"{path / _FACTS}: incomplete")
    return facts


def _now(now: int | None) -> int:
    return int(time.time()) if now is None else now
