"""Medians, ratios, and when none is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report as report_module
from bench.load import percentile
from bench.report import Measure, Report


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 5.0), (0.99, 10.0), (1.0, 10.0)])
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile([float(n) for n in range(1, 11)], share) == expected


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.5) == 0.0


def test_a_ratio_is_ours_over_etcds_medians() -> None:
    row = Measure("m", "ms", "lower", [1.0, 9.0, 2.0], [4.0, 5.0, 3.0]).row(comparable=True)
    assert (row["ours"], row["etcd"], row["ratio"]) == (2.0, 4.0, 0.5)
    assert row["spread"] == {"ours": [1.0, 9.0], "etcd": [3.0, 5.0]}


@pytest.mark.parametrize(("ours", "etcd"), [([], [1.0]), ([1.0], []), ([1.0], [0.0])])
def test_nothing_to_compare_is_null(ours: list[float], etcd: list[float]) -> None:
    assert Measure("m", "ms", "lower", ours, etcd).row(comparable=True)["ratio"] is None


def test_no_ratio_when_something_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_module, "RESULTS", tmp_path / "results")
    made = Report(quick=True, etcd_version="3.4")
    made.switches({"mutual TLS": True, "rights": False})
    made.add(Measure("put", "requests/s", "higher", [2.0], [1.0]))
    written = json.loads(made.write().read_text())
    assert written["put"]["ours"] == 2.0
    assert written["put"]["ratio"] is None
    assert written["about"]["switched_on"] == {"mutual TLS": True, "rights": False}
    assert "no ratios" in capsys.readouterr().out


def test_what_was_not_measured_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "RESULTS", tmp_path)
    made = Report(quick=False, etcd_version="3.4")
    made.miss("file", "no agent")
    assert json.loads(made.write().read_text())["about"]["not_measured"] == ["file: no agent"]
