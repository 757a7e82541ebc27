"""Rules of the house that no type checker sees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from configsvc import errors
from configsvc.api.rights import RIGHTS
from configsvc.api.status import CODE_OF, code_name, status_of
from configsvc.apply import outcome

ROOT = Path(__file__).resolve().parents[2]
PURE = ("raft", "mvcc", "lease", "auth", "fleet", "audit", "apply", "http2")


def sources(*rooms: str) -> Iterator[Path]:
    for room in rooms or ("",):
        for path in sorted((ROOT / "configsvc" / room).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def calls(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            func = node.func
            found.add(func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", ""))
    return found


def test_pure_rooms_import_no_world() -> None:
    world = {
        "asyncio", "time", "socket", "ssl", "os", "threading", "pathlib", "random", "grpc",
        "google", "sqlalchemy", "uuid", "secrets", "datetime", "locale",
    }  # fmt: skip
    for path in sources(*PURE):
        assert not imports(path) & world, path


def test_randomness_is_the_systems() -> None:
    """ENC-8: nothing that makes keys, seals or records may reach for ``random``."""
    for path in sources("identity", "storage/seal", "audit"):
        assert "random" not in imports(path), path


def test_the_consensus_core_is_configured_in_one_place() -> None:
    """C9: pre-vote and check-quorum cannot be left out by a second construction."""
    for path in sources():
        if path != ROOT / "configsvc" / "raft" / "config.py":
            assert "RaftConfig" not in calls(path), path


def test_no_input_is_ever_evaluated_or_unpickled() -> None:
    """N59: schema'd decoding only."""
    forbidden = {"pickle", "marshal", "shelve", "yaml"}
    for path in sources():
        assert not imports(path) & forbidden, path
        assert not calls(path) & {"eval", "exec"}, path


def test_nothing_skips_verification() -> None:
    """N20, CLI-2: there is no way to trust a server without checking it."""
    pattern = re.compile(r"CERT_NONE|check_hostname\s*=\s*False|insecure.skip|skip.verify", re.I)
    for path in sources():
        text = "\n".join(
            line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
        )
        assert not pattern.search(text), path


def test_nothing_that_ships_uses_the_insecure_switch() -> None:
    """DEV-6."""
    shipped = [ROOT / "Makefile", *(ROOT / "examples").rglob("*"), *(ROOT / ".ci").iterdir()]
    shipped += sorted((ROOT / "configsvc" / "cli" / "devcluster").glob("*.py"))
    for path in shipped:
        if path.is_file():
            assert "insecure-dev" not in path.read_text(errors="replace"), path


def test_every_refusal_has_a_status() -> None:
    def all_of(cls: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
        for sub in cls.__subclasses__():
            if sub.__module__ == "configsvc.errors":
                yield sub
            yield from all_of(sub)

    for cls in all_of(errors.RequestError):
        if cls is errors.EtcdError:
            continue
        assert cls in CODE_OF, cls
        if issubclass(cls, errors.EtcdError):
            assert status_of(cls())[1] == cls.text


def test_apply_and_the_wire_name_the_same_codes() -> None:
    for cls, name in outcome.CODE_OF.items():
        if cls in CODE_OF:
            assert code_name(CODE_OF[cls]) == name or cls is errors.ConflictError, cls


def test_the_table_of_rights_names_known_actions() -> None:
    from configsvc.auth.actions import ACTIONS

    for path, right in RIGHTS.items():
        assert not right.action or right.action in ACTIONS, path


def test_files_are_of_a_livable_size() -> None:
    agent = (ROOT / "agent").rglob("*.py")
    lengths = {path: len(path.read_text().splitlines()) for path in (*sources(), *agent)}
    assert sorted(lengths.values())[len(lengths) // 2] <= 220
    for path, length in lengths.items():
        assert length <= 500, path


def test_test_files_have_names_of_their_own() -> None:
    """The test folders are no packages: two files of one name cannot both be imported."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_project_speaks_of_itself_alone() -> None:
    words = re.compile(r"/work/|/tmp/brief|\bhelper-\d|\bsession \d|issue #?\d", re.I)
    for folder in ("configsvc", "agent", "docs", "policies", "migrations", "bench", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".toml", ".sh") and "_pb2" not in path.name:
                if path == Path(__file__):
                    continue
                found = words.search(path.read_text(errors="replace"))
                assert not found, f"{path}: {found and found[0]}"
