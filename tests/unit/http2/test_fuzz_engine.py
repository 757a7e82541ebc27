"""The fuzzer itself: a short run is clean, it finds planted defects, and its guide learns."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from configsvc.gateway import json_in
from configsvc.http2.connection import Connection
from tests.fuzz import run as engine
from tests.fuzz.guide import Guide
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_short_run_finds_nothing(target: str) -> None:
    assert engine.run(target, 300, seed=7) == 0


def test_a_connection_that_raises_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(engine, "FINDINGS", tmp_path)
    monkeypatch.setattr(Connection, "consumed", broken)
    monkeypatch.setattr(Connection, "_walk", broken)
    assert engine.run("http2", 300, seed=7) == 1
    (finding,) = tmp_path.iterdir()
    with pytest.raises(IndexError):
        TARGETS["http2"](finding.read_bytes())


def test_a_refusal_of_the_wrong_kind_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(engine, "FINDINGS", tmp_path)
    monkeypatch.setattr(json_in, "messages", broken)
    assert engine.run("json", 50, seed=7) == 1


def test_the_guide_keeps_what_reaches_new_lines() -> None:
    guide = Guide(Random(1))
    for _ in range(400):
        guide.run(TARGETS["json"], b"\0[]")
    assert guide.kept == [b"\0[]"]
    before = len(guide.seen)
    for _ in range(400):
        guide.run(TARGETS["json"], b'\1{"key":"YQ==","lease":"1"}')
    assert len(guide.kept) == 2
    assert len(guide.seen) > before
