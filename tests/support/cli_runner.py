"""Runs ``configctl`` in this process, as a shell would."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from configsvc.cli.configctl import main
from tests.support.fake_cluster import FakeCluster


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Environment, standard input and output of one test."""

    def __init__(
        self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes], home: Any
    ) -> None:
        self._patch = patch
        self._capture = capture
        for name in list(os.environ):
            if name.startswith(("CONFIGCTL_", "XDG_", "GRPC_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        self.home = home

    def use(self, cluster: FakeCluster) -> None:
        self._patch.setenv("CONFIGCTL_ENDPOINTS", ",".join(cluster.urls))

    def setenv(self, **variables: str) -> None:
        for name, text in variables.items():
            self._patch.setenv(name, text)

    def run(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ran:
        with pytest.MonkeyPatch.context() as patch:
            for name, text in (env or {}).items():
                patch.setenv(name, text)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            code = main(list(words))
        captured = self._capture.readouterr()
        return Ran(code, captured.out.decode(), captured.err.decode())

    def ok(self, *words: str, **options: Any) -> Ran:
        ran = self.run(*words, **options)
        assert ran.code == 0, ran
        return ran
