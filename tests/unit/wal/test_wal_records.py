"""Entries as bytes: round trips, and bytes from outside that are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.codec.records import (
    RECORD_HEAD_BYTES,
    decode_entries,
    encode_entries,
    last_record_term,
    split_records,
)
from configsvc.errors import DecodeError
from configsvc.raft.messages import Entry
from configsvc.types import LogIndex, Term

records = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 255), st.binary(max_size=60)), max_size=12
)
firsts = st.integers(1, 2**40)


def entries_of(first: int, parts: list[tuple[int, int, bytes]]) -> tuple[Entry, ...]:
    return tuple(
        Entry(Term(term), LogIndex(first + n), kind, data)
        for n, (term, kind, data) in enumerate(parts)
    )


@given(firsts, records)
def test_round_trip(first: int, parts: list[tuple[int, int, bytes]]) -> None:
    entries = entries_of(first, parts)
    blob = encode_entries(entries)
    assert decode_entries(first, blob, len(parts)) == entries
    assert decode_entries(first, memoryview(blob), len(parts)) == entries
    if parts:
        assert last_record_term(blob, len(parts)) == parts[-1][0]


@given(records, st.integers(1, 200))
def test_splitting_keeps_order_and_bound(parts: list[tuple[int, int, bytes]], most: int) -> None:
    blob = encode_entries(entries_of(1, parts))
    runs = list(split_records(blob, most))
    assert b"".join(run for _, run in runs) == blob
    assert sum(count for count, _ in runs) == len(parts)
    assert all(len(run) <= most or count == 1 for count, run in runs)
    assert all(len(decode_entries(1, run, count)) == count for count, run in runs)


@given(records.filter(bool), st.data())
def test_every_cut_and_every_wrong_count_is_refused(
    parts: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    blob = encode_entries(entries_of(1, parts))
    cut = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(DecodeError):
        decode_entries(1, blob[:cut], len(parts))
    for count in (len(parts) - 1, len(parts) + 1, 2**32, -1):
        with pytest.raises(DecodeError):
            decode_entries(1, blob, count)


@given(st.binary(max_size=80), st.integers(0, 5))
def test_any_bytes_decode_or_are_refused(blob: bytes, count: int) -> None:
    try:
        found = decode_entries(1, blob, count)
    except DecodeError:
        return
    assert encode_entries(found) == blob


def test_a_length_beyond_the_bytes_allocates_nothing() -> None:
    blob = encode_entries(entries_of(1, [(1, 0, b"abc")]))
    forged = blob[:9] + (2**32 - 1).to_bytes(4, "little") + blob[RECORD_HEAD_BYTES:]
    with pytest.raises(DecodeError, match="cut short"):
        decode_entries(1, forged, 1)
