"""Header blocks: the cache against a plain decoder, our literals against a decoder."""

from __future__ import annotations

import logging

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from configsvc.http2.headers import HeaderDecoder, field_block, response_block
from configsvc.http2.protocol import ConnectionFault

BASE = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a/b"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
]
NAMES = st.sampled_from(["token", "x-a", "x-b", "user-agent", "grpc-timeout"])
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)


def test_equal_blocks_give_one_object() -> None:
    encoder, decoder = Encoder(), HeaderDecoder()
    first = encoder.encode(BASE)
    settled = encoder.encode(BASE)
    decoder.request(first)
    head = decoder.request(settled)
    assert decoder.request(encoder.encode(BASE)) is head
    assert head.path == b"/a/b"


def test_a_change_of_the_table_empties_the_cache() -> None:
    """The same bytes mean something else once an entry was pushed down."""
    encoder, decoder = Encoder(), HeaderDecoder()
    decoder.request(encoder.encode(BASE))
    before = encoder.encode(BASE)
    assert decoder.request(before).path == b"/a/b"
    decoder.request(encoder.encode([*BASE, ("x-new", "1")]))
    again = encoder.encode(BASE)
    assert again != before
    assert decoder.request(again).path == b"/a/b"
    # ``before`` now names other entries; whatever comes of it, it is not the cached head.
    try:
        head = decoder.request(before)
    except ConnectionFault:
        return
    assert [*head.fields] != [(b"content-type", b"application/grpc")]


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.booleans(), st.booleans()),
        max_size=25,
    )
)
def test_cached_decoding_agrees_with_the_library(
    blocks: list[tuple[list[tuple[str, str]], bool, bool]],
) -> None:
    encoder, ours, twin = Encoder(), HeaderDecoder(), Decoder()
    for extra, huffman, resize in blocks:
        if resize:
            encoder.header_table_size = 1024 if encoder.header_table_size == 4096 else 4096
        fields = {name: value for name, value in extra if name != "grpc-timeout"}
        block = encoder.encode([*BASE, *fields.items()], huffman=huffman)
        expected = [tuple(field) for field in twin.decode(block, raw=True)]
        head = ours.request(block)
        assert [*head.fields] == [field for field in expected if field[0][:1] != b":"]
        assert head.path == b"/a/b"


def test_the_library_is_kept_from_logging_headers() -> None:
    assert not logging.getLogger("hpack.hpack").isEnabledFor(logging.DEBUG)


@given(
    st.integers(200, 599),
    st.lists(st.tuples(st.from_regex(rb"[a-z-]{1,150}", fullmatch=True), st.binary(max_size=300))),
)
def test_literals_decode_to_what_was_encoded(
    status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    decoder = Decoder(max_header_list_size=10**6)
    decoded = decoder.decode(response_block(status, fields), raw=True)
    assert [tuple(field) for field in decoded] == [(b":status", b"%d" % status), *fields]
    assert not decoder.header_table.dynamic_entries


def test_an_empty_block_of_fields() -> None:
    assert field_block([]) == b""


@pytest.mark.parametrize("count", [64, 65])
def test_blocks_of_indices_are_bounded(count: int) -> None:
    decoder = HeaderDecoder()
    block = b"\x83" * count  # ":method: POST", over and over
    if count > 64:
        with pytest.raises(ConnectionFault, match="too many"):
            decoder.fields(block)
    else:
        assert len(decoder.fields(block)) == 64


def test_the_list_is_bounded_over_both_ways_of_decoding() -> None:
    """Half as indices, half as literals: neither half alone is too large."""
    encoder, decoder = Encoder(), HeaderDecoder()
    big = [("x-big", "y" * 1500)]
    decoder.fields(encoder.encode(big))
    indices = encoder.encode(big) * 4
    decoder.fields(indices)
    literals = field_block([(b"x", b"z" * 1500)] * 2)
    with pytest.raises(ConnectionFault, match="list too large"):
        decoder.fields(indices + literals)


def test_the_cache_and_the_checked_fields_are_bounded() -> None:
    decoder = HeaderDecoder()
    for number in range(500):
        block = b"\x83\x86\x84" + field_block([(b"x-%d" % number, b"v")])
        assert decoder.request(block).fields == ((b"x-%d" % number, b"v"),)
    assert len(decoder._cache) <= 64
    assert len(decoder._checked) <= 128


def test_long_blocks_and_values_are_not_kept() -> None:
    decoder = HeaderDecoder()
    decoder.request(b"\x83\x86\x84" + field_block([(b"token", b"t" * 3_000)]))
    assert not decoder._cache
    assert all(len(value) < 10 for _, value in decoder._checked)


def test_a_bad_field_is_bad_every_time() -> None:
    for _ in range(2):
        decoder = HeaderDecoder()
        decoder.request(b"\x83\x86\x84" + field_block([(b"x", b"good")]))
        with pytest.raises(ConnectionFault, match="bad field value"):
            decoder.request(b"\x83\x86\x84" + field_block([(b"x", b"good"), (b"x", b"a\nb")]))
