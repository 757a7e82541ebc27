from __future__ import annotations

import pytest
from configagent.errors import HeldError
from configagent.guard import check_guard
from configagent.settings import Guard


@pytest.mark.parametrize(
    ("guard", "size", "keys", "before", "held"),
    [
        (Guard(), 100, 1, None, False),
        (Guard(), 1000, 1, 1999, False),
        (Guard(), 900, 1, 2000, True),
        (Guard(max_shrink=0), 100, 1, 2000, False),
        (Guard(), 4000, 1, 1000, False),
        (Guard(), 4001, 1, 1000, True),
        (Guard(max_grow=0), 9000, 1, 1000, False),
        (Guard(), 60, 1, 1, False),
        (Guard(min_bytes=10), 9, 1, None, True),
        (Guard(max_bytes=10), 11, 1, None, True),
        (Guard(min_keys=3), 100, 2, None, True),
    ],
)
def test_limits(guard: Guard, size: int, keys: int, before: int | None, held: bool) -> None:
    if held:
        with pytest.raises(HeldError, match="/x"):
            check_guard(guard, "/x", size, keys, before, blank=False)
    else:
        check_guard(guard, "/x", size, keys, before, blank=False)


def test_an_empty_file_is_held_unless_allowed() -> None:
    with pytest.raises(HeldError, match="empty"):
        check_guard(Guard(), "/x", 0, 1, None, blank=True)
    check_guard(Guard(forbid_empty=False), "/x", 0, 1, None, blank=True)
