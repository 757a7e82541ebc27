"""Budgets: what costs, what is free, and when it is enough. Time is an argument."""

from __future__ import annotations

import pytest

from configsvc.http2 import grpc
from configsvc.http2.connection import DATA_END, Connection
from configsvc.http2.floods import FrameBudget, PingPolicy
from configsvc.http2.protocol import ENHANCE_YOUR_CALM, ConnectionFault
from configsvc.limits import FRAME_BUDGET_BURST, FRAME_BUDGET_PER_S, WINDOW_CREDIT_MAX
from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame


def connected(now: float = 0.0) -> Connection:
    connection = Connection(now)
    connection.receive(Client.hello(), now)
    connection.outbox.take()
    return connection


def test_the_budget_refills_with_time() -> None:
    budget = FrameBudget(0.0)
    for _ in range(FRAME_BUDGET_BURST):
        budget.charge(0.0)
    with pytest.raises(ConnectionFault, match="flood"):
        budget.charge(0.0)
    for _ in range(FRAME_BUDGET_PER_S):
        budget.charge(1.0)
    with pytest.raises(ConnectionFault):
        budget.charge(1.0)


def test_the_budget_never_exceeds_its_burst() -> None:
    budget = FrameBudget(0.0)
    for _ in range(FRAME_BUDGET_BURST):
        budget.charge(1_000_000.0)
    with pytest.raises(ConnectionFault):
        budget.charge(1_000_000.0)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    budget = FrameBudget(10.0)
    for _ in range(FRAME_BUDGET_BURST):
        budget.charge(5.0)
    with pytest.raises(ConnectionFault):
        budget.charge(5.0)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(h2.settings(), id="settings"),
        pytest.param(frame(h2.SETTINGS, 1, 0, b""), id="settings-ack"),
        pytest.param(frame(h2.PING, 1, 0, b"\0" * 8), id="ping-ack"),
        pytest.param(frame(h2.PRIORITY, 0, 9, b"\0\0\0\0\0"), id="priority"),
        pytest.param(frame(h2.DATA, 0, 1, b""), id="empty-data"),
        pytest.param(frame(h2.DATA, 8, 1, b"\0"), id="padding-only-data"),
        pytest.param(frame(0x77, 0, 0, b"x"), id="unknown"),
        pytest.param(h2.window_update(0, 1), id="window-update-connection"),
        pytest.param(h2.window_update(1, 1), id="window-update-stream"),
        pytest.param(frame(h2.GOAWAY, 0, 0, b"\0" * 8), id="goaway"),
    ],
)
def test_frames_that_ask_for_nothing_are_bounded(piece: bytes) -> None:
    connection = connected()
    connection.receive(Client().headers(1), 0.0)
    connection.receive(piece * (FRAME_BUDGET_BURST - 50), 0.0)
    assert connection.fault is None
    connection.receive(piece * 100, 0.0)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM
    # At the allowed rate nothing happens, however long it lasts.
    patient = connected()
    patient.receive(Client().headers(1), 0.0)
    for second in range(40):
        patient.receive(piece * FRAME_BUDGET_PER_S, float(second))
    assert patient.fault is None


def test_empty_continuations_are_bounded() -> None:
    connection = connected()
    connection.receive(frame(h2.HEADERS, 0, 1, b""), 0.0)
    connection.receive(frame(h2.CONTINUATION, 0, 1, b"") * 2000, 0.0)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM


def test_window_updates_are_paid_for_by_what_we_send() -> None:
    """A client that reads a thousand answers may well send two thousand updates."""
    connection = connected()
    client = Client()
    for number in range(3000):
        stream_id = 2 * number + 1
        for kind, stream, _ in connection.receive(client.call(stream_id, b"x"), 0.0):
            if kind == DATA_END:
                grpc.answer(connection.outbox, stream, b"answer")
        connection.outbox.take()
        connection.receive(h2.window_update(0, 50) * 2, 0.0)
    assert connection.fault is None


def test_credit_for_window_updates_is_not_saved_up_without_end() -> None:
    budget = FrameBudget(0.0)
    budget.credit = 10 * WINDOW_CREDIT_MAX
    for _ in range(WINDOW_CREDIT_MAX + FRAME_BUDGET_BURST):
        budget.charge_window_update(0.0)
    with pytest.raises(ConnectionFault):
        budget.charge_window_update(0.0)


def test_a_client_that_resets_many_streams_is_cut_off() -> None:
    connection = connected()
    client = Client()
    for number in range(2000):
        stream_id = 2 * number + 1
        connection.receive(client.headers(stream_id) + h2.reset(stream_id), 0.0)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM


def test_resets_that_the_peer_makes_us_send_cost_too() -> None:
    connection = connected()
    client = Client()
    for number in range(2000):
        stream_id = 2 * number + 1
        connection.receive(client.headers(stream_id) + h2.window_update(stream_id, 0), 0.0)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM


def test_refused_streams_cost_too() -> None:
    connection = Connection(0.0, max_streams=1)
    client = Client()
    connection.receive(Client.hello() + client.headers(1), 0.0)
    for number in range(1, 2000):
        connection.receive(client.headers(2 * number + 1), 0.0)
    assert connection.fault is not None
    assert connection.fault.code == ENHANCE_YOUR_CALM


PING = frame(h2.PING, 0, 0, b"12345678")


@pytest.mark.parametrize(
    ("times", "ends"),
    [
        pytest.param([0, 5, 10, 15, 20, 25], False, id="etcd-minimum"),
        pytest.param([0, 4, 8, 12], True, id="too-fast"),
        pytest.param([0, 4, 8], False, id="two-strikes"),
    ],
)
def test_ping_policy_with_a_stream(times: list[float], *, ends: bool) -> None:
    connection = connected()
    connection.receive(Client().headers(1), 0.0)
    for now in times:
        connection.receive(PING, float(now))
    assert (connection.fault is not None) == ends
    if ends:
        assert b"too_many_pings" in connection.outbox.take()


def test_pings_without_a_stream_are_strikes() -> None:
    connection = connected()
    for minute in range(4):
        connection.receive(PING, minute * 60.0)
    assert connection.fault is not None
    assert connection.fault.reason == "too_many_pings"


def test_what_we_send_clears_the_strikes() -> None:
    """Clients probe bandwidth with pings that ride on traffic."""
    connection = connected()
    client = Client()
    for number in range(50):
        now = number * 0.1
        stream_id = 2 * number + 1
        for kind, stream, _ in connection.receive(client.call(stream_id, b"x"), now):
            if kind == DATA_END:
                grpc.answer(connection.outbox, stream, b"y")
        connection.receive(PING, now)
    assert connection.fault is None


def test_a_ping_is_answered_with_its_bytes() -> None:
    connection = connected()
    connection.receive(PING, 0.0)
    assert connection.outbox.take() == frame(h2.PING, h2.ACK, 0, b"12345678")


def test_strikes_are_counted_one_by_one() -> None:
    policy = PingPolicy()
    for now in (0.0, 1.0, 2.0):
        policy.ping(now, has_streams=True)
    policy.cleared = True
    for now in (3.0, 4.0, 5.0):
        policy.ping(now, has_streams=True)
    with pytest.raises(ConnectionFault):
        policy.ping(6.0, has_streams=True)
