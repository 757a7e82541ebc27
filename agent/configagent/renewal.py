"""The agent's own certificate: asked for again in time, and taken up without a restart (I2, D7).

Between 60 % and two thirds of its life, a point that each certificate has of its own, a new key and
a request for the same name are made and the configured command is run; it prints the certificate.
What it printed is judged before anything is replaced. Who signs, and how the request gets there, is
the command's business. Without a command somebody else renews the files; they are taken up alike.

Always true: key and certificate fit each other on disk, or ``<cert>.new`` is there and fits the key
in place; ``finish`` goes on from there. The key never leaves this node and its folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from configagent import commands
from configagent.errors import SettingsError
from configagent.log import Log
from configagent.records import replace_file
from configagent.report import certificate_lifetime_ns
from configagent.settings import Store
from configsvc import limits

CHECK_S: Final = 30.0
EARLIEST, LATEST = 0.6, 2 / 3  # of its life (PKI-8)
RETRY_S: Final = (60.0, 3600.0)
REQUEST: Final = "renew.csr"
_NEW: Final = ".new"
_SAID_CHARS_MAX: Final = 300  # of what a failed command printed
_ISSUERS_MAX: Final = 4  # between a leaf and its root
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)
Names = x509.SubjectAlternativeName


class RenewalError(Exception):
    """Why there is no new certificate; safe to show."""


class Request(NamedTuple):
    """A new key and what asks for a certificate of it."""

    key: ec.EllipticCurvePrivateKey
    csr_pem: bytes

    def key_pem(self) -> bytes:
        """The key, for the private file."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def due_ns(begins_ns: int, ends_ns: int, certificate: bytes) -> int:
    """When a certificate is to be renewed; the same answer for the same one, spread over many."""
    chance = int.from_bytes(hashlib.sha256(certificate).digest()[:4], "big") / 2**32
    share = EARLIEST + (LATEST - EARLIEST) * chance
    return begins_ns + int((ends_ns - begins_ns) * share)


