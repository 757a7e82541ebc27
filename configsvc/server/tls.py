"""TLS of the two ports out of a member's settings."""

from __future__ import annotations

import ssl
import time

from configsvc.config import ServerConfig, TlsSettings
from configsvc.errors import ConfigError
from configsvc.identity.revocation_lists import Revocations
from configsvc.identity.tls_files import judge_of
from configsvc.net.contexts import (
    ALPN_CLIENT_PORT,
    ALPN_PEER,
    Judge,
    ReloadableContext,
    TlsFiles,
    TlsSetupError,
    client_context,
    server_context,
)
from configsvc.server.logs import Log
from configsvc.transport.link import PeerTls
from configsvc.types import KIND_MEMBER, KIND_SERVER


def _files(settings: TlsSettings) -> TlsFiles:
    return TlsFiles(
        settings.cert_file, settings.key_file, settings.trusted_ca_file, settings.crl_file
    )


def _judge(config: ServerConfig, kind: str, name: str = "") -> Judge:
    return judge_of(
        trust_domain=config.trust_domain, kind=kind, name=name, now=lambda: int(time.time())
    )


class ClientTls:
    """The client port's context, replaced on SIGHUP."""

    def __init__(self, config: ServerConfig, log: Log) -> None:
        self._context: ReloadableContext | None = None
        self._revocations = Revocations()
        if not config.client_tls.cert_file:
            return
        mutual = bool(config.client_tls.trusted_ca_file)
        try:
            self._context = ReloadableContext(
                _files(config.client_tls),
                lambda files: server_context(
                    files,
                    alpn=ALPN_CLIENT_PORT,
                    min_version=config.tls_min_version,
                    client_certs=mutual,
                ),
                self._revocations.judging(
                    _judge(config, KIND_SERVER) if not config.insecure_dev else _no_judge
                ),
            )
            self._revocations.take()
        except TlsSetupError as error:
            raise ConfigError(
                str(error), "name a certificate, its key and the issuing CA"
            ) from None

    def context(self) -> ssl.SSLContext:
        """The context for the next connection."""
        if self._context is None:
            raise ConfigError("an https URL without a certificate", "give --cert-file")
        return self._context.current

    def reload(self) -> str:
        """Empty when the files on disk are in force."""
        problem = self._context.reload() if self._context is not None else ""
        if not problem:
            self._revocations.take()
        return problem

    @property
    def revoked(self) -> frozenset[str]:
        """Serials that ``--client-crl-file`` names; TLS asks it for new connections only."""
        return self._revocations.serials


def _no_judge(_: TlsFiles) -> None:
    return


def peer_tls(config: ServerConfig, self_id: int) -> PeerTls | None:
    """Contexts of the peer port; None for plaintext under --insecure-dev."""
    if not config.peer_tls.cert_file:
        return None
    files = _files(config.peer_tls)
    revocations = Revocations()
    judge = revocations.judging(_judge(config, KIND_MEMBER, f"{self_id:016x}"))
    try:
        made = PeerTls(
            ReloadableContext(files, lambda f: server_context(f, alpn=ALPN_PEER), judge),
            ReloadableContext(files, lambda f: client_context(f, alpn=ALPN_PEER), judge),
            config.trust_domain,
            revocations,
        )
    except TlsSetupError as error:
        raise ConfigError(
            str(error), "name the member's certificate, key and the peer CA"
        ) from None
    revocations.take()
    return made
