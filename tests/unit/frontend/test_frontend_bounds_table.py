"""The table of bounds in the room's page names limits and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from configsvc import limits

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "configsvc" / "frontend" / "DESIGN.md"
NAME = re.compile(r"`(\w+)`")


def table() -> list[list[str]]:
    """The rows below the heading, without the first two."""
    section = PAGE.read_text().partition("\n## Bounds\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_limit_of_the_table_is_one_and_is_enforced_here() -> None:
    named = {name for row in table() for name in NAME.findall(row[1])}
    assert len(named) > 30
    rooms = [ROOT / "configsvc" / room for room in ("frontend", "http2", "net")]
    source = "".join(path.read_text() for room in rooms for path in room.glob("*.py"))
    for name in named:
        assert isinstance(getattr(limits, name), int | float), name
        assert source.count(name) >= 2, name  # imported and used


def test_every_test_of_the_table_is_one() -> None:
    folders = [ROOT / "tests" / "unit", ROOT / "tests" / "security"]
    source = "".join(path.read_text() for each in folders for path in each.rglob("test_*.py"))
    for what, _, _, tests in table():
        assert NAME.findall(tests), what
        for name in NAME.findall(tests):
            assert f"def {name}(" in source, name


def test_every_bound_of_the_front_end_is_in_the_table() -> None:
    """So that a new one is not forgotten; those left out bound no peer."""
    text = (ROOT / "configsvc" / "limits.py").read_text()
    named = {name for row in table() for name in NAME.findall(row[1])}
    for section in ("http2", "what a connection may hold", "frontend"):
        body = text.partition(f"\n# --- {section} (")[2].partition("\n# --- ")[0]
        names = set(re.findall(r"^(\w+): Final", body, re.MULTILINE))
        assert names, section
        assert names - named <= LEFT_OUT, section


LEFT_OUT = {
    "ACCEPT_PAUSE_S",  # pace of ours
    "CHECKED_FIELDS_MAX",  # caches of ours
    "CHECKED_VALUE_BYTES_MAX",
    "CONNECTION_AGE_SLOT_S",
    "DEAD_PEER_SECONDS_MAX",  # the kernel's to enforce
    "DRAIN_NOTICE_S",
    "GRPC_MESSAGE_CHARS_MAX",  # of texts of ours
    "GRPC_TIMEOUT_DIGITS_MAX",  # the protocol's
    "HEADER_CACHE_BLOCK_BYTES_MAX",
    "HTTP2_CONNECTION_WINDOW_BYTES",  # told, and enforced by flow control
    "HTTP2_STREAM_WINDOW_BYTES",
    "OVERLOAD_PAUSE_S",  # a word of advice
    "REFUSAL_LOG_SECONDS",
}
