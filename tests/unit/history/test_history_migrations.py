"""The migrations and the tables in code are the same; from a checkout and from a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from history_world import IDENTITY
from sqlalchemy import create_engine

from configsvc.storage.history import migrate as migrate_module
from configsvc.storage.history.engine import open_writer, sqlite_warnings
from configsvc.storage.history.migrate import migrate, migrations_dir, schema_of
from configsvc.storage.history.schema import METADATA, SCHEMA_ID
from configsvc.storage.history.store import History

ROOT = Path(__file__).parents[3]


def table_sql(engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master").fetchall()
    return {name: " ".join(sql.split()) for name, sql in rows if sql}


def test_migrations_make_the_tables_in_code(template: Path) -> None:
    engine = open_writer(template)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    migrated = table_sql(engine)
    engine.dispose()
    plain = create_engine("sqlite://")
    METADATA.create_all(plain)
    made = table_sql(plain)
    plain.dispose()
    assert set(migrated) - set(made) == {"alembic_version"}
    for name, sql in made.items():
        # STRICT and WITHOUT ROWID are what the comparison by Alembic does not see.
        assert sql.split(")")[-1] == migrated[name].split(")")[-1], name


def test_the_newest_step_is_the_one_the_program_knows() -> None:
    steps = ScriptDirectory(str(migrations_dir()))
    assert steps.get_heads() == [SCHEMA_ID]
    assert all(len(step.revision) == len(SCHEMA_ID) for step in steps.walk_revisions())


def test_a_step_that_fails_leaves_nothing(tmp_path: Path, key_file, monkeypatch) -> None:
    steps = tmp_path / "steps"
    (steps / "versions").mkdir(parents=True)
    for name in (
        "env.py",
        "versions/0001_history.py",
        "versions/0002_versions.py",
        "versions/0003_mark.py",
    ):
        (steps / name).write_text((migrations_dir() / name).read_text())
    (steps / "versions" / "0001_history.py").write_text(
        (migrations_dir() / "versions" / "0001_history.py")
        .read_text()
        .replace("    _create_small_tables()\n", "    raise RuntimeError('power')\n", 1)
    )
    monkeypatch.setattr(migrate_module, "migrations_dir", lambda: steps)
    path = tmp_path / "half.db"
    with pytest.raises(RuntimeError, match="power"):
        History.open(path, IDENTITY, key_file, create=True)
    engine = open_writer(path)
    assert table_sql(engine) == {}
    engine.dispose()
    monkeypatch.undo()
    History.open(path, IDENTITY, key_file, create=True).close()  # the next start repeats it


def test_migrating_twice_is_nothing(path: Path) -> None:
    engine = open_writer(path)
    with engine.connect() as connection, connection.begin():
        migrate(connection)
        assert schema_of(connection) == SCHEMA_ID
    engine.dispose()


def test_the_linked_sqlite_is_judged_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    for version, faulty in (((3, 40, 1), True), ((3, 44, 6), False), ((3, 51, 3), False)):
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        assert bool(sqlite_warnings()) is faulty, version


@pytest.mark.slow
def test_a_wheel_brings_its_migrations(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from configsvc.storage.history.migrate import migrations_dir\n"
        "from configsvc.storage.history.store import History\n"
        "from configsvc.storage.history.messages import StoreIdentity\n"
        "from configsvc.storage.seal.keyfile import KeyFile\n"
        "assert str(migrations_dir()).startswith(sys.argv[1]), migrations_dir()\n"
        "key = KeyFile.create(sys.argv[1] + '/key')\n"
        "identity = StoreIdentity(1, 2, bytes(16))\n"
        "History.open(sys.argv[1] + '/h.db', identity, key, create=True).close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(site)], cwd=tmp_path, check=True)
