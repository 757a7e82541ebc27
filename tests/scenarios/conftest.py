"""Where the public scenario scripts lie; they are another project's data and never committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OPTION = "--raft-testdata"
REWRITE = "--rewrite-scenarios"
VARIABLE = "CONFIGSVC_RAFT_TESTDATA"
_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "raft-testdata"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, default=None, metavar="DIR", help="folder of raft scenario scripts")
    parser.addoption(REWRITE, action="store_true", help="rewrite what our own scripts expect")


def _folder(config: pytest.Config) -> Path:
    given = config.getoption(OPTION, default=None) or os.environ.get(VARIABLE)
    return Path(given) if given else _DEFAULT


@pytest.fixture(scope="session")
def raft_testdata(request: pytest.FixtureRequest) -> Path:
    """The folder; without it the public scripts are skipped, and the summary says so."""
    folder = _folder(request.config)
    if not folder.is_dir():
        pytest.skip(
            f"PUBLIC RAFT SCRIPTS NOT RUN: {folder} is no directory; "
            f"name it with {OPTION} DIR or {VARIABLE}=DIR"
        )
    return folder


@pytest.fixture(scope="session")
def raft_testdata_is_shipped(raft_testdata: Path) -> bool:
    """Whether this is the folder whose counts are known, and not one of somebody's choice."""
    return raft_testdata.resolve() == _DEFAULT.resolve()


@pytest.fixture(scope="session")
def rewrite_scenarios(request: pytest.FixtureRequest) -> bool:
    """Whether our own scripts are to be rewritten instead of compared."""
    return bool(request.config.getoption(REWRITE, default=False))
