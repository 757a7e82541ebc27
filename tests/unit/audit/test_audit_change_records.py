"""Change records of one entry: the short way for deletions makes the bytes of the general one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from configsvc.audit.changes import ChangeRecords, KeyChange, change_record, split_records
from configsvc.audit.merkle import root_of
from configsvc.limits import LEAF_KEY_BYTES_MAX

SALT = bytes(range(32))
KEYS = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from([b"k" * LEAF_KEY_BYTES_MAX, b"k" * (LEAF_KEY_BYTES_MAX + 1)]),
)
VALUES = st.one_of(st.none(), st.binary(max_size=40))
CHANGES = st.lists(
    st.builds(
        KeyChange,
        sub=st.integers(0, 2**32 - 1),
        key=KEYS,
        value=VALUES,
        lease=st.integers(-(2**63), 2**63 - 1),
        prev_mod_rev=st.integers(0, 2**63 - 1),
        prev_value=VALUES,
    ),
    max_size=8,
)


@given(CHANGES, st.integers(0, 8))
def test_records_in_pieces_are_those_made_one_by_one(changes: list[KeyChange], cut: int) -> None:
    records = ChangeRecords(SALT, changes[:cut])
    records.add(changes[cut:])
    single = [change_record(change, SALT) for change in changes]
    assert list(split_records(records.joined())) == single
    assert len(records) == len(changes)
    assert records.root() == (root_of(single) if single else None)
