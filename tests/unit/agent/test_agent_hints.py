"""File events as hints (agent.md H1): fast and nested ones are neither lost nor warned about."""

import asyncio
import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from configagent.drift import Hints
from configagent.settings import SetSpec


def spec(folder: Path) -> SetSpec:
    return SetSpec(
        name="site",
        prefix="/p",
        keys=(),
        commit="dir",
        dir=str(folder),
        files=(),
        services=(),
        check=None,
        settle_min_s=0,
        settle_max_s=0,
        keep_generations=2,
        drift_policy="repair",
        drift_interval_s=60,
        on_missing_key="hold",
        prune=False,
    )


def test_a_folder_met_twice_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_walk: Any = os.walk

    def walk(top: bytes | str, **options: Any) -> Iterator[Any]:
        """A folder appears between its parent's watch and the library's walk of the parent."""
        if os.path.basename(os.fsencode(top)) == b"new":
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.join(os.fsencode(top), b"late"))
        return iter(real_walk(top, **options))

    async def story() -> None:
        last = asyncio.Event()
        hints = Hints(asyncio.get_running_loop(), lambda _: last.set() if seen("late/x") else None)

        def seen(path: str) -> bool:
            return (tmp_path / "new" / path).exists()

        assert hints.start([spec(tmp_path)]) == []
        (tmp_path / "new").mkdir()
        while not seen("late"):
            await asyncio.sleep(0.01)
        (tmp_path / "new/late/x").write_text("x")
        await asyncio.wait_for(last.wait(), 10)
        hints.stop()

    monkeypatch.setattr(os, "walk", walk)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # raised in the library's thread, it would end all hints
        asyncio.run(story())
