"""One-line JSON logs on stderr with allow-listed fields.

A line has ``level``, ``ts``, ``caller``, ``msg`` and fields from a closed list; everything else is
dropped, and text from outside is escaped, so that no secret and no terminal escape can pass
(security.md 3.11). There is no colour and no format choice.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Final, TextIO

LEVELS: Final = {"debug": 0, "info": 1, "warn": 2, "error": 3, "fatal": 4}
FIELDS: Final = frozenset(
    {
        "member", "cluster", "name", "peer", "address", "url", "term", "index", "revision", "lead",
        "role", "count", "bytes", "seconds", "reason", "code", "exit", "remedy", "path", "offset",
        "segment", "request_id", "method", "identity", "serial", "state", "version", "error_class",
        "key_id", "applied", "durable", "committed", "voters", "learners", "lag", "stack",
        "setting", "flag", "pid", "round", "limit", "kind",
    }
)  # fmt: skip
TEXT_CHARS_MAX: Final = 2_000


def printable(text: str) -> str:
    """Escape what could act on a terminal or break a line (RED-5)."""
    out = []
    for ch in text[:TEXT_CHARS_MAX]:
        code = ord(ch)
        bad = (
            code < 0x20
            or 0x7F <= code < 0xA0
            or code in (0x2028, 0x2029, 0xFEFF)
            or 0x200E <= code <= 0x200F
            or 0x202A <= code <= 0x202E
            or 0x2066 <= code <= 0x2069
            or 0xD800 <= code <= 0xDFFF
        )
        out.append(f"\\u{code:04x}" if bad else ch)
    return "".join(out)


class Log:
    """The member's log. Unknown field names are a bug of ours and are dropped."""

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        self._level = LEVELS[level]
        self._stream = stream or sys.stderr
        self._fixed: dict[str, Any] = {}

    def set_level(self, level: str) -> None:
        self._level = LEVELS[level]

    def bind(self, **fields: Any) -> None:
        """Fields that every later line carries."""
        self._fixed.update({k: _value(v) for k, v in fields.items() if k in FIELDS})

    def line(self, level: str, caller: str, msg: str, **fields: Any) -> None:
        """Write one line, flushed at once also into a pipe (P4)."""
        if LEVELS[level] < self._level:
            return
        record: dict[str, Any] = {
            "level": level,
            "ts": _timestamp(time.time_ns()),
            "caller": caller,
            "msg": printable(msg),
        }
        record.update(self._fixed)
        record.update({k: _value(v) for k, v in fields.items() if k in FIELDS})
        try:
            self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # a log that cannot be written never stops the member

    def debug(self, caller: str, msg: str, **fields: Any) -> None:
        self.line("debug", caller, msg, **fields)

    def info(self, caller: str, msg: str, **fields: Any) -> None:
        self.line("info", caller, msg, **fields)

    def warn(self, caller: str, msg: str, **fields: Any) -> None:
        self.line("warn", caller, msg, **fields)

    def error(self, caller: str, msg: str, **fields: Any) -> None:
        self.line("error", caller, msg, **fields)


def _timestamp(now_ns: int) -> str:
    seconds, nanos = divmod(now_ns, 1_000_000_000)
    stamp = time.gmtime(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", stamp) + f".{nanos // 1_000_000:03d}Z"


def _value(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, list | tuple):
        return [_value(v) for v in value]
    return printable(str(value))


class _Bridge(logging.Handler):
    """Lines of rooms that log through the standard library; their text is our own."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = {10: "debug", 20: "info", 30: "warn"}.get(record.levelno, "error")
        name = record.name.removeprefix("configsvc.")
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        fields = {"error_class": error} if error else {}
        self._log.line(level, name, record.getMessage(), **fields)


def bridge_logging(log: Log) -> None:
    """Send the standard library's log lines of our own packages to ``log``."""
    root = logging.getLogger("configsvc")
    root.handlers = [_Bridge(log)]
    root.setLevel(logging.INFO)
    root.propagate = False
