"""Canonical leaves: one encoding per record, one record per encoding (AUD-3)."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.audit.actors import decode_actor, encode_actor
from configsvc.audit.changes import split_records
from configsvc.audit.events import CODES, EVENTS
from configsvc.audit.leaf import FIELDS, Value, decode_leaf, encode_leaf
from configsvc.audit.render import to_json
from configsvc.errors import DecodeError, InvariantViolationError
from tests.support.audit_cases import HANA, HOME

WIDTHS = {"u8": 1, "u16": 2, "u64": 8, "i64": 8, "hash": 32, "sized-hash": 40}
HEAD = encode_leaf({})  # version alone


def values_of(kind: str) -> st.SearchStrategy[Value]:
    if kind in ("u8", "u16", "u64"):
        return st.integers(0, 2 ** (8 * WIDTHS[kind]) - 1)
    if kind == "i64":
        return st.integers(-(2**63), 2**63 - 1)
    if kind == "text":
        return st.text(st.characters(codec="utf-8"), max_size=20)
    size = WIDTHS.get(kind)
    return st.binary(min_size=size or 0, max_size=size or 20)


records = st.fixed_dictionaries(
    {}, optional={field.name: values_of(field.kind) for field in FIELDS[1:]}
)


def test_golden_bytes_never_change() -> None:
    """Every signed root of the past stands on these bytes."""
    leaf = encode_leaf({"seq": 5, "event": EVENTS["kv.put"], "code": 0, "key": b"/a", "lease": -1})
    assert leaf.hex() == (
        "0100020101"  # v
        "0200080000000000000005"  # seq
        "0c00020001"  # event
        "0d000100"  # code
        "1400022f61"  # key
        "180008ffffffffffffffff"  # lease
    )


def test_field_event_and_code_numbers_are_unique_and_ascending() -> None:
    numbers = [field.number for field in FIELDS]
    assert numbers == sorted(set(numbers))
    assert len({field.name for field in FIELDS}) == len(FIELDS)
    assert len(set(EVENTS.values())) == len(EVENTS)
    assert len(CODES) == 17


@given(fields=records)
def test_leaves_come_back(fields: dict[str, Value]) -> None:
    leaf = encode_leaf(fields)
    found = decode_leaf(leaf)
    assert found.pop("v") == 0x0101
    assert found == fields
    assert encode_leaf(found) == leaf
    json.dumps(to_json(leaf))


@given(fields=records, data=st.data())
def test_no_other_bytes_mean_the_same(fields: dict[str, Value], data: st.DataObject) -> None:
    """Whatever one byte is changed to, it is refused or reads differently."""
    leaf = bytearray(encode_leaf(fields))
    at = data.draw(st.integers(0, len(leaf) - 1))
    leaf[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_leaf(bytes(leaf))
    except DecodeError:
        return
    version = found.pop("v")
    assert (version, found) != (0x0101, fields)


def test_absent_and_none_are_the_same() -> None:
    assert encode_leaf({"seq": None}) == HEAD


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(b"", id="empty"),
        pytest.param(HEAD[:-1], id="cut"),
        pytest.param(HEAD + b"\x02", id="cut-head"),
        pytest.param(HEAD + b"\x02\x00", id="cut-length"),
        pytest.param(HEAD + HEAD, id="twice"),
        pytest.param(HEAD[5:] + b"\x0d\x00\x01\x00", id="no-version"),
        pytest.param(b"\x01\x00\x02\x02\x02", id="newer-reader"),
        pytest.param(HEAD + b"\xff\x00\x00", id="unknown-field"),
        pytest.param(HEAD + b"\x0d\x00\x02\x00\x00", id="wide-code"),
        pytest.param(HEAD + b"\x0a\x00\x02\x00\x00", id="short-hash"),
        pytest.param(HEAD + b"\x0d\x00\x01\x00" + b"\x0c\x00\x02\x00\x00", id="order"),
        pytest.param(HEAD + b"\x10\x00\x01\xff", id="not-utf8"),
        pytest.param(HEAD + b"\x14\x20\x01" + bytes(0x2001), id="too-long"),
        pytest.param(bytes(9000), id="garbage"),
    ],
)
def test_what_is_not_canonical_is_refused(leaf: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_leaf(leaf)


def test_a_newer_format_that_we_may_read_is_read() -> None:
    assert decode_leaf(b"\x01\x00\x02\x02\x01") == {"v": 0x0201}


@pytest.mark.parametrize(
    "fields", [{"colour": 1}, {"actor": b"short"}, {"key": bytes(8000), "range_end": bytes(8000)}]
)
def test_our_own_mistakes_stop_us(fields: dict[str, Value]) -> None:
    with pytest.raises(InvariantViolationError):
        encode_leaf(fields)


def test_json_is_for_people() -> None:
    leaf = encode_leaf({"event": EVENTS["kv.put"], "code": 7, "key": b"\xff", "commit": bytes(32)})
    shown = to_json(leaf, encode_actor(HANA, HOME), {"reason": "why"})
    assert shown["event"] == "kv.put"
    assert shown["code"] == "PERMISSION_DENIED"
    assert shown["key"] == "/w=="
    assert shown["commit"] == "00" * 32
    assert shown["reason"] == "why"
    assert isinstance(shown["who"], dict)
    assert shown["who"]["user"] == "hana"
    assert list(shown) == sorted(shown)
    assert to_json(encode_leaf({"event": 9999, "code": 99}))["event"] == "9999"


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: HEAD + tail))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for decode in (decode_leaf, decode_actor, lambda text: list(split_records(text))):
        with contextlib.suppress(DecodeError):
            decode(data)
