"""What `examples/` shows is accepted by the programs it is for."""

from __future__ import annotations

from pathlib import Path

from configsvc.server.flags import parse

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_member_settings_are_usable() -> None:
    parsed = parse(["--config-file", str(EXAMPLES / "member.toml")], {})
    assert parsed.config.name == "m1"
    assert not parsed.config.problems()
    assert len(parsed.config.genesis) == 3


def test_the_unit_does_not_restart_what_a_restart_does_not_cure() -> None:
    text = (EXAMPLES / "configsvc.service").read_text()
    line = next(x for x in text.splitlines() if x.startswith("RestartPreventExitStatus="))
    assert line.partition("=")[2].split() == ["78", "82", "83", "84", "85", "86", "87", "88", "91"]
