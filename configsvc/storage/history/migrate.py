"""Brings a database to this program's schema, and refuses one that is newer.

The steps lie in ``migrations/`` of a checkout and in ``_migrations`` of an installed package.
Alembic is imported only when a step has to run: a normal start does not pay for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from configsvc.errors import ExitCode, FatalError
from configsvc.storage.history.schema import FORMAT, SCHEMA_ID
from configsvc.storage.history.soundness import damaged

_HERE: Final = Path(__file__).resolve().parent


def migrations_dir() -> Path:
    """Where the steps are: beside this file in a wheel, else at the root of the checkout."""
    packed = _HERE / "_migrations"
    return packed if packed.is_dir() else _HERE.parents[2] / "migrations"


def schema_of(connection: Connection) -> str:
    """The schema id stamped in the database; empty for a fresh one."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def refuse_newer(connection: Connection, path: Path) -> None:
    """Read-only check of a store that is complete, made before anything is touched.

    Raises:
        FatalError: exit 86, the schema or the stored bytes need a newer program; 84, there never
            was such a schema.
    """
    stamped = schema_of(connection)
    # Schema ids are fixed-width numbers: comparing text compares age.
    if len(stamped) != len(SCHEMA_ID) or not stamped.isdigit():
        raise damaged(path, f"{stamped!r} is no schema id")
    if stamped > SCHEMA_ID:
        raise _too_new(path, f"schema {stamped}, this program knows {SCHEMA_ID}")
    oldest = connection.execute(text("SELECT minimum_reader FROM store")).scalar()
    if oldest is not None and oldest > FORMAT:
        raise _too_new(path, f"needs reader {oldest}, this program is reader {FORMAT}")


def migrate(connection: Connection) -> bool:
    """Run the missing steps inside the caller's transaction: all of them or none.

    Returns whether there were any.
    """
    if schema_of(connection) == SCHEMA_ID:
        return False
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA_ID)
    return True


def _too_new(path: Path, what: str) -> FatalError:
    return FatalError(
        ExitCode.TOO_NEW,
        f"{path}: {what}",
        "install the program version that wrote this data directory",
    )
