"""Changes of the leader, as etcd counts them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from configsvc.runtime.elections import Elections
from configsvc.types import NodeId


@pytest.mark.parametrize(
    ("leads", "seen"),
    [
        ([], 0),
        ([0], 0),
        ([1], 1),
        ([1, 1], 1),  # only the own role changed
        ([1, 2], 2),
        ([1, 0, 1], 2),  # nobody led in between
        ([0, 0, 3, 0, 0, 3, 2], 3),
    ],
)
def test_a_change_is_a_leader_that_was_not_the_leader_before(leads: list[int], seen: int) -> None:
    elections = Elections(cast(Any, None))
    for lead in leads:
        elections.leadership(NodeId(lead))
    assert elections.leaders_seen == seen
