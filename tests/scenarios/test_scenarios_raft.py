"""Replays scenario scripts: the public ones, which are the core's specification, and our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scenario_cluster import ClusterInterpreter
from scenario_confchange import ConfChangeInterpreter
from scenario_quorum import QuorumInterpreter
from scenario_script import Interpreter, Replayed, parse, replay, rewrite

OWN = Path(__file__).parent / "raft"
LANGUAGES: dict[str, Callable[[], Interpreter]] = {
    "quorum": QuorumInterpreter,
    "confchange": ConfChangeInterpreter,
    "scenarios": ClusterInterpreter,
}
# Paragraphs, those that expect just "ok", lines: a reader that skips paragraphs must not look
# green. The ok and dropped counts are stated for the scenarios only.
SHIPPED = {"scenarios": (20, 295, 2_471), "quorum": (3, 77, 134), "confchange": (7, 44, 111)}
SHIPPED_FILES = {  # scenarios/: paragraphs, ok, lines
    "async_storage_writes": (44, 6, 710),
    "campaign": (4, 3, 85),
    "campaign_learner_must_vote": (12, 9, 84),
    "checkquorum": (15, 9, 149),
    "confchange_disable_validation": (9, 6, 28),
    "confchange_v1_add_single": (6, 4, 49),
    "confchange_v1_remove_leader": (21, 9, 160),
    "confchange_v2_add_double_implicit": (6, 4, 83),
    "confchange_v2_add_single_auto": (6, 4, 49),
    "confchange_v2_add_single_explicit": (11, 7, 132),
    "confchange_v2_replace_leader": (17, 10, 309),
    "confchange_v2_replace_leader_stepdown": (17, 12, 112),
    "forget_leader": (29, 19, 91),
    "forget_leader_read_only_lease_based": (7, 6, 9),
    "heartbeat_resp_recovers_from_probing": (11, 7, 48),
    "lagging_commit": (17, 9, 92),
    "prevote": (16, 8, 176),
    "single_node": (4, 3, 17),
    "slow_follower_after_compaction": (25, 20, 32),
    "snapshot_succeed_via_app_resp": (18, 9, 56),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_public_scripts(
    language: str,
    raft_testdata: Path,
    raft_testdata_is_shipped: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = sorted((raft_testdata / language).glob("*.txt"))
    counts = {path.stem: replay(path, LANGUAGES[language]()) for path in files}
    total = sum(counts.values(), Replayed())
    with capsys.disabled():
        print(f"\n{language}: {len(files)} files, {total}")
    assert total.paragraphs > 0, f"no script in {raft_testdata / language}"
    if not raft_testdata_is_shipped:
        return
    assert (len(files), total.paragraphs, total.lines) == SHIPPED[language]
    if language == "scenarios":
        assert (total.ok, total.dropped) == (164, 332)
        assert {k: (c.paragraphs, c.ok, c.lines) for k, c in counts.items()} == SHIPPED_FILES


@pytest.mark.parametrize("path", sorted(OWN.glob("*.txt")), ids=lambda path: path.stem)
def test_own_scripts(path: Path, rewrite_scenarios: bool) -> None:
    if rewrite_scenarios:
        rewrite(path, ClusterInterpreter())
    assert replay(path, ClusterInterpreter()).paragraphs > 0


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "canary.txt"
    script.write_text("committed cfg=(1) idx=(12)\n----\n     idx\n>     12    (id=1)\n11\n")
    with pytest.raises(AssertionError):
        replay(script, QuorumInterpreter())


def test_paragraphs_are_cut_as_the_format_says() -> None:
    directive = "# c\n\nadd 1 \\\n  k=(a, (b,c)) e=\n# input\n x \n"
    text = directive + "----\n----\na\n\nb\n----\n----\nnext\n----\n"
    first, second = parse(text)
    assert (first.command, first.positional, first.input) == ("add", ("1",), "# input\n x")
    assert first.options == {"k": ("a", "(b,c)"), "e": ("",)}
    assert first.expected == ("a", "", "b")
    assert (second.command, second.expected) == ("next", ())
