"""Unions of spans against counting points one by one."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.auth.spans import SpanUnion, asked_span, prefix_end, prefix_span
from configsvc.types import KeySpan

ENDS = [bytes(p) for n in (1, 2) for p in product(b"ab", repeat=n)]
# Every end is a point itself, so two unions that differ anywhere differ at one of these.
POINTS = sorted({bytes(p) for n in range(4) for p in product(b"\0abc", repeat=n)})

spans = st.builds(
    lambda start, end, single: KeySpan(start, start + b"\0") if single else KeySpan(start, end),
    st.sampled_from(ENDS),
    st.one_of(st.none(), st.sampled_from(ENDS)),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        pytest.param(b"a", b"b", id="plain"),
        pytest.param(b"a\xff", b"b", id="carries"),
        pytest.param(b"\xff\xff", None, id="nothing-above"),
        pytest.param(b"", None, id="all"),
    ],
)
def test_prefix_end(prefix: bytes, end: bytes | None) -> None:
    assert prefix_end(prefix) == end
    assert prefix_span(prefix) == KeySpan(prefix, end)


def test_adjacent_spans_merge() -> None:
    """A21: [a,c) and [c,e) cover [a,e)."""
    union = SpanUnion([(KeySpan(b"c", b"e"), "two"), (KeySpan(b"a", b"c"), "one")])
    assert union.spans() == [KeySpan(b"a", b"e")]
    assert union.covering(KeySpan(b"a", b"e")) == "one+two"
    assert union.covering(KeySpan(b"a", b"e\0")) is None


def test_open_request_needs_open_grant() -> None:
    """A22."""
    assert SpanUnion([(KeySpan(b"a", b"\xff\xff"), "x")]).covering(KeySpan(b"a", None)) is None
    assert SpanUnion([(KeySpan(b"a", None), "x")]).covering(KeySpan(b"b", None)) == "x"


def test_label_of_a_grant_that_covers_alone_is_not_joined() -> None:
    union = SpanUnion([(KeySpan(b"a", b"z"), "wide"), (KeySpan(b"b", b"c"), "narrow")])
    assert union.granting(b"b") == "wide"


def test_many_labels_are_cut() -> None:
    union = SpanUnion([(KeySpan(bytes((i,)), bytes((i + 1,))), f"r{i}") for i in range(9)])
    assert union.labels == ["r0+r1+r2+r3..."]


def test_an_empty_span_asks_for_its_start() -> None:
    assert asked_span(KeySpan(b"b", b"a")) == KeySpan(b"b", b"b\0")
    assert asked_span(KeySpan(b"a", b"b")) == KeySpan(b"a", b"b")


@given(grants=st.lists(spans, max_size=5), asked=spans)
def test_union_agrees_with_counting_points(grants: list[KeySpan], asked: KeySpan) -> None:
    union = SpanUnion((grant, "x") for grant in grants)
    asked = asked_span(asked)
    granted = {point for point in POINTS if any(grant.holds(point) for grant in grants)}
    wanted = {point for point in POINTS if asked.holds(point)}
    assert (union.covering(asked) is not None) == (wanted <= granted)
    assert union.intersects(asked) == bool(wanted & granted)
    for point in POINTS:
        assert union.holds(point) == (point in granted)
        assert (union.granting(point) is not None) == (point in granted)


@given(grants=st.lists(spans, max_size=6))
def test_members_are_apart_and_ascending(grants: list[KeySpan]) -> None:
    members = SpanUnion((grant, "x") for grant in grants).spans()
    for left, right in pairwise(members):
        assert left.end is not None
        assert left.end < right.start
