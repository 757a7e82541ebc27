"""TLS as a function of bytes: any cut of the stream, any size, every way to end."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configsvc.net.contexts import ALPN_CLIENT_PORT, ALPN_PEER, client_context, server_context
from configsvc.net.shell import RECORD_BYTES, TlsConnection, TlsFailed
from tests.support.pki import Pki
from tests.support.tls_wires import Wire, shaken


@pytest.fixture(scope="module")
def contexts(pki: Pki) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    files = pki.member_files(1)
    return server_context(files, alpn=ALPN_PEER), client_context(files, alpn=ALPN_PEER)


@pytest.fixture
def wire(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Wire:
    return shaken(*contexts)


def test_both_ends_know_each_other(wire: Wire, pki: Pki) -> None:
    for end in (wire.server, wire.client):
        assert end.established
        assert end.version == "TLSv1.3"
        assert end.alpn == ALPN_PEER[0]
        assert end.peer_der == pki.der("member", "0000000000000001")
        assert not end.peer_closed


@pytest.mark.parametrize("size", [1, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 2_000_000])
def test_sizes_around_a_record(wire: Wire, size: int) -> None:
    sent = bytes(size)
    assert wire.server.receive(wire.client.send(sent)) == (sent, b"")
    assert wire.client.receive(wire.server.send(memoryview(sent))) == (sent, b"")


def test_byte_by_byte(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server = TlsConnection(contexts[0], server_side=True)
    client = TlsConnection(contexts[1], server_side=False, server_hostname="localhost")
    to_server = client.start()
    while not (server.established and client.established and not to_server):
        to_client = b"".join(server.receive(bytes([b]))[1] for b in to_server)
        to_server = b"".join(client.receive(bytes([b]))[1] for b in to_client)
    records = client.send(b"hello") + client.send(b"world")
    assert b"".join(server.receive(bytes([b]))[0] for b in records) == b"helloworld"


@settings(max_examples=25)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=40_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 30_000), min_size=1, max_size=10),
)
def test_any_cut_gives_the_same_plaintext(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], parts: list[bytes], cuts: list[int]
) -> None:
    wire = shaken(*contexts)
    stream = b"".join(wire.client.send(part) for part in parts)
    out = bytearray()
    at = turn = 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        out += wire.server.receive(stream[at : at + step])[0]
        at += step
        turn += 1
    assert out == b"".join(parts)


def test_a_farewell_is_noticed_after_the_last_data(wire: Wire) -> None:
    data, _ = wire.server.receive(wire.client.send(b"last") + wire.client.close())
    assert data == b"last"
    assert wire.server.peer_closed
    with pytest.raises(TlsFailed):
        wire.client.send(b"after the farewell")


def test_tampering_ends_the_connection_with_an_alert(wire: Wire) -> None:
    record = bytearray(wire.client.send(b"secret-marker"))
    record[-1] ^= 1
    with pytest.raises(TlsFailed) as caught:
        wire.server.receive(bytes(record))
    assert caught.value.answer
    assert "marker" not in caught.value.reason


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(70_000)]
)
def test_what_is_no_tls_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], junk: bytes
) -> None:
    end = TlsConnection(contexts[0], server_side=True)
    with pytest.raises(TlsFailed):
        end.receive(junk)
    assert not end.established


def test_the_acceptor_says_nothing_first(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    assert TlsConnection(contexts[0], server_side=True).start() == b""


def test_alpn_decides(pki: Pki) -> None:
    server = server_context(pki.files("server", "m1", "client"), alpn=ALPN_CLIENT_PORT)
    for offered, agreed in ((["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "h2"), (["x"], "")):
        client = client_context(pki.files("user", "root", "server"), alpn=offered)
        assert shaken(server, client).server.alpn == agreed
