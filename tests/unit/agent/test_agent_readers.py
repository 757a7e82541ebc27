"""Readers of a folder per generation never see two generations side by side (A3)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from test_agent_commits import NAMES, World

COMMITS = int(os.environ.get("AGENT_COMMITS", "25"))
SAMPLES = int(os.environ.get("AGENT_SAMPLES", "20"))  # at least, between two commits


class Reader:
    """Opens ``current`` once per sample and reads all files through that descriptor."""

    def __init__(self, current: Path) -> None:
        self.samples = self.gone = 0
        self.mixed: list[set[str]] = []
        self.seen: set[str] = set()
        self._current = current
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            folder = os.open(self._current, os.O_RDONLY | os.O_DIRECTORY)
            try:
                texts = {self._read(folder, name) for name in NAMES}
            except FileNotFoundError:
                self.gone += 1  # a slow reader: three generations went by
                continue
            finally:
                os.close(folder)
            self.samples += 1
            self.seen |= texts
            if len(texts) > 1:
                self.mixed.append(texts)

    @staticmethod
    def _read(folder: int, name: str) -> str:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
        with os.fdopen(descriptor) as file:
            lines = file.read().splitlines()
        assert len(lines) == 20
        return lines[0].split(" of ")[0]


def test_a_reader_sees_one_generation(tmp_path: Path) -> None:
    world = World(tmp_path, "dir")
    writer = world.writer()
    world.recover(writer)
    assert "error" not in world.commit_text(writer, "first")
    with Reader(world.root / "managed" / "current") as reader:
        for n in range(COMMITS):
            assert "error" not in world.commit_text(writer, f"n{n}")
            until = reader.samples + SAMPLES
            while reader.samples < until and reader._thread.is_alive():
                pass
    assert reader.mixed == []
    assert reader.samples >= SAMPLES * COMMITS
    assert len(reader.seen) > COMMITS // 2
