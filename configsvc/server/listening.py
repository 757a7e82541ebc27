"""Binding the ports of a member out of its settings."""

from __future__ import annotations

from configsvc.api.contract import HttpApp
from configsvc.config import ServerConfig, split_url
from configsvc.errors import ConfigError
from configsvc.frontend.server import Frontend
from configsvc.server.tls import ClientTls
from configsvc.transport.link import PeerTransport


async def listen_peers(config: ServerConfig, peers: PeerTransport) -> None:
    """Bind the peer port.

    Raises:
        ConfigError: 78, the address is taken or not ours.
    """
    urls = config.listen_peer_urls
    try:
        await peers.listen(urls)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {', '.join(urls)}: {error.strerror}",
            "free the port, or choose another with the --listen flags",
        ) from None


def listen_clients(
    config: ServerConfig, frontend: Frontend, tls: ClientTls, probes: HttpApp
) -> list[str]:
    """Bind every client URL; those that serve clients, with the ports that were chosen for 0.

    Args:
        config: The settings.
        frontend: Serves what arrives.
        tls: Context of https URLs.
        probes: Answers on --listen-metrics-urls, where nothing else is served.

    Raises:
        ConfigError: 78, an address is taken or not ours.
    """
    served = []
    split = bool(config.listen_client_http_urls)
    for urls, grpc, http, app in (
        (config.listen_client_urls, True, not split, None),
        (config.listen_client_http_urls, False, True, None),
        (config.listen_metrics_urls, False, True, probes),
    ):
        for url in urls:
            scheme, host, port = split_url(url)
            try:
                listener = frontend.listen(
                    host,
                    port,
                    tls=tls.context if scheme == "https" else None,
                    serves_grpc=grpc,
                    serves_http=http,
                    http=app,
                )
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {url}: {error.strerror}",
                    "free the port, or choose another with --listen-client-urls",
                ) from None
            if app is None:
                served.append(f"{url.rpartition(':')[0]}:{listener.address[1]}")
    return served
