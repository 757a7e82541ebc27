"""Frames of an install on the peer link: offer, chunk, answer.

The offer names install and term; chunks carry their own numbers, checks and totals
(``storage.snapshot.stream``); each answer says how many chunks have been taken and how it goes.
Bytes come from a peer: anything malformed is a ``DecodeError`` and closes the connection.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from configsvc.errors import DecodeError
from configsvc.limits import INSTALL_CHUNKS_IN_FLIGHT_MAX

FRAME_INSTALL_OFFER: Final = 7
FRAME_INSTALL_CHUNK: Final = 8
FRAME_INSTALL_ANSWER: Final = 10
INSTALL_FRAMES: Final = frozenset({FRAME_INSTALL_OFFER, FRAME_INSTALL_CHUNK, FRAME_INSTALL_ANSWER})

_OFFER: Final = struct.Struct("<QQ")
_CHUNK: Final = struct.Struct("<Q")
_ANSWER: Final = struct.Struct("<QIB")


class InstallStatus(IntEnum):
    """How the receiver stands; numbers travel and never change."""

    GOING_ON = 0  # also a sign of life while it checks and loads
    DONE = 1  # installed, or not needed any more
    FAILED = 2  # given up; the sender may offer again


class Offer(NamedTuple):
    install: int  # chosen by the sender, new for each install of its process
    term: int  # of the leader that offers


class Answer(NamedTuple):
    install: int
    taken: int  # chunks taken so far; the sender keeps a window in front of it
    status: InstallStatus


def encode_offer(offer: Offer) -> bytes:
    return _OFFER.pack(*offer)


def decode_offer(body: bytes) -> Offer:
    """Raises ``DecodeError``."""
    if len(body) != _OFFER.size:
        raise DecodeError("install offer of the wrong length")
    return Offer(*_OFFER.unpack(body))


def encode_chunk_frame(install: int, chunk: bytes) -> bytes:
    return _CHUNK.pack(install) + chunk


def decode_chunk_frame(body: bytes) -> tuple[int, bytes]:
    """(install, chunk). Raises ``DecodeError``."""
    if len(body) <= _CHUNK.size:
        raise DecodeError("install chunk of the wrong length")
    return _CHUNK.unpack_from(body)[0], body[_CHUNK.size :]


def encode_answer(answer: Answer) -> bytes:
    return _ANSWER.pack(*answer)


def decode_answer(body: bytes) -> Answer:
    """Raises ``DecodeError``."""
    if len(body) != _ANSWER.size:
        raise DecodeError("install answer of the wrong length")
    install, taken, status = _ANSWER.unpack(body)
    if status not in InstallStatus._value2member_map_:
        raise DecodeError("install answer of an unknown kind")
    return Answer(install, taken, InstallStatus(status))


def window_open(sent: int, taken: int) -> bool:
    """Whether another chunk may be under way."""
    return sent - taken < INSTALL_CHUNKS_IN_FLIGHT_MAX
