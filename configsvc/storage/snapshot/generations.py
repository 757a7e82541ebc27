"""The generation files of one data directory: which are there, which go.

``sql/gen-<n>.db``. One generation is live: the one the last INSTALLED frame of the log names, or
the first. An install fills the next number beside it; what the log does not name is deleted at
start (S2). Not here: what is in a generation (``history``), the frame (``wal``).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.disk import check_private_path
from configsvc.storage.history.copying import COPY_PREFIX
from configsvc.storage.history.engine import sync_dir

FIRST_GENERATION: Final = 1
_NAME: Final = re.compile(r"gen-([1-9][0-9]{0,17})\.db(-wal|-shm|-journal)?")


def sql_dir(data_dir: Path) -> Path:
    return data_dir / "sql"


def generation_path(data_dir: Path, number: int) -> Path:
    """Where generation ``number`` lies, whether or not it exists."""
    return sql_dir(data_dir) / f"gen-{number}.db"


def prepare(data_dir: Path) -> None:
    """Make the directory of generations, for the owner alone.

    Raises:
        ConfigError: others can reach it or a parent of it, or it is not a directory of ours.
    """
    check_private_path(sql_dir(data_dir), "history directory", create_mode=0o700)
    sync_dir(data_dir)


def present(data_dir: Path) -> list[int]:
    """Numbers of all generations of which any file exists, ascending."""
    directory = sql_dir(data_dir)
    names = os.listdir(directory) if directory.is_dir() else []
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


def next_number(data_dir: Path, live: int) -> int:
    """A number for a new generation: above the live one and above every leftover."""
    return max([live, *present(data_dir)]) + 1


def keep_only(data_dir: Path, live: int, *, required: bool) -> list[int]:
    """Delete every generation but ``live``, oldest first, and copies that a kill left behind.

    Args:
        data_dir: The member's data directory.
        live: The generation the log names.
        required: The live one must exist: not so at a first start.

    Returns:
        The numbers of the generations deleted.

    Raises:
        FatalError: exit 84, the generation that the log names is missing. Nothing was deleted.
    """
    path = generation_path(data_dir, live)
    if required and not path.is_file():
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            f"{path} is missing, and the log says that it holds this member's history",
            "wipe the data directory and let the member join again, or restore a backup",
        )
    others = [number for number in present(data_dir) if number != live]
    for number in others:
        remove(data_dir, number)
    for leftover in sorted(sql_dir(data_dir).glob(f"{COPY_PREFIX}*.db*")):
        leftover.unlink()
    return others


def remove(data_dir: Path, number: int) -> None:
    """Delete one generation with its side files; what is not there is no error."""
    path = generation_path(data_dir, number)
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    sync_dir(sql_dir(data_dir))
