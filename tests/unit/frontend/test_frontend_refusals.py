"""Refused peers: every one is counted and heard of, few of them are logged."""

from __future__ import annotations

import logging

import pytest

from configsvc.frontend.refusals import FLOOD, KINDS, MALFORMED, TLS, Refusals
from configsvc.limits import REFUSAL_LOG_SECONDS


class Clock:
    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_of_refusals_is_one_line_per_kind(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    heard: list[tuple[str, str]] = []
    refusals = Refusals(clock, lambda ip, reason: heard.append((ip, reason)))
    with caplog.at_level(logging.WARNING, "configsvc.frontend"):
        for _ in range(1_000):
            refusals.refused(FLOOD, "192.0.2.1", "too many frames")
        refusals.refused(TLS, "", "NO_SHARED_CIPHER")
        assert [r.getMessage() for r in caplog.records] == [
            "peers refused: flood, 1 since the last such line, now 192.0.2.1: too many frames",
            "peers refused: tls, 1 since the last such line, now -: NO_SHARED_CIPHER",
        ]
        clock.now += REFUSAL_LOG_SECONDS
        refusals.refused(FLOOD, "192.0.2.2", "too many resets")
    assert caplog.records[-1].getMessage() == (
        "peers refused: flood, 1000 since the last such line, now 192.0.2.2: too many resets"
    )
    assert len(caplog.records) == 3
    assert refusals.counts == {FLOOD: 1_001, TLS: 1}
    assert len(heard) == 1_002


def test_kinds_are_a_closed_set_of_labels() -> None:
    assert MALFORMED in KINDS
    assert all(kind.isidentifier() and kind.islower() for kind in KINDS)
