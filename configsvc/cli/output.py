"""What ``configctl`` prints.

Always true: bytes from the store reach a terminal escaped; only ``--raw`` into something that is
no terminal passes them as they are (CLI-3). JSON is pure ASCII, hence as safe.

Single things print one JSON object, lists one array, streams one object a line.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO


def escape(data: bytes | str, *, lines: bool = False) -> str:
    r"""Make text safe for a terminal: what does not print becomes ``\n``, ``\x1b``, ``\u202e``.

    With ``lines`` line ends and tabs stay, for values that are shown as a whole.
    """
    text = data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (lines and char in "\n\t") else _escape_char(char)
        for char in text
    )


def _escape_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shorten(text: str, width: int) -> str:
    """Cut a cell; 0 is no limit."""
    return text if not width or len(text) <= width else text[: width - 1] + "…"


def json_bytes(name: str, data: bytes) -> dict[str, str]:
    """A field of bytes: as text where it is UTF-8, else as ``<name>_base64``."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def sparing(
    tell: Callable[[str], None],
    *,
    again_s: float = 60.0,
    now: Callable[[], float] = time.monotonic,
) -> Callable[[str], None]:
    """``tell``, but the same line again only after ``again_s`` seconds: outages last."""
    last = ("", -math.inf)

    def say(line: str) -> None:
        nonlocal last
        at = now()
        if line != last[0] or at - last[1] >= again_s:
            last = (line, at)
            tell(line)

    return say


class Out:
    """Standard output of one command."""

    def __init__(self, *, as_json: bool, raw: bool, stream: BinaryIO | None = None) -> None:
        self.as_json = as_json
        self._stream = stream or sys.stdout.buffer
        self.raw = raw and not self._stream.isatty()

    def line(self, text: str) -> None:
        """One line of text that is safe already."""
        self._stream.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Hand on what was printed, for streams."""
        self._stream.flush()

    def value(self, data: bytes) -> None:
        """One whole value."""
        if self.raw:
            self._stream.write(data)
        else:
            self.line(escape(data, lines=True))

    def json(self, thing: Any) -> None:
        """One JSON document on one line."""
        self.line(json.dumps(thing, sort_keys=False))

    def done(self, text: str, **fields: Any) -> None:
        """Say that something was done: text for people, the fields for machines."""
        if self.as_json:
            self.json({"ok": True, **fields})
        else:
            self.line(text)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Columns under heads; cells are escaped; the last column is as wide as it likes."""
        cells = [[escape(str(cell)) for cell in row] for row in rows]
        widths = [
            max(len(head), *(len(row[place]) for row in cells)) if cells else len(head)
            for place, head in enumerate(heads)
        ]
        for row in [list(heads), *cells]:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.line("  ".join(padded).rstrip())
