"""When a leader stops taking writes: SQL or apply lags, by entries or by bytes (Q2, O2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.limits import (
    APPLY_LAG_BYTES_MAX,
    APPLY_LAG_ENTRIES_MAX,
    SQL_LAG_BYTES_MAX,
    SQL_LAG_ENTRIES_MAX,
)
from configsvc.runtime.housekeeping import Housekeeping
from configsvc.storage.history.messages import Lag

BOUNDS = {
    "SQL's entries": SQL_LAG_ENTRIES_MAX // 2,
    "SQL's bytes": SQL_LAG_BYTES_MAX // 2,
    "apply's entries": APPLY_LAG_ENTRIES_MAX,
    "apply's bytes": APPLY_LAG_BYTES_MAX,
}


def held(lags: dict[str, int], *, urgent: bool) -> bool:
    member: Any = SimpleNamespace(
        history=SimpleNamespace(
            lag=lambda: Lag(lags.get("SQL's entries", 0), lags.get("SQL's bytes", 0))
        ),
        applied=100,
        committed=100 + lags.get("apply's entries", 0),
        machine=SimpleNamespace(apply_lag_bytes=lags.get("apply's bytes", 0)),
    )
    return Housekeeping(member).hold_writes(urgent=urgent)


@pytest.mark.parametrize("what", BOUNDS)
def test_each_lag_holds_writes_at_its_bound_and_urgent_ones_at_twice_that(what: str) -> None:
    bound = BOUNDS[what]
    for urgent, most in ((False, bound), (True, 2 * bound)):
        assert not held({what: most - 1}, urgent=urgent)
        assert held({what: most}, urgent=urgent)


def test_what_does_not_lag_holds_nothing() -> None:
    assert not held({}, urgent=False)
