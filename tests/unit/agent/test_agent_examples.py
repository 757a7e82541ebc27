"""What is shipped as an example is accepted as it is, and its template renders."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from configagent import cli
from configagent.config import parse
from configagent.errors import Exit

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/agent/agent.toml"
GUIDE = ROOT / "docs/agent-guide.md"


def toml_of_the_guide() -> str:
    found = re.search(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_example_is_a_configuration() -> None:
    settings = parse(EXAMPLE.read_text(), str(EXAMPLE))
    assert [spec.commit for spec in settings.sets] == ["dir", "files"]
    assert settings.sets[0].files[0].template == f"file:{EXAMPLE.parent}/nginx.conf.j2"


def test_the_first_agent_of_the_guide_is_a_configuration() -> None:
    text = toml_of_the_guide()
    settings = parse(text, "/etc/configagent/agent.toml")
    assert [file.name for file in settings.sets[0].files] == [
        "/etc/myapp/myapp.conf",
        "/etc/myapp/license",
    ]
    assert tomllib.loads(text)["version"] == 1


def test_the_examples_template_renders_without_a_store(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["render", str(EXAMPLE.with_name("nginx.conf.j2"))]
    assert cli.main([*words, "--data", str(EXAMPLE.with_name("nginx.json"))]) == 0
    text = capsys.readouterr().out
    assert "server 10.0.0.2:8080;" in text
    assert 'server_name "www.example.net";' in text


def test_the_unit_allows_what_the_example_writes() -> None:
    """Every directive stands once, and the roots have a line to go to."""
    unit = (ROOT / "agent/systemd/configagent.service").read_text()
    words = [line.split("=")[0] for line in unit.splitlines() if re.match(r"\w+=", line)]
    assert len(words) == len(set(words))
    assert {"Type", "WatchdogSec", "ReadWritePaths", "NoNewPrivileges"} <= set(words)
    assert "Type=notify-reload" in unit


def test_a_template_that_never_ends_is_ended(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    template = tmp_path / "endless.j2"
    template.write_text(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    assert cli.main(["render", str(template)]) == Exit.RENDER
    out, err = capsys.readouterr()
    assert out == ""
    assert str(template) in err


@pytest.mark.parametrize("data", [None, b"\xff", b"[" * 100_000, b"[1]", b'{"a": 1}'])
def test_data_that_no_template_takes_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: bytes | None
) -> None:
    path = tmp_path / "data.json"
    if data is not None:
        path.write_bytes(data)
    words = ["render", str(EXAMPLE.with_name("nginx.conf.j2")), "--data", str(path)]
    assert cli.main(words) == Exit.USAGE
    said = capsys.readouterr().err
    assert said.startswith(f"configagent: {path}: ")
    assert "Errno" not in said
