"""Pages name only what there is: files, commands with their options, make targets, flags."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from configagent.cli import _parser as agent_parser

from configsvc.cli.tree import build_parser

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
    if ".venv" not in path.parts
)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FENCE = re.compile(r"^```(?:console|sh)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [t for t in _LINK.findall(page.read_text()) if "://" not in t]
    assert [t for t in targets if not (page.parent / t).exists()] == []


def commands(text: str) -> Iterator[str]:
    """What a page tells to type: fenced lines and inline code, one command each."""
    lines = [
        line for block in _FENCE.findall(text) for line in block.replace("\\\n", " ").split("\n")
    ]
    for line in [*lines, *_CODE.findall(text)]:
        for part in re.split(r"\s;\s|&&|\|\s|\s{2,}|\s#\s", line.removeprefix("$ ").strip()):
            yield part.strip()


def problem(parser: argparse.ArgumentParser, words: list[str]) -> str:
    """The first word of a command line that its parser does not know; "" for none."""
    for word in words:
        name = word.split("=")[0]
        if word.startswith("--"):
            if name not in parser._option_string_actions:
                return name
            continue
        inner = next(
            (a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None
        )
        if inner is None or not re.fullmatch(r"[a-z][a-z-]*", word):
            continue
        if word not in inner.choices:
            return word
        parser = inner.choices[word]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_and_options_exist(page: Path) -> None:
    parsers = {"configctl": build_parser(), "configagent": agent_parser()}
    wrong = []
    for command in commands(page.read_text()):
        program, _, rest = command.partition(" ")
        if program not in parsers or not rest:
            continue
        try:
            words = shlex.split(rest.replace("[", "").replace("]", ""))
        except ValueError:
            words = rest.split()
        unknown = problem(parsers[program], words)
        if unknown:
            wrong.append(f"{command}: {unknown}")
    assert wrong == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert wanted - targets == set()
    assert {"up", "tour", "test"} <= wanted


def test_every_command_line_of_a_page_was_looked_at() -> None:
    """The finder finds: a page that names nothing would pass everything."""
    found = {c.split(" ")[0] for page in PAGES for c in commands(page.read_text())}
    assert {"configctl", "configagent", "etcdctl", "make"} <= found
    assert problem(build_parser(), ["audit", "verfy"]) == "verfy"
    assert problem(build_parser(), ["put", "/a", "1", "--raeson"]) == "--raeson"
