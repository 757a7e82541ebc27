"""Scripts as paragraphs: a directive, input, and the output that is expected of it.

The three languages of raft scenario scripts share this form. ``replay`` runs a file against an
interpreter and compares; interpreters know the commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

_LOG_LINE = re.compile(r"^ *(DEBUG|INFO|WARN|ERROR|FATAL) ")
_TRUE = frozenset({"true", "1", "t", "T", "TRUE", "True"})
_FALSE = frozenset({"false", "0", "f", "F", "FALSE", "False"})


@dataclass(frozen=True)
class Paragraph:
    """One command with everything that belongs to it; ``line`` is where it starts, from 1."""

    line: int
    command: str
    positional: tuple[str, ...]
    options: dict[str, tuple[str, ...]] = field(hash=False)
    input: str
    expected: tuple[str, ...]
    span: tuple[int, int]  # the lines of the expectation in the file, from 0, end excluded

    def ids(self, option: str | None = None) -> list[int]:
        """The positional arguments, or the values of ``option``, as ids in the order written."""
        words = self.positional if option is None else self.options.get(option, ())
        return [int(word) for word in words if word]

    def text(self, option: str, default: str = "") -> str:
        values = self.options.get(option)
        return values[0] if values else default

    def number(self, option: str, default: int) -> int:
        return int(self.text(option, str(default)))

    def flag(self, option: str, *, default: bool = False) -> bool:
        word = self.text(option, "true" if default else "false")
        assert word in _TRUE | _FALSE, f"not a boolean: {word}"
        return word in _TRUE


class Interpreter(Protocol):
    """Carries out the commands of one language; one object per file."""

    def run(self, paragraph: Paragraph) -> str:
        """The output; empty if the command wrote nothing."""


@dataclass
class Replayed:
    """What a file amounted to, for the counts of the format's description."""

    paragraphs: int = 0
    ok: int = 0  # paragraphs that expect just "ok"
    lines: int = 0  # expected lines, without log lines
    dropped: int = 0  # log lines

    def __add__(self, other: Replayed) -> Replayed:
        return Replayed(
            self.paragraphs + other.paragraphs,
            self.ok + other.ok,
            self.lines + other.lines,
            self.dropped + other.dropped,
        )


def replay(path: Path, interpreter: Interpreter) -> Replayed:
    """Run a file and stop at the first difference, because the rest builds on the state."""
    counts = Replayed()
    for paragraph in parse(path.read_text("utf-8")):
        kept = [line for line in paragraph.expected if not _LOG_LINE.match(line)]
        expected = kept or ["ok"]
        actual = (interpreter.run(paragraph) or "ok").removesuffix("\n").split("\n")
        where = f"{path}:{paragraph.line}: {paragraph.command} {' '.join(paragraph.positional)}"
        assert actual == expected, where
        counts += Replayed(
            paragraphs=1,
            ok=int(expected == ["ok"]),
            lines=len(expected),
            dropped=len(paragraph.expected) - len(kept),
        )
    return counts


def rewrite(path: Path, interpreter: Interpreter) -> None:
    """Put what the commands produce now in the place of what was expected; review the diff."""
    text = path.read_text("utf-8")
    lines = text.split("\n")
    for paragraph in reversed([(p, interpreter.run(p) or "ok") for p in parse(text)]):
        (start, end), output = paragraph[0].span, paragraph[1].removesuffix("\n")
        lines[start:end] = output.split("\n")
    path.write_text("\n".join(lines), "utf-8")


def parse(text: str) -> Iterator[Paragraph]:
    """Cut a file into paragraphs."""
    lines = text.split("\n")
    position = 0
    while True:
        while position < len(lines) and _is_between(lines[position]):
            position += 1
        if position == len(lines):
            return
        start = position
        directive = lines[position].strip()
        position += 1
        while directive.endswith("\\"):
            directive = directive[:-1] + " " + lines[position].strip()
            position += 1
        separator = lines.index("----", position)
        body = "\n".join(lines[position:separator]).strip()
        expected, position = _expected(lines, separator + 1)
        span = separator + 1, position
        command, positional, options = _directive(directive)
        yield Paragraph(start + 1, command, positional, options, body, tuple(expected), span)


def _is_between(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#")


def _expected(lines: list[str], start: int) -> tuple[list[str], int]:
    """Expected output from ``start`` on, and where it ends."""
    if lines[start : start + 1] == ["----"]:
        end = start + 1
        while lines[end : end + 2] != ["----", "----"]:
            end += 1
        return lines[start + 1 : end], end + 2
    end = start
    while end < len(lines) and lines[end].strip():
        end += 1
    return lines[start:end], end


def _directive(text: str) -> tuple[str, tuple[str, ...], dict[str, tuple[str, ...]]]:
    command, *words = _words(text)
    positional = []
    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            positional.append(key)
        elif value.startswith("("):
            options[key] = tuple(_values(value[1:-1]))
        else:
            options[key] = (value,)
    return command, tuple(positional), options


def _words(text: str) -> Iterator[str]:
    """Split at spaces outside parentheses."""
    depth, word = 0, ""
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == " " and depth == 0:
            if word:
                yield word
            word = ""
        else:
            word += char
    if word:
        yield word


def _values(text: str) -> Iterator[str]:
    """Split at commas outside nested parentheses."""
    depth, value = 0, ""
    for char in text:
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == "," and depth == 0:
            yield value
            value = ""
        elif char != " " or value:
            value += char
    yield value
