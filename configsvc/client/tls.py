"""TLS files and channel options of a client.

Always true: the server's certificate is checked against the given bundle and the dialled host
name; proxies from the environment are never followed; the environment cannot make gRPC print
tokens. Files are read each time a channel is made, so a renewed certificate counts at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from configsvc import limits
from configsvc.client.endpoints import Endpoint
from configsvc.client.errors import EndpointError
from configsvc.identity.bundles import validate_bundle
from configsvc.identity.errors import BundleRejected

CHANNEL_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # else a new certificate would ride old connections
    ("grpc.keepalive_time_ms", int(limits.CLIENT_KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(limits.CLIENT_KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", int(limits.CLIENT_BACKOFF_MIN_S * 1000)),
    ("grpc.min_reconnect_backoff_ms", int(limits.CLIENT_CONNECT_TIMEOUT_S * 1000)),
    ("grpc.max_reconnect_backoff_ms", int(limits.CLIENT_BACKOFF_MAX_S * 1000)),
    ("grpc.max_receive_message_length", limits.CLIENT_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.CLIENT_MESSAGE_BYTES_MAX),
    ("grpc.primary_user_agent", "configsvc-client"),
)


class TlsFiles(NamedTuple):
    """PEM files. ``ca`` holds the server CA; ``cert`` and ``key`` are this client's identity.

    ``foreign``: the servers are an etcd's, whose CA is made otherwise than ours; it must be in
    time all the same.
    """

    ca: str
    cert: str
    key: str
    foreign: bool = False


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise EndpointError(f"{what} {path}: {error.strerror}") from None


def is_private(mode: int, owner: int, ours: int) -> bool:
    """Whether a key file is nobody else's business.

    Root may let a group read it, or us by an access list, which shows as the group's bit: so lie
    a service manager's credentials.
    """
    allowed = 0o040 if owner == 0 != ours else 0
    return not mode & 0o077 & ~allowed


def _read_key(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            info = os.fstat(file.fileno())
            if not is_private(info.st_mode, info.st_uid, os.geteuid()):
                raise EndpointError(f"client key {path}: others may read it: chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise EndpointError(f"client key {path}: {error.strerror}") from None


def _check_foreign(pem: bytes, now: int) -> None:
    try:
        anchors = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BundleRejected("holds no certificate that can be read") from None
    for anchor in anchors:
        if now < anchor.not_valid_before_utc.timestamp():
            raise BundleRejected("an anchor is not valid yet")
        if now > anchor.not_valid_after_utc.timestamp():
            raise BundleRejected("an anchor has expired")


def _check_pair(files: TlsFiles, chain: bytes, key: bytes) -> None:
    """The TLS library takes what does not fit without a word, and then never connects."""
    try:
        leaf = x509.load_pem_x509_certificate(chain)
    except ValueError:
        raise EndpointError(f"client certificate {files.cert}: holds no certificate") from None
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise EndpointError(
            f"client key {files.key}: holds no private key that can be read without a password"
        ) from None
    if private.public_key() != leaf.public_key():
        raise EndpointError(
            f"client certificate {files.cert} and key {files.key} do not belong to each other"
        )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Read the files.

    Raises:
        EndpointError: a file is missing or unreadable, others may read the key, certificate and
            key do not belong to each other, or the bundle is missing or holds anything but valid
            issuing CAs (of a foreign cluster: anchors in time).
    """
    if not files.ca:
        raise EndpointError("https needs the cluster's CA bundle (cacert)")
    if bool(files.cert) != bool(files.key):
        raise EndpointError("a client certificate and its key go together (cert, key)")
    roots = _read(files.ca, "CA bundle")
    try:
        # The TLS library takes an expired anchor, or a leaf as anchor, without a word (PKI-2).
        (_check_foreign if files.foreign else validate_bundle)(roots, int(time.time()))
    except BundleRejected as error:
        raise EndpointError(f"CA bundle {files.ca}: {error}") from None
    if not files.cert:
        return grpc.ssl_channel_credentials(roots)
    chain = _read(files.cert, "client certificate")
    key = _read_key(files.key)
    _check_pair(files, chain, key)
    return grpc.ssl_channel_credentials(roots, key, chain)


def refuse_tracing(environment: Mapping[str, str] = os.environ) -> None:
    """Stop when gRPC was told to print what it sends, tokens included.

    Raises:
        EndpointError: ``GRPC_TRACE`` is set, or ``GRPC_VERBOSITY`` is ``debug``.
    """
    if environment.get("GRPC_TRACE"):
        raise EndpointError("GRPC_TRACE would print tokens: unset it")
    if environment.get("GRPC_VERBOSITY", "").lower() == "debug":
        raise EndpointError("GRPC_VERBOSITY=debug would print tokens: unset it")


class ChannelMaker(NamedTuple):
    """Makes channels for the sync (``open``) or the async client (``open_async``)."""

    files: TlsFiles

    def open(self, endpoint: Endpoint) -> grpc.Channel:
        """A channel that connects on first use."""
        if not endpoint.secure:
            return grpc.insecure_channel(endpoint.target, CHANNEL_OPTIONS)
        return grpc.secure_channel(
            endpoint.target, channel_credentials(self.files), CHANNEL_OPTIONS
        )

    def open_async(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """The same for ``grpc.aio``; call it on the event loop."""
        if not endpoint.secure:
            return grpc.aio.insecure_channel(endpoint.target, CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(
            endpoint.target, channel_credentials(self.files), CHANNEL_OPTIONS
        )
