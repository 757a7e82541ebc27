"""A front end in a process of its own, to be attacked; its identities are the addresses of peers.

Arguments: certificate, key and clients' authority of its TLS listener, and the seconds that it
gives slow peers. Prints its ports, plaintext and TLS; ends with its stdin.
"""

from __future__ import annotations

import asyncio
import sys
from unittest import mock

import uvloop

from configsvc.api.contract import ConnectionIdentity
from configsvc.frontend import connection, http1_session, http2_session, sweeper
from configsvc.frontend.server import Frontend, raise_descriptor_limit
from configsvc.net.contexts import ALPN_CLIENT_PORT, TlsFiles, server_context
from tests.support.frontend_fakes import FakeApi, FakeHttp, FakeIdentity

UNREAD_MAX = 100 << 20  # a tenth of what a member keeps: tests run beside each other


class ApiOfAddresses(FakeApi):
    """Whoever comes from another address is somebody else; nothing is remembered of them."""

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> ConnectionIdentity:
        self.calls.clear()
        self.streams.clear()
        self.waiting.clear()
        return FakeIdentity(f"spiffe://test/{peer_ip}")


async def serve() -> None:
    frontend = Frontend(ApiOfAddresses(), FakeHttp())
    context = server_context(TlsFiles(*sys.argv[1:4]), alpn=ALPN_CLIENT_PORT)
    plain = frontend.listen("127.0.0.1", 0, tls=None)
    secure = frontend.listen("127.0.0.1", 0, tls=lambda: context)
    print(plain.address[1], secure.address[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await frontend.stop(0.0)


raise_descriptor_limit()
seconds = float(sys.argv[4])
with (
    mock.patch.object(connection, "SLOW_READER_SECONDS_MAX", seconds),
    mock.patch.object(connection, "HANDSHAKE_SECONDS_MAX", seconds),
    mock.patch.object(sweeper, "MEMBER_OUT_BYTES_MAX", UNREAD_MAX),
    mock.patch.object(connection, "OPENING_SECONDS_MAX", seconds),
    mock.patch.object(http1_session, "SLOW_WRITER_SECONDS_MAX", seconds),
    mock.patch.object(http2_session, "SLOW_WRITER_SECONDS_MAX", seconds),
):
    uvloop.run(serve())
