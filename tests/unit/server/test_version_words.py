"""P13, D3: what ``configsvc --version`` says, with next to no environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from configsvc.config import ServerConfig

ROOT = Path(__file__).resolve().parents[3]


def test_the_version_has_a_line_of_etcds() -> None:
    argv = [sys.executable, "-m", "configsvc.cli.configsvc", "--version"]
    ran = subprocess.run(
        argv, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True
    )
    own, etcds = ran.stdout.splitlines()
    assert own.startswith("configsvc Version: ")
    assert etcds == f"etcd Version: {ServerConfig().advertised_etcd_version}"
    assert all(part.isdigit() for part in etcds.removeprefix("etcd Version: ").split("."))


def test_it_is_said_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['configsvc', '--version']\n"
        "from configsvc.cli.configsvc import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('asyncio', 'grpc', 'google.protobuf', 'sqlalchemy', 'cryptography')"
        " if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[]"
