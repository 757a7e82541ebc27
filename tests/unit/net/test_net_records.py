"""Records without data: counted by their headers, bounded, and harmless when they are honest."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.limits import TLS_RECORDS_PER_STEP_MAX, TLS_SILENT_RECORDS_MAX
from configsvc.net.contexts import ALPN_PEER, client_context, server_context
from configsvc.net.records import RecordCounter
from configsvc.net.shell import RECORD_BYTES, TlsFailed
from tests.support.pki import Pki
from tests.support.tls_updates import Records, client_secret
from tests.support.tls_wires import Wire, shaken

HANDSHAKE_RECORDS_MAX = 8  # of one side
UPDATE_BYTES = 27
TOO_MANY = "too many records without data"


def record(body: int) -> bytes:
    return b"\x17\x03\x03" + body.to_bytes(2, "big") + bytes(body)


@given(
    bodies=st.lists(st.integers(0, 700), max_size=30),
    cuts=st.lists(st.integers(1, 900), min_size=1, max_size=20),
    records_max=st.integers(1, 5),
)
def test_any_cut_counts_the_same(bodies: list[int], cuts: list[int], records_max: int) -> None:
    stream = b"".join(map(record, bodies))
    counter, at, turn = RecordCounter(), 0, 0
    while at < len(stream):
        piece = stream[at : at + cuts[turn % len(cuts)]]
        start = 0
        while start < len(piece):
            before, was = counter.count, start
            start = counter.step(piece, start, records_max)
            assert was < start <= len(piece)
            assert counter.count - before <= records_max
        at += len(piece)
        turn += 1
    assert counter.count == len(bodies)


def test_a_step_ends_behind_whole_records() -> None:
    counter, data = RecordCounter(), record(7) * 5 + b"\x17\x03"
    ends = [0]
    while ends[-1] < len(data):
        ends.append(counter.step(data, ends[-1], 2))
    assert ends == [0, 24, 48, 62]
    assert counter.count == 5


@pytest.fixture(scope="module")
def contexts(
    pki: Pki, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    files = pki.member_files(1)
    client = client_context(files, alpn=ALPN_PEER)
    client.keylog_filename = str(tmp_path_factory.mktemp("keys") / "log")
    return server_context(files, alpn=ALPN_PEER), client


@pytest.fixture
def wire(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Wire:
    return shaken(*contexts)


@pytest.fixture
def records(wire: Wire, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Records:
    return Records(client_secret(Path(contexts[1].keylog_filename)))


@pytest.mark.parametrize("asked", [True, False])
def test_new_keys_now_and_then_are_fine(wire: Wire, records: Records, asked: bool) -> None:
    for number in range(TLS_SILENT_RECORDS_MAX - HANDSHAKE_RECORDS_MAX):
        sent = b"%d" % number
        data, answer = wire.server.receive(records.key_update(asked=asked) + records.data(sent))
        assert data == sent
        answer += wire.server.send(sent)  # OpenSSL may keep its new keys back until it writes
        assert len(answer) == len(wire.client.send(sent)) + UPDATE_BYTES * asked
        assert wire.client.receive(answer) == (sent, b"")


@pytest.mark.parametrize("asked", [True, False])
def test_a_flood_of_new_keys_is_cut_off(wire: Wire, records: Records, asked: bool) -> None:
    """Long before all of what came in one read was worked through."""
    flood = b"".join(records.key_update(asked=asked) for _ in range(10_000))
    with pytest.raises(TlsFailed, match=TOO_MANY) as caught:
        wire.server.receive(flood)
    answered = caught.value.answer.count(b"\x17\x03\x03\0\x16")
    worked = TLS_SILENT_RECORDS_MAX + TLS_RECORDS_PER_STEP_MAX
    assert answered <= (worked if asked else 0)


def test_new_keys_that_drip_are_cut_off_too(wire: Wire, records: Records) -> None:
    """One each time, with data in between: a bound on a row of them would not see it."""
    done = 0
    with pytest.raises(TlsFailed, match=TOO_MANY):
        for done in range(TLS_SILENT_RECORDS_MAX + 1):  # noqa: B007 - how far it came
            wire.server.receive(records.key_update(asked=False) + records.data(b"x"))
    assert done >= TLS_SILENT_RECORDS_MAX - HANDSHAKE_RECORDS_MAX


def test_empty_records_count(wire: Wire, records: Records) -> None:
    with pytest.raises(TlsFailed, match=TOO_MANY):
        for _ in range(TLS_SILENT_RECORDS_MAX + 1):
            wire.server.receive(records.data(b"") + records.data(b"x"))


def test_padding_is_no_offence(wire: Wire, records: Records) -> None:
    for _ in range(2 * TLS_SILENT_RECORDS_MAX):
        assert wire.server.receive(records.data(b"x", 15_000)) == (b"x", b"")


@pytest.mark.parametrize("size", [1, 100, RECORD_BYTES])
def test_honest_records_have_no_bound(wire: Wire, size: int) -> None:
    """More than a step of them in one read, cut in the middle of one."""
    count = 2 * (TLS_SILENT_RECORDS_MAX + TLS_RECORDS_PER_STEP_MAX)
    stream = b"".join(wire.client.send(bytes(size)) for _ in range(count))
    cut = len(stream) * 2 // 3
    first, second = (wire.server.receive(part)[0] for part in (stream[:cut], stream[cut:]))
    assert len(first) + len(second) == count * size
