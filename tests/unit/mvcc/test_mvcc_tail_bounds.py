"""What a trim drops, against its rule row by row, and the bytes that it says are left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.mvcc import tail as room
from configsvc.mvcc.messages import Row

ROWS_MAX = 6
BYTES_MAX = 2_200
FLOOR = 1


def cost(row: Row) -> int:
    return room.TAIL_ROW_OVERHEAD + len(row.key) + len(row.value)


def rows_of(sizes: list[list[int]]) -> list[list[Row]]:
    """One revision for each list: a row for each length of a value."""
    return [
        [
            Row(revision, sub, b"k%d" % sub, bytes(size), revision, 1, 0, False)
            for sub, size in enumerate(revision_sizes)
        ]
        for revision, revision_sizes in enumerate(sizes, FLOOR + 1)
    ]


def kept(rows: list[Row], durable: int, compacted: int) -> list[Row]:
    """The rule: the oldest goes while it is below both floors, or durable and one too many."""
    left = list(rows)
    newest_gone = 0
    while left and left[0].revision <= durable:
        too_many = len(left) > ROWS_MAX or sum(map(cost, left)) > BYTES_MAX
        if left[0].revision >= compacted and not too_many:
            break
        newest_gone = left.pop(0).revision
    return [row for row in left if row.revision != newest_gone]


@given(
    sizes=st.lists(st.lists(st.integers(0, 900), min_size=1, max_size=4), max_size=12),
    bounds=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=3),
)
def test_a_trim_keeps_the_rule_and_counts_what_is_left(
    sizes: list[list[int]], bounds: list[tuple[int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "TAIL_ROWS_MAX", ROWS_MAX)
        patch.setattr(room, "TAIL_BYTES_MAX", BYTES_MAX)
        tail = room.Tail(FLOOR)
        left: list[Row] = []
        for revision in rows_of(sizes):
            tail.add(revision, [None] * len(revision))
            left += revision
        for durable, compacted in bounds:
            before = len(left)
            left = kept(left, durable, compacted)
            assert tail.trim(durable, compacted) == before - len(left)
            assert tail.rows_from(0)[0] == left
            assert tail.byte_count == sum(map(cost, left))
