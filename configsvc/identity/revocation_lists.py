"""Revocation lists: the serials a ``--*-crl-file`` names (PKI-13).

OpenSSL asks a list once, when a connection begins. What is read here is for the connections that
are open by then: their owners ask ``Revocations`` and cut them.

Always true:
  * A list counts only when a CA of the side's own bundle signed it; of one CA the newest counts.
  * Serials change together with the contexts of a reload, or not at all.

Not here: the replicated deny-list (``auth.state``), new connections (``net.contexts``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from configsvc.identity.errors import BundleRejected
from configsvc.limits import CRL_BYTES_MAX
from configsvc.net.contexts import Judge, TlsFiles, TlsSetupError, read_pem

_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
LISTS_MAX: Final = 64  # in one file

NOTHING: Final[frozenset[str]] = frozenset()


class Revocations:
    """Serials that the list of one side names, of the files in force."""

    def __init__(self) -> None:
        self._read = NOTHING
        self.serials = NOTHING  # lower-case hex without leading zeros

    def judging(self, judge: Judge) -> Judge:
        """``judge``, which then reads the list of the same files too."""

        def judged(files: TlsFiles) -> None:
            judge(files)
            self._read = _serials_of(files)

        return judged

    def take(self) -> None:
        """The files judged last are in force."""
        self.serials = self._read


def _serials_of(files: TlsFiles) -> frozenset[str]:
    if not files.crl or not files.ca:
        return NOTHING
    try:
        anchors = x509.load_pem_x509_certificates(read_pem(files.ca))
        return revoked_serials(read_pem(files.crl, CRL_BYTES_MAX), anchors)
    except (ValueError, BundleRejected) as error:
        reason = str(error) if isinstance(error, BundleRejected) else "its CA cannot be parsed"
        raise TlsSetupError(f"{files.crl}: {reason}") from None


def revoked_serials(pem: bytes, anchors: Sequence[x509.Certificate]) -> frozenset[str]:
    """The serials revoked by the lists of a PEM file.

    Args:
        pem: one list per CA; what else the file holds is not looked at.
        anchors: a list that none of these signed does not count.

    Raises:
        BundleRejected: a list cannot be parsed, or none counts: TLS would refuse everybody.
    """
    newest: dict[bytes, x509.CertificateRevocationList] = {}
    blocks = _LIST.findall(pem, 0)[: LISTS_MAX + 1]
    if len(blocks) > LISTS_MAX:
        raise BundleRejected("too many revocation lists")
    for block in blocks:
        try:
            found = x509.load_pem_x509_crl(block)
            issuer = found.issuer.public_bytes()
            signed = any(_signed_by(found, anchor) for anchor in anchors)
        except Exception:  # noqa: BLE001  # any doubt means no (FC-6)
            raise BundleRejected("a revocation list cannot be parsed") from None
        before = newest.get(issuer)
        if signed and (before is None or before.last_update_utc < found.last_update_utc):
            newest[issuer] = found
    if not newest:
        raise BundleRejected("no revocation list of a CA that is trusted here")
    return frozenset(format(entry.serial_number, "x") for each in newest.values() for entry in each)


def _signed_by(found: x509.CertificateRevocationList, anchor: x509.Certificate) -> bool:
    public = anchor.public_key()
    # RSA: of foreign PKIs under --insecure-dev; elsewhere no leaf of such a CA is let in.
    if found.issuer != anchor.subject or not isinstance(
        public, EllipticCurvePublicKey | RSAPublicKey
    ):
        return False
    return found.is_signature_valid(public)
