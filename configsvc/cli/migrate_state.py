"""The state file: where a migration stands, so that it can go on after any interruption.

Always true: the file is replaced as a whole; it says for which pair of clusters and which
prefixes it counts and is refused for others; it holds no values.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from configsvc.cli.exits import CliError, Exit

_FORMAT: Final = 1


@dataclass(slots=True)
class State:
    """How far it is. ``last_key`` empty: nothing is copied; ``revision`` 0: not begun."""

    source: str
    target: str
    prefixes: list[str]
    revision: int = 0  # of the source; while following: everything up to it is applied
    last_key: bytes = b""
    copied: bool = False  # the copy as of ``revision`` is complete
    target_revision: int = 0  # of the last write: a target that is behind it was made anew


def default_path(environment: Mapping[str, str], source: int, target: int) -> Path:
    """One file per pair of clusters, in the user's state directory."""
    home = environment.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(home) / "configctl" / f"migrate-{source:x}-{target:x}.json"


class StateFile:
    """One file. Reading and writing fail with a line that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, source: int, target: int, prefixes: list[str]) -> State:
        """What was saved, or a new beginning.

        Raises:
            CliError: it is unreadable, or of another migration.
        """
        fresh = State(f"{source:x}", f"{target:x}", sorted(prefixes))
        try:
            found: dict[str, Any] = json.loads(self.path.read_bytes())
            if found.pop("format") != _FORMAT:
                raise ValueError("written by another version")
            found["last_key"] = base64.b64decode(found["last_key"], validate=True)
            state = State(**found)
        except FileNotFoundError:
            return fresh
        except OSError as error:
            raise CliError(Exit.CONFIG, f"{self.path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise CliError(
                Exit.CONFIG, f"{self.path}: no state of a migration: name another --state"
            ) from None
        if (state.source, state.target, state.prefixes) != (
            fresh.source,
            fresh.target,
            fresh.prefixes,
        ):
            raise CliError(
                Exit.CONFIG,
                f"{self.path} belongs to other clusters or prefixes: name another --state, "
                "or remove it to begin anew",
            )
        return state

    def save(self, state: State) -> None:
        """Replace the file.

        Raises:
            CliError: it cannot be written.
        """
        fields = asdict(state)
        fields["last_key"] = base64.b64encode(state.last_key).decode()
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(json.dumps({"format": _FORMAT, **fields}).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise CliError(Exit.CONFIG, f"state file {self.path}: {error.strerror}") from None
