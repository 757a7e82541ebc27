"""New stores take the old ones' place whole or not at all, wherever a kill comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configsvc.server import rebirth

OLD = {"log": "old log", "sql": "old sql", "local": "old local"}
NEW = {"log": "new log", "sql": "new sql", "local": ""}


class Killed(BaseException):
    """The process ends here."""


def fill(data: Path) -> None:
    for name, content in OLD.items():
        (data / name).mkdir()
        (data / name / "file").write_text(content)


def build(data: Path) -> None:
    place = rebirth.begin(data)
    for name, content in NEW.items():
        if content:
            (place / name / "file").write_text(content)


def held(data: Path) -> dict[str, str]:
    found = {}
    for name in rebirth.STORE_DIRS:
        file = data / name / "file"
        found[name] = file.read_text() if file.exists() else ""
    return found


def test_new_stores_replace_old_ones_which_are_kept(tmp_path: Path) -> None:
    fill(tmp_path)
    build(tmp_path)
    rebirth.commit(tmp_path, "abc")
    assert held(tmp_path) == NEW
    assert held(tmp_path / "before-abc") == OLD
    assert not (tmp_path / rebirth.REBORN_DIR).exists()


def test_an_empty_directory_gets_them_without_a_trace(tmp_path: Path) -> None:
    build(tmp_path)
    rebirth.commit(tmp_path, "abc")
    assert sorted(os.listdir(tmp_path)) == ["local", "log", "sql"]


def test_what_was_not_finished_is_thrown_away(tmp_path: Path) -> None:
    fill(tmp_path)
    build(tmp_path)
    assert rebirth.finish(tmp_path) is False
    assert held(tmp_path) == OLD
    assert sorted(os.listdir(tmp_path)) == ["local", "log", "sql"]


def test_nothing_to_do_does_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    assert rebirth.finish(tmp_path) is False
    assert rebirth.finish(tmp_path / "absent") is False
    assert held(tmp_path) == OLD


def _killer(step: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps calls so that the one numbered ``step`` is never made."""
    count = 0

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            nonlocal count
            if count == step:
                raise Killed
            count += 1
            return call(*args, **more)

        return counted

    return wrap


@pytest.mark.parametrize("step", range(40))
def test_a_kill_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    fill(tmp_path)
    build(tmp_path)
    wrap = _killer(step)
    killed = False
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", wrap(os.rename))
        patched.setattr(os, "fsync", wrap(os.fsync))
        patched.setattr(Path, "unlink", wrap(Path.unlink))
        patched.setattr("shutil.rmtree", wrap(rebirth.shutil.rmtree))
        try:
            rebirth.commit(tmp_path, "abc")
        except Killed:
            killed = True
    rebirth.finish(tmp_path)
    rebirth.finish(tmp_path)
    if held(tmp_path) == OLD:
        assert killed
        assert not (tmp_path / "before-abc").exists()
    else:
        assert held(tmp_path) == NEW
        assert held(tmp_path / "before-abc") == OLD
    assert not (tmp_path / rebirth.REBORN_DIR).exists()
