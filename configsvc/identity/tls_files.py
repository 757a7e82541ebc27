"""Whether a side's TLS files may be used: our own leaf, its key's mode, the trust bundle (PKI-15).

Handed to ``net.contexts.ReloadableContext`` as its judge, so a renewed file with the wrong name,
an expired CA or a key that others can read never replaces a context that works.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from configsvc.identity.bundles import check_issued_by, validate_bundle
from configsvc.identity.certificate import CertificateRejected, check_time, parse_leaf
from configsvc.identity.errors import BundleRejected
from configsvc.net.contexts import Judge, TlsFiles, TlsSetupError, read_pem
from configsvc.types import KIND_MEMBER


def judge_of(*, trust_domain: str, kind: str, name: str = "", now: Callable[[], int]) -> Judge:
    """A judge of the files of one side.

    Args:
        trust_domain: of our own leaf.
        kind: of our own leaf: member, server, or a client's kind.
        name: the name part it must have; "" is any.
        now: seconds, asked at each load.
    """

    def judge(files: TlsFiles) -> None:
        moment = now()
        check_private_key(files.key)
        leaf_pem = read_pem(files.cert)
        _check_own_leaf(files, leaf_pem, trust_domain, kind, name, moment)
        if not files.ca:
            return
        try:
            anchors = validate_bundle(read_pem(files.ca), moment)
        except BundleRejected as error:
            raise TlsSetupError(f"{files.ca}: {error}") from None
        if kind == KIND_MEMBER:  # both ends come from the one peer CA
            try:
                check_issued_by(leaf_pem, anchors)
            except CertificateRejected as error:
                raise TlsSetupError(f"{files.cert}: {error.reason}") from None

    return judge


def check_private_key(path: str) -> None:
    """A key is a regular file of ours that nobody else can reach (DEF-6).

    Raises:
        TlsSetupError: missing, or too open; the text says what to do.
    """
    try:
        facts = os.stat(path)
    except OSError as error:
        raise TlsSetupError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise TlsSetupError(f"{path}: not a regular file")
    if facts.st_uid not in (os.geteuid(), 0):
        raise TlsSetupError(f"{path}: owned by somebody else")
    if facts.st_mode & 0o077:
        raise TlsSetupError(f"{path}: others may reach it (chmod 600)")


def _check_own_leaf(
    files: TlsFiles, pem: bytes, trust_domain: str, kind: str, name: str, now: int
) -> None:
    try:
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except ValueError:
        raise TlsSetupError(f"{files.cert}: holds no certificate") from None
    try:
        leaf = parse_leaf(der, trust_domain=trust_domain, kinds=frozenset({kind}))
        check_time(leaf, now)
    except CertificateRejected as error:
        raise TlsSetupError(f"{files.cert}: {error.reason}") from None
    if name and leaf.name != name:
        raise TlsSetupError(f"{files.cert}: is {kind}/{leaf.name}, not {kind}/{name}")
