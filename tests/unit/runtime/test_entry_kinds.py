"""Entries of a kind that this program does not know: the member ends, it never skips (C11, V1)."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.errors import ExitCode, FatalError
from configsvc.raft.messages import Entry
from configsvc.runtime.applying import Applying
from configsvc.types import LogIndex, Term


class Around:
    """Machine, applier and listener of entries that hold no command."""

    applied = 0

    def begin(self, index: int, term: int, command: Any) -> Any:
        raise AssertionError(f"entry {index} must not take effect")


@pytest.mark.parametrize("kind", [3, 9, 255])
def test_an_entry_of_unknown_kind_ends_the_member_before_it_counts(kind: int) -> None:
    around: Any = Around()
    applying = Applying(around, around, around)
    with pytest.raises(FatalError) as caught:
        applying.take([Entry(Term(1), LogIndex(2), kind, b"")])  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.TOO_NEW
    assert "entry 2" in str(caught.value)
    assert around.applied == 0
