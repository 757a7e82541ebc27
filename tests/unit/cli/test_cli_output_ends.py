"""Output that cannot be written, and news that would repeat themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configsvc.cli.output import sparing
from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [["put", "k", "v"], ["get", "k"], ["completion", "bash"]])
def test_a_full_disk_is_said_and_is_no_bug(
    shell: Shell, cluster: FakeCluster, words: list[str]
) -> None:
    """Code 4: a put may have happened, its answer was not told."""
    shell.ok("put", "k", "v")
    argv = [sys.executable, "-m", "configsvc.cli.configctl", "--endpoints", cluster.urls[0]]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [*argv, *words], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (ran.returncode, ran.stderr.decode()) == (
        4, "configctl: standard output: No space left on device\n",
    )  # fmt: skip


def test_a_line_is_repeated_only_after_a_while() -> None:
    told: list[str] = []
    at = [0.0]
    say = sparing(told.append, again_s=60.0, now=lambda: at[0])
    for moment, line in ((0, "a"), (1, "a"), (2, "b"), (3, "a"), (62, "a"), (63, "a"), (64, "a")):
        at[0] = moment
        say(line)
    assert told == ["a", "b", "a", "a"]
