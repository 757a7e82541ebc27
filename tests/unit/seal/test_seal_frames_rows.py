"""Sealing: what was written opens, anything else does not, and no nonce is used twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import InvariantViolationError
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.seal.rows import DERIVED_KEPT, INFO_BYTES, RowSealer

KEY = b"k" * 32


@given(st.integers(0, 2**64 - 1), st.binary(max_size=60), st.binary(max_size=200))
def test_a_frame_opens_and_is_plain_aes_gcm(number: int, header: bytes, payload: bytes) -> None:
    sealed = FrameSealer(KEY).seal(number, header, payload)
    assert FrameSealer(KEY).open(number, header, sealed) == payload
    nonce = number.to_bytes(12, "little")
    assert AESGCM(KEY).decrypt(nonce, sealed, header) == payload


@given(st.data())
def test_anything_else_than_what_was_sealed_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(FrameSealer(KEY).seal(7, b"header", b"payload"))
    with pytest.raises(SealBroken):
        FrameSealer(KEY).open(8, b"header", bytes(sealed))
    with pytest.raises(SealBroken):
        FrameSealer(KEY).open(7, b"Header", bytes(sealed))
    with pytest.raises(SealBroken):
        FrameSealer(b"K" * 32).open(7, b"header", bytes(sealed))
    cut = data.draw(st.integers(0, len(sealed) - 1))
    with pytest.raises(SealBroken):
        FrameSealer(KEY).open(7, b"header", bytes(sealed[:cut]))
    sealed[cut] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealBroken):
        FrameSealer(KEY).open(7, b"header", bytes(sealed))


@pytest.mark.parametrize("again", [7, 6, 0])
def test_frame_numbers_only_grow(again: int) -> None:
    sealer = FrameSealer(KEY)
    sealer.seal(7, b"", b"")
    with pytest.raises(InvariantViolationError):
        sealer.seal(again, b"", b"")


def test_keys_have_one_length() -> None:
    for key in (b"", b"k" * 16, b"k" * 33):
        with pytest.raises(InvariantViolationError):
            FrameSealer(key)


def rows(context: bytes = b"cluster-1", seed_id: str = "s1", seed: bytes = b"s" * 32) -> RowSealer:
    return RowSealer(seed, seed_id, context)


@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=60)), max_size=6))
def test_fields_of_a_batch_open(fields: list[tuple[bytes, bytes]]) -> None:
    batch = rows().begin()
    sealed = [batch.seal(n, aad, text) for n, (aad, text) in enumerate(fields)]
    assert len(batch.info) == INFO_BYTES
    reader = rows()
    for number, (aad, text) in enumerate(fields):
        assert reader.open(batch.info, number, aad, sealed[number]) == text
        assert reader.opener(batch.info)(number, aad, sealed[number]) == text


def test_swapped_fields_do_not_open() -> None:
    sealer = rows()
    batch = sealer.begin()
    one = batch.seal(1, b"revisions|key-a|5|value", b"a")
    two = batch.seal(2, b"revisions|key-b|5|value", b"b")
    for number, aad, text in (
        (1, b"revisions|key-a|5|value", two),
        (2, b"revisions|key-a|5|value", two),
        (1, b"revisions|key-a|6|value", one),
        (2, b"revisions|key-b|5|value", one),
    ):
        with pytest.raises(SealBroken):
            sealer.open(batch.info, number, aad, text)
        with pytest.raises(SealBroken):
            sealer.opener(batch.info)(number, aad, text)


@pytest.mark.parametrize(
    "other",
    [rows(b"cluster-2"), rows(seed_id="s2"), rows(seed=b"t" * 32), rows(b"1", "s1cluster-")],
)
def test_fields_of_another_store_or_seed_do_not_open(other: RowSealer) -> None:
    batch = rows().begin()
    sealed = batch.seal(0, b"", b"text")
    with pytest.raises(SealBroken):
        other.open(batch.info, 0, b"", sealed)


def test_field_numbers_only_grow_and_batches_differ() -> None:
    sealer = rows()
    batch = sealer.begin()
    batch.seal(3, b"", b"text")
    with pytest.raises(InvariantViolationError):
        batch.seal(3, b"", b"text")
    again = sealer.begin()
    assert again.info != batch.info
    assert again.seal(3, b"", b"text") != batch.seal(4, b"", b"text")


def test_a_batch_id_of_another_length_is_refused() -> None:
    with pytest.raises(SealBroken):
        rows().open(b"short", 0, b"", bytes(32))
    with pytest.raises(SealBroken):
        rows().opener(b"short")


def test_derived_keys_are_bounded_and_shared_between_threads() -> None:
    sealer = rows()
    batches = [sealer.begin() for _ in range(DERIVED_KEPT + 50)]
    sealed = [batch.seal(0, b"", b"text") for batch in batches]

    def read(n: int) -> bytes:
        return sealer.open(batches[n].info, 0, b"", sealed[n])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, range(len(batches)))) == {b"text"}
    assert len(sealer._derived) == DERIVED_KEPT
