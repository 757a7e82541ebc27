"""Points in time as people write them: a revision, a time, how long ago, or how long from now.

``1234`` is a revision; ``2026-01-31T12:00:00Z`` and ``2026-01-31`` are times (UTC without a
zone); ``2h``, ``1h30m`` and ``30m ago`` count back from now.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from configsvc.cli.exits import CliError, Exit

_UNITS_NS: Final = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
    "w": 7 * 86_400 * 1_000_000_000,
}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_FRACTION: Final = re.compile(r"\.(\d{1,9})(?=$|[Zz+-])")
_FORMS: Final = "a revision, a time like 2026-01-31T12:00:00Z, or an age like 2h or 30m ago"


class When(NamedTuple):
    """A point in the past: one of the two is non-zero; both zero is now."""

    revision: int = 0
    time_ns: int = 0


def parse_duration_ns(text: str) -> int | None:
    """``1h30m`` in nanoseconds; None when it is no duration."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(float(number) * _UNITS_NS[unit]) for number, unit in _PART.findall(text))


def parse_seconds(text: str) -> float:
    """A duration for a setting: ``5``, ``2.5``, ``5s``, ``2m``.

    Raises:
        CliError: usage; no duration, or zero.
    """
    try:
        seconds = float(text)
    except ValueError:
        nanoseconds = parse_duration_ns(text)
        seconds = -1.0 if nanoseconds is None else nanoseconds / 1e9
    if not 0 < seconds < 1e9:
        raise CliError(Exit.USAGE, f"{text!r} is no duration: write 5s or 2m")
    return seconds


def _parse_time_ns(text: str) -> int | None:
    fraction = _FRACTION.search(text)
    nanoseconds = int(fraction[1].ljust(9, "0")) if fraction else 0
    whole = _FRACTION.sub("", text)
    try:
        moment = datetime.fromisoformat(whole)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + nanoseconds


def parse_when(text: str, now_ns: int) -> When:
    """Read a point in the past; empty text and ``now`` are now.

    Raises:
        CliError: usage; nothing that can be understood, or in the future.
    """
    text = text.strip()
    if text in ("", "now"):
        return When()
    if text.isascii() and text.isdigit() and len(text) < 19:
        return When(revision=int(text)) if int(text) else When(revision=1)
    age = parse_duration_ns(text.removesuffix("ago").strip())
    time_ns = _parse_time_ns(text) if age is None else now_ns - age
    if time_ns is None or time_ns <= 0:
        raise CliError(Exit.USAGE, f"{text!r} is no point in the past: give {_FORMS}")
    if time_ns > now_ns:
        raise CliError(Exit.USAGE, f"{text!r} lies in the future")
    return When(time_ns=time_ns)


def parse_deadline(text: str, now_ns: int) -> int:
    """Read a time that lies ahead, or how long from now, in nanoseconds UTC.

    Raises:
        CliError: usage; nothing that can be understood, or not ahead.
    """
    text = text.strip()
    duration = parse_duration_ns(text)
    time_ns = _parse_time_ns(text) if duration is None else now_ns + duration
    if time_ns is None or not now_ns < time_ns < 2**63:
        raise CliError(
            Exit.USAGE,
            f"{text!r} is no time ahead: give one like 2026-01-31T12:00:00Z, or 12h or 30d",
        )
    return time_ns


def show_time(time_ns: int, *, exact: bool = False) -> str:
    """RFC 3339 in UTC, to the second or to the nanosecond; empty for 0."""
    if not time_ns:
        return ""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{nanoseconds:09d}Z" if exact else f"{moment}Z"


def show_age(nanoseconds: int) -> str:
    """A rough duration for tables: ``12s``, ``3m``, ``5h``, ``2d``."""
    seconds = max(nanoseconds, 0) // 1_000_000_000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
