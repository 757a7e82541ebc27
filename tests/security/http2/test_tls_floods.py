"""Floods below HTTP: TLS messages that no byte of a request pays for.

A KeyUpdate of 27 bytes costs new keys, and an answer when the peer asks for it; OpenSSL bounds
neither. Over real sockets, with a certificate that is good.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from configsvc.limits import TLS_RECORDS_PER_STEP_MAX, TLS_SILENT_RECORDS_MAX
from configsvc.net.contexts import TlsFiles, server_context
from configsvc.net.shell import TlsConnection, TlsFailed
from tests.support import http2_frames as h2
from tests.support.attacked import MALLORY, MIB, Attacked
from tests.support.http2_frames import Client
from tests.support.tls_files import TestFiles
from tests.support.tls_updates import Records, client_secret

pytestmark = pytest.mark.integration

UPDATE_BYTES = 27  # of a KeyUpdate and of its answer
FLOOD = 20_000  # half a megabyte; each connection could bring any number


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    made = Attacked(TestFiles(tmp_path_factory.mktemp("tls")), 5.0)
    yield made
    made.stop()


class Rekeyer:
    """A client whose handshake is Python's, and whose records are made by hand from then on."""

    def __init__(self, attacked: Attacked, keys: Path) -> None:
        context = attacked.files.client_context(["h2"], attacked.files.client)
        context.keylog_filename = str(keys)
        raw = socket.create_connection(("127.0.0.1", attacked.tls_port), 20, (MALLORY, 0))
        self._tls = context.wrap_socket(raw, server_hostname="localhost")
        self._raw = socket.socket(fileno=os.dup(self._tls.fileno()))
        self._raw.settimeout(20)
        self.records = Records(client_secret(keys))
        self.client = Client()

    def __enter__(self) -> Rekeyer:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()
        self._tls.close()

    def send(self, data: bytes) -> None:
        self._raw.sendall(data)

    def answered(self, stream: int) -> h2.Frame:
        """The first DATA frame on ``stream``, read as any client would: our new keys and all."""
        while True:
            head = self._exactly(9)
            (each,) = h2.split(head + self._exactly(int.from_bytes(head[:3], "big")))
            if (each.kind, each.stream) == (h2.DATA, stream):
                return each

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self._tls.recv(size - len(got))
            assert more, "ended"
            got += more
        return got

    def rest(self) -> int:
        """How many bytes come until the server ends the connection; TimeoutError if it does not."""
        size = 0
        with contextlib.suppress(ConnectionError):
            while more := self._raw.recv(65_536):
                size += len(more)
        return size


@pytest.mark.parametrize("asked", [True, False], ids=["answered", "unanswered"])
@pytest.mark.parametrize("busy", [True, False], ids=["with-a-call", "idle"])
def test_a_flood_of_key_updates_ends_and_harms_nobody(
    attacked: Attacked, tmp_path: Path, asked: bool, busy: bool
) -> None:
    told: list[int] = []

    def attack() -> None:
        for number in range(4):
            with Rekeyer(attacked, tmp_path / str(number)) as attacker:
                attacker.send(attacker.records.data(Client.hello()))
                if busy:
                    call = attacker.client.call(1, b"x", "/test.Echo/Wait")
                    attacker.send(attacker.records.data(call))
                flood = b"".join(attacker.records.key_update(asked=asked) for _ in range(FLOOD))
                with contextlib.suppress(ConnectionError):
                    attacker.send(flood)
                told.append(attacker.rest())

    attacked.while_attacked(attack, 32 * MIB)
    worked = TLS_SILENT_RECORDS_MAX + TLS_RECORDS_PER_STEP_MAX
    assert len(told) == 4
    assert max(told) <= worked * UPDATE_BYTES + 1_000  # the rest is SETTINGS and the farewell


def test_a_client_that_changes_keys_between_calls_is_served(
    attacked: Attacked, tmp_path: Path
) -> None:
    with Rekeyer(attacked, tmp_path / "keys") as honest:
        honest.send(honest.records.data(Client.hello()))
        for number in range(100):
            stream, text = 2 * number + 1, b"call %d" % number
            update = honest.records.key_update(asked=bool(number % 2))
            honest.send(update + honest.records.data(honest.client.call(stream, text)))
            assert honest.answered(stream).payload.endswith(text)


def served_once(files: TestFiles, listening: socket.socket, argv: list[str], said: bytes) -> str:
    """One connection of a program that says ``said``; its output, once our side has closed."""
    context = server_context(
        TlsFiles(*files.server, str(files.clients.path)), alpn=["h2"], min_version="TLS1.2"
    )
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as program:
        sock, _ = listening.accept()
        assert program.stdin is not None
        with sock:
            sock.settimeout(20)
            tls = TlsConnection(context, server_side=True)
            while not tls.established:
                sock.sendall(tls.receive(sock.recv(65_536))[1])
            version = tls.version
            program.stdin.write(said)
            program.stdin.flush()
            with contextlib.suppress(ConnectionError, TlsFailed):  # openssl takes offence
                while more := sock.recv(65_536):
                    data, answer = tls.receive(more)
                    assert data == b""
                    sock.sendall(answer)
        out, _ = program.communicate(timeout=20)
    assert version == "TLSv1.2"
    return out.decode(errors="replace")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_renegotiation_is_refused_with_the_older_version(tmp_path: Path) -> None:
    files = TestFiles(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        argv = [
            *("openssl", "s_client", "-tls1_2", "-alpn", "h2"),
            *("-connect", f"127.0.0.1:{listening.getsockname()[1]}"),
            *("-cert", files.client[0], "-key", files.client[1]),
            *("-CAfile", str(files.servers.path)),
        ]
        said = served_once(files, listening, argv, b"R\n")
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


def test_compression_tickets_and_renegotiation_are_off(tmp_path: Path) -> None:
    context = TestFiles(tmp_path).server_context()
    for option in (ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION, ssl.OP_NO_TICKET):
        assert context.options & option
