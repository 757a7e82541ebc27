"""Protobuf's wire primitives, for messages that are put together by concatenation."""

from __future__ import annotations

from typing import Final

SMALL: Final = tuple(bytes((n,)) for n in range(128))


def varint(value: int) -> bytes:
    """Base-128 varint of a non-negative integer below 2**64."""
    if value < 128:
        return SMALL[value]
    if value < 16_384:  # the length of most operations
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 2_097_152:  # revisions
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed_varint(value: int) -> bytes:
    """Varint of an int64: negative numbers take ten bytes, as protobuf has it."""
    return varint(value & 0xFFFFFFFFFFFFFFFF)


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field with its tag."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def string_field(number: int, value: str) -> bytes:
    """A string field with its tag."""
    return bytes_field(number, value.encode())


def int_field(number: int, value: int) -> bytes:
    """An int64/uint64 field with its tag; nothing for 0, as proto3 has it."""
    if not value:
        return b""
    return varint(number << 3) + signed_varint(value)
