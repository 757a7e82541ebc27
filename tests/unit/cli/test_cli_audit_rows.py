"""The rows beside an audit log arrive in order and once, however a member cuts its pages."""

from __future__ import annotations

from typing import Any, cast

import pytest

from configsvc.cli.audit_online import RowReader
from configsvc.errors import CorruptError, DecodeError
from configsvc.proto import v1_pb2

# Revision 3 alone is more than any page: pages end between revisions, never within one.
SIZES = {2: 1, 3: 5_000, 4: 2, 5: 1}


class Member:
    """Answers ``History.Log`` from SIZES with ``most`` revisions a page."""

    def __init__(self, most: int, *, broken_above: int = 10**9, empty: bool = False) -> None:
        self.asked = 0
        self._most = most
        self._broken_above = broken_above
        self._empty = empty

    def do(self, operation: Any, *, endpoint: object) -> v1_pb2.LogResponse:
        del endpoint
        self.asked += 1
        request = operation.request
        if request.limit > self._broken_above:
            raise CorruptError
        wanted = [revision for revision in SIZES if revision > request.after_revision]
        page = [] if self._empty else wanted[: self._most]
        out = v1_pb2.LogResponse(more=self._empty or len(wanted) > self._most)
        for revision in page:
            for sub in range(SIZES[revision]):
                out.records.add(revision=revision, key=b"k%06d" % sub, tombstone=True)
        return out


def reader(member: Member) -> RowReader:
    return RowReader(cast("Any", member), cast("Any", "https://m1"))


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_every_row_comes_once_whatever_the_pages(most: int) -> None:
    rows = reader(Member(most))
    for revision, count in SIZES.items():
        found = rows.up_to(revision)
        assert [(row.revision, row.sub) for row in found] == [(revision, i) for i in range(count)]
    assert rows.up_to(9) == []


def test_an_empty_page_that_promises_more_is_refused() -> None:
    with pytest.raises(DecodeError, match="empty page"):
        reader(Member(1, empty=True)).up_to(2)


def test_a_page_that_cannot_be_read_is_asked_for_in_smaller_ones() -> None:
    member = Member(1, broken_above=10)
    assert len(reader(member).up_to(2)) == 1
    with pytest.raises(DecodeError, match="after revision 0"):
        reader(Member(1, broken_above=0)).up_to(2)
