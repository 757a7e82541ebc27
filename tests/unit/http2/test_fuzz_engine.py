"""The fuzzer itself: a short run is clean, it finds planted defects, and its guide learns."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from configsvc.gateway import json_in
from configsvc.http2.connection import Connection
from tests.fuzz import native
from tests.fuzz import run as engine
from tests.fuzz.guide import Guide
from tests.fuzz.results import GROWTH_KIB_MAX, Tally
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_short_run_finds_nothing(target: str) -> None:
    assert engine.run(target, 300, seed=7) == 0


def test_a_connection_that_raises_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(Connection, "consumed", broken)
    monkeypatch.setattr(Connection, "_walk", broken)
    assert engine.run("http2", 300, 7, tmp_path) == 1
    (finding,) = tmp_path.iterdir()
    with pytest.raises(IndexError):
        TARGETS["http2"](finding.read_bytes())


def test_a_refusal_of_the_wrong_kind_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(json_in, "messages", broken)
    assert engine.run("json", 50, 7, tmp_path) == 1


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


def test_growth_of_memory_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peaks = iter((10, 1_000, 1_000 + GROWTH_KIB_MAX, 20, 500, 501 + GROWTH_KIB_MAX))
    monkeypatch.setattr("tests.fuzz.results.peak_kib", lambda: next(peaks))
    for expected in (0, 1):
        tally = Tally("json", 10, 7)
        for _ in range(10):
            tally.begin()
        assert tally.close("") == expected
    assert "memory grew by 65537 KiB" in capsys.readouterr().out


ENGINE = """
import contextlib

@contextlib.contextmanager
def instrument_imports(include):
    yield
    {planted}

def Mutate(data, size):
    return (data + b"!")[:size]

def Setup(argv, one, custom_mutator):
    global inputs, call, mutator
    options = dict(each.split("=") for each in argv[2:])
    inputs, call, mutator = int(options["-runs"]), one, custom_mutator

def Fuzz():
    data = b"\\1[]"
    for number in range(inputs):
        call(data)
        data = mutator(data, 64, number)
        assert len(data) <= 64
"""


@pytest.mark.parametrize(
    "planted", ["pass", "from configsvc.gateway import json_in; del json_in.messages"]
)
def test_another_engine_drives_the_same_targets(
    planted: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One with atheris's functions; atheris itself is no part of the environment."""
    (tmp_path / "atheris.py").write_text(ENGINE.format(planted=planted))
    findings = tmp_path / "findings"
    found = native.run("json", 40, 7, findings, tmp_path)
    out = capfd.readouterr().out
    if planted == "pass":
        assert (found, findings.exists()) == (0, True)
        assert "40 inputs" in out
    else:
        assert found == 1
        assert "AttributeError" in out
        assert (findings / "json-7-0").read_bytes() == b"\1[]"


def test_the_last_coverage_told_counts() -> None:
    log = "#2 INITED cov: 5 ft: 6 corp: 1/1b\n#9 NEW cov: 1102 ft: 3330 corp: 2/4b\n"
    assert native.reached(log, 3) == "1,102 points and 3,330 features reached, 3 kept"
    assert native.reached("", 0) == "0 points and 0 features reached, 0 kept"