def make_request(current: x509.Certificate) -> Request:
    """A new key, and a request for the names of ``current`` and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = current.extensions.get_extension_for_class(Names).value
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.add_extension(names, critical=True).sign(key, hashes.SHA256())
    return Request(key, csr.public_bytes(serialization.Encoding.PEM))


def judge(printed: str, current: x509.Certificate, request: Request, now_ns: int) -> bytes:
    """The new certificate out of what a command printed, with the issuers that follow it, as PEM.

    Raises:
        RenewalError: it is none, of another key or name, not valid now, or ends no later.
    """
    found = _CERTIFICATE.search(printed)
    if found is None:
        raise RenewalError("the command printed no certificate")
    try:
        fresh = x509.load_pem_x509_certificate(found[0].encode())
        names = fresh.extensions.get_extension_for_class(Names).value
        same_key = fresh.public_key() == request.key.public_key()
    except Exception:  # noqa: BLE001  # any doubt means no
        raise RenewalError("the command printed a certificate that cannot be read") from None
    if not same_key:
        raise RenewalError("the new certificate is of another key")
    if names != current.extensions.get_extension_for_class(Names).value:
        raise RenewalError("the new certificate is of another name")
    if fresh.not_valid_before_utc.timestamp() > now_ns / 1e9:
        raise RenewalError("the new certificate is not valid yet: compare the clocks")
    if fresh.not_valid_after_utc <= current.not_valid_after_utc:
        raise RenewalError("the new certificate ends no later than the old one")
    return b"".join(pem + b"\n" for pem in _chain(found[0], printed[found.end() :], fresh))


def _chain(leaf: str, rest: str, fresh: x509.Certificate) -> list[bytes]:
    """The leaf and, as far as they were printed in their order, those that vouch for it.

    A member that trusts only the root needs those between; the root itself is left out.
    """
    chain, last = [leaf.encode()], fresh
    for found in _CERTIFICATE.findall(rest)[:_ISSUERS_MAX]:
        try:
            issuer = x509.load_pem_x509_certificate(found.encode())
            last.verify_directly_issued_by(issuer)
        except Exception:  # noqa: BLE001  # not an issuer of ours: it is of no use
            break
        if _is_root(issuer):
            break
        chain.append(found.encode())
        last = issuer
    return chain


def _is_root(certificate: x509.Certificate) -> bool:
    """Whether its own key signed it; the same name alone is a CA that changed its key."""
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # noqa: BLE001  # as above
        return False
    return True


def install(cert: str, key: str, cert_pem: bytes, key_pem: bytes) -> None:
    """Put a pair in the place of the old one. ``<cert>.new`` beside its key decides.

    Raises:
        OSError: it is not in place; ``finish`` may still put it there, or the next attempt does.
    """
    finish(cert, key)  # of an earlier attempt: its key must not be lost while its certificate waits
    _write(key + _NEW, key_pem, 0o600)
    _write(cert + _NEW, cert_pem, 0o644)
    finish(cert, key)


def finish(cert: str, key: str) -> bool:
    """Go on with an installation that was cut off; whether there was one.

    A ``<cert>.new`` that fits neither key is of an attempt that was given up, or not ours: it and
    the pair in use are left alone.

    Raises:
        OSError: it cannot be finished.
    """
    fresh = _certified(cert + _NEW) if cert else None
    if fresh is None:
        return False
    if fresh == _public(key + _NEW):
        os.rename(key + _NEW, key)
        _sync(os.path.dirname(key))
    elif fresh != _public(key):
        return False
    os.rename(cert + _NEW, cert)
    _sync(os.path.dirname(cert))
    return True


def _certified(cert: str) -> object | None:
    """The public key in a certificate; None when there is none to read."""
    try:
        return x509.load_pem_x509_certificate(_read(cert)).public_key()
    except (OSError, ValueError):
        return None


def _public(key: str) -> object | None:
    """The public half of a private key; None when there is none to read."""
    try:
        return serialization.load_pem_private_key(_read(key), None).public_key()
    except (OSError, ValueError, TypeError):
        return None


def _write(path: str, data: bytes, mode: int) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        replace_file(folder, os.path.basename(path), data)
        os.chmod(os.path.basename(path), mode, dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(limits.TRUST_BUNDLE_BYTES_MAX)


def _sync(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def finish_at_start(store: Store) -> None:
    """As ``finish``, before the files are used.

    Raises:
        SettingsError: the pair on disk may not fit, and cannot be put right.
    """
    try:
        finish(store.cert, store.key)
    except OSError as error:
        raise SettingsError(f"{store.cert}{_NEW}: {error.strerror}: move it by hand") from None


class CertificateKeeper:
    """Renews the certificate, and takes up every new one.

    ``take_up`` makes new connections with the files as they are now; it raises when it cannot.
    """

    def __init__(
        self, store: Store, state_dir: str, log: Log, take_up: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._state_dir = state_dir
        self._log = log
        self._take_up = take_up
        self._failures = 0
        self._not_before = 0.0  # monotonic: no attempt earlier

    async def run(self) -> None:
        """Until cancelled; returns at once where there is no certificate."""
        cert, key = self._store.cert, self._store.key
        seen = _stamp(cert), _stamp(key)
        while cert:
            await self.renew_if_due()
            # Both: who replaces them from outside does so one after the other.
            now = _stamp(cert), _stamp(key)
            if now != seen:
                seen = now
                await self._use()
            await asyncio.sleep(CHECK_S)

    async def _use(self) -> None:
        try:
            await self._take_up()
            self._log.event("certificate_renewed")
        except Exception as error:  # noqa: BLE001  # the old connection goes on
            self._log.event("certificate_bad", level="warning", why=str(error))

    async def renew_if_due(self) -> None:
        """Ask for a new certificate when it is time; a failure is said and tried again."""
        if self._store.renew is None or time.monotonic() < self._not_before:
            return
        now_ns = time.time_ns()
        begins, ends = certificate_lifetime_ns(self._store.cert)
        if not begins or now_ns >= ends:
            return  # nothing to go on from: who has no valid identity is enrolled again
        try:
            pem = _read(self._store.cert)
            if now_ns < due_ns(begins, ends, pem):
                return
            await self._renew(x509.load_pem_x509_certificate(pem), now_ns)
            self._failures = 0
        except Exception as error:  # noqa: BLE001  # whatever it was, the next attempt comes
            self._failures += 1
            pause = min(RETRY_S[1], RETRY_S[0] * float(2 ** min(self._failures - 1, 16)))
            pause *= 0.5 + random.random() / 2  # noqa: S311  # jitter
            self._not_before = time.monotonic() + pause
            why = (error.strerror or "disk error") if isinstance(error, OSError) else str(error)
            late = ends - now_ns < (ends - begins) * 0.3
            self._log.event(
                "certificate_not_renewed", level="error" if late else "warning", why=why,
                hours_left=round((ends - now_ns) / 3.6e12, 1),
            )  # fmt: skip

    async def _renew(self, current: x509.Certificate, now_ns: int) -> None:
        command, store = self._store.renew, self._store
        if command is None:
            return
        request = make_request(current)
        path = os.path.join(self._state_dir, REQUEST)
        _write(path, request.csr_pem, 0o600)
        ran = await commands.run(command, {"csr": path})
        if not ran.ok:
            said = " ".join(ran.output.split())[:_SAID_CHARS_MAX]
            raise RenewalError(f"{command.argv[0]}: {ran.explain()}: {said}".rstrip(": "))
        fresh = judge(ran.output, current, request, now_ns)
        install(store.cert, store.key, fresh, request.key_pem())


def _stamp(path: str) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError:
        return (0, 0)
    return (info.st_mtime_ns, info.st_ino)
