"""Two TLS ends in one process, with a wire of bytes between them."""

from __future__ import annotations

import ssl

from configsvc.net.shell import TlsConnection, TlsFailed


class Wire:
    """A dialler and an acceptor; ``shake`` runs the handshake to its end."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost"
    ) -> None:
        self.server = TlsConnection(server, server_side=True)
        self.client = TlsConnection(client, server_side=False, server_hostname=host)
        self.server_reason = ""
        self.client_reason = ""

    def shake(self) -> bool:
        """Whether both ends are content; a refusal's reasons are kept."""
        to_server = self.client.start()
        to_client = b""
        while to_server or to_client:
            if to_server:
                to_server, to_client = b"", to_client + self._give(self.server, to_server)
            if to_client:
                to_client, to_server = b"", to_server + self._give(self.client, to_client)
        return not self.server_reason and not self.client_reason and self.server.established

    def _give(self, end: TlsConnection, data: bytes) -> bytes:
        try:
            return end.receive(data)[1]
        except TlsFailed as failure:
            if end is self.server:
                self.server_reason = self.server_reason or failure.reason
            else:
                self.client_reason = self.client_reason or failure.reason
            return failure.answer


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> Wire:
    """A wire whose handshake succeeded."""
    wire = Wire(server, client, host)
    assert wire.shake(), (wire.server_reason, wire.client_reason)
    return wire
