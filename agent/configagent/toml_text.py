"""Strict reading of TOML: typed values, unknown keys refused, every problem with its line.

``tomllib`` knows no lines, so a small scanner maps key paths to them; inside a multi-line value
the line is the one where the value's key stands.

Not here: what the settings mean (``config``).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from configagent.errors import SettingsError

Path = tuple[str | int, ...]
_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\-\" ]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"^\s*([A-Za-z0-9_\-.]+)\s*=")
_DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SIZE: Final = re.compile(r"^(\d+)(B|KiB|MiB)?$")
_PERCENT: Final = re.compile(r"^(\d+)%$")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024 * 1024}


def line_map(text: str) -> dict[Path, int]:
    """Line numbers (from 1) of tables and keys. A guide for messages, never for meaning."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    base: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            base = _resolve(header[2].replace('"', "").split("."), counts, header[1] == "[[")
            found.setdefault(base, number)
            continue
        key = _KEY.match(line)
        if key:
            found.setdefault((*base, *key[1].split(".")), number)
    return found


def _resolve(parts: list[str], counts: dict[Path, int], is_array: bool) -> Path:
    path: Path = ()
    for place, part in enumerate(parts):
        path = (*path, part.strip())
        if is_array and place == len(parts) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def parse_duration(text: str) -> float:
    """A duration such as "200ms", "5s", "1h", as seconds.

    Raises:
        ValueError: it is none.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("not a duration")
    return float(match[1]) * _SECONDS[match[2]]


class Reader:
    """Problems of one document, collected so that one run shows them all."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self._lines = line_map(text)
        try:
            self.root = Table(self, (), tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{name}: {error}") from None

    def problem(self, path: Path, text: str) -> None:
        """Note a problem at a key."""
        line, at = 0, path
        while at and not line:
            line, at = self._lines.get(at, 0), at[:-1]
        dotted = ".".join(f"{part}" for part in path)
        self.problems.append(f"{self.name}:{line or 1}: {dotted}: {text}")

    def finish(self) -> None:
        """Raise what was found.

        Raises:
            SettingsError: at least one problem.
        """
        if self.problems:
            raise SettingsError(*dict.fromkeys(self.problems))


class Table:
    """One table; a key that nobody asked for by ``done`` is unknown."""

    def __init__(self, reader: Reader, path: Path, data: Mapping[str, Any]) -> None:
        self.reader = reader
        self.path = path
        self._data = data
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def is_table(self, key: str) -> bool:
        """Whether the key's value is a table."""
        return isinstance(self._data.get(key), dict)

    def problem(self, key: str, text: str) -> None:
        """Note a problem at one of this table's keys, or at the table ("")."""
        self.reader.problem((*self.path, key) if key else self.path, text)

    def done(self) -> None:
        """Refuse what nobody asked for."""
        for key in self._data:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                self.problem(key, f"unknown key{hint}")

    def _take(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        self._asked.add(key)
        value = self._data.get(key)
        if value is None:
            return None
        right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
        if not right:
            self.problem(key, f"must be {what}")
            return None
        return value

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        """A string."""
        value = self._take(key, str, "a string")
        if value is None:
            if required and key not in self._data:
                self.problem(key, "is required")
            return default
        if "\0" in value:
            self.problem(key, "must not hold NUL")
            return default
        return str(value)

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """A string out of a closed list."""
        value = self.text(key, default)
        if value not in allowed:
            self.problem(key, f"must be one of {', '.join(allowed)}")
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        value = self._take(key, bool, "true or false")
        return default if value is None else bool(value)

    def number(self, key: str, default: int, low: int, high: int) -> int:
        """An integer within limits, both included."""
        value = self._take(key, int, "a whole number")
        if value is None:
            return default
        if not low <= value <= high:
            self.problem(key, f"must be from {low} to {high}")
            return default
        return int(value)

    def seconds(self, key: str, default: float) -> float:
        """A duration such as "200ms", "5s", "1h", as seconds; "0s" is none."""
        value = self._take(key, str, 'a duration such as "5s"')
        if value is None:
            return default
        try:
            return parse_duration(value)
        except ValueError:
            self.problem(key, 'must be a duration such as "200ms", "5s", "10m"')
            return default

    def size(self, key: str, default: int, high: int) -> int:
        """Bytes, as a number or such as "1MiB"."""
        value = self._take(key, (str, int), 'a size such as "1MiB"')
        if value is None:
            return default
        match = _SIZE.match(str(value))
        found = int(match[1]) * _BYTES[match[2]] if match else -1
        if not 0 <= found <= high:
            self.problem(key, f'must be a size such as "64KiB", at most {high} bytes')
            return default
        return found

    def percent(self, key: str, default: int) -> int:
        """A share such as "50%"; 0 switches the rule off."""
        value = self._take(key, str, 'a share such as "50%"')
        if value is None:
            return default
        match = _PERCENT.match(value)
        if match is None:
            self.problem(key, 'must be a share such as "50%"')
            return default
        return int(match[1])

    def mode(self, key: str, default: int) -> int:
        """A file mode such as "0640"."""
        value = self._take(key, str, 'a mode such as "0640"')
        if value is None:
            return default
        if re.fullmatch(r"0[0-7]{3}", value) is None:
            self.problem(key, 'must be a mode of four octal digits such as "0640"')
            return default
        return int(value, 8)

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of strings."""
        value = self._take(key, list, "a list of strings")
        if value is None:
            return default
        if not all(isinstance(item, str) and "\0" not in item for item in value):
            self.problem(key, "must be a list of strings")
            return default
        return tuple(value)

    def table(self, key: str) -> Table:
        """A sub-table; empty when it is missing."""
        value = self._take(key, dict, "a table")
        return Table(self.reader, (*self.path, key), value or {})

    def tables(self, key: str) -> list[Table]:
        """A list of tables; empty when it is missing."""
        value = self._take(key, list, "a list of tables")
        found = []
        for place, item in enumerate(value or []):
            if isinstance(item, dict):
                found.append(Table(self.reader, (*self.path, key, place), item))
            else:
                self.problem(key, "must be a list of tables")
        return found
