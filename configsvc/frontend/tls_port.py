"""What a client connection needs of TLS."""

from __future__ import annotations

from typing import Protocol


class TlsFailed(Exception):
    """The handshake or a record failed; ``answer`` is the alert to send, if any."""

    def __init__(self, reason: str, answer: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class TlsPort(Protocol):
    """TLS as a function of bytes."""

    established: bool
    peer_closed: bool
    alpn: str
    version: str
    peer_der: bytes | None

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """Plaintext, and what must be sent at once. Raises ``TlsFailed``."""

    def send(self, plaintext: bytes) -> bytes:
        """Records that carry ``plaintext``."""

    def close(self) -> bytes:
        """The farewell."""
