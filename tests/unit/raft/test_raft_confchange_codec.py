"""Membership changes as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import DecodeError, InvariantViolationError
from configsvc.raft.confchange_codec import decode_conf_change, encode_conf_change
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
)
from configsvc.types import NodeId

SINGLES = st.builds(
    ConfChangeSingle,
    st.sampled_from(ConfChangeType),
    st.integers(0, 2**64 - 1).map(NodeId),
)
CHANGES = st.builds(
    lambda changes, transition, context: ConfChange(tuple(changes), transition, context),
    st.lists(SINGLES, max_size=4),
    st.sampled_from(ConfChangeTransition),
    st.binary(max_size=20),
) | st.builds(
    lambda single, context: ConfChange((single,), context=context, v1=True),
    SINGLES,
    st.binary(max_size=20),
)


@given(CHANGES)
def test_round_trip(change: ConfChange) -> None:
    assert decode_conf_change(encode_conf_change(change)) == change


def test_the_empty_change_costs_nothing() -> None:
    assert encode_conf_change(ConfChange()) == b""


def test_the_layout_is_fixed() -> None:
    change = ConfChange((ConfChangeSingle(ConfChangeType.ADD_LEARNER, NodeId(258)),), context=b"c")
    assert encode_conf_change(change).hex() == "0100000001" + "030000000000000102" + "63"


@given(st.binary(min_size=1, max_size=40))
def test_junk_is_refused_or_means_what_it_says(data: bytes) -> None:
    try:
        change = decode_conf_change(data)
    except DecodeError:
        return
    assert encode_conf_change(change) in (data, b"")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("02" + "00" * 4, id="version"),
        pytest.param("0102000000", id="flags"),
        pytest.param("0100090000", id="transition"),
        pytest.param("0100000001" + "090000000000000001", id="type"),
        pytest.param("0100000002" + "000000000000000001", id="cut-short"),
        pytest.param("0101000000", id="v1-without-operation"),
        pytest.param("0101010001" + "000000000000000001", id="v1-with-transition"),
        pytest.param("01", id="head"),
    ],
)
def test_what_is_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_conf_change(bytes.fromhex(data))


def test_the_old_form_has_one_operation() -> None:
    with pytest.raises(InvariantViolationError):
        encode_conf_change(ConfChange(v1=True))
