"""SETTINGS: what we announce, and what a peer may announce (RFC 9113, 6.5)."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from configsvc.http2 import protocol as p
from configsvc.http2.protocol import ConnectionFault
from configsvc.limits import HEADER_LIST_BYTES_MAX

_SETTING: Final = Struct(">HI")


def server_settings(max_streams: int) -> bytes:
    """Our SETTINGS frame; what is left out stays at the RFC's default.

    The window of streams does, for by prior knowledge a client sends before it has seen these.
    """
    return p.frame(
        p.SETTINGS,
        0,
        0,
        _SETTING.pack(p.MAX_CONCURRENT_STREAMS, max_streams)
        + _SETTING.pack(p.MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES_MAX),
    )


def settings_in(payload: bytes) -> Iterator[tuple[int, int]]:
    """Identifiers and values, in their order, each checked; unknown ones are passed on.

    Raises:
        ConnectionFault: the frame's size or a value is not allowed.
    """
    if len(payload) % _SETTING.size:
        raise ConnectionFault(p.FRAME_SIZE_ERROR, "settings of wrong size")
    for identifier, value in _SETTING.iter_unpack(payload):
        if identifier == p.ENABLE_PUSH and value > 1:
            raise ConnectionFault(p.PROTOCOL_ERROR, "bad ENABLE_PUSH")
        if identifier == p.INITIAL_WINDOW_SIZE and value > p.WINDOW_MAX:
            raise ConnectionFault(p.FLOW_CONTROL_ERROR, "initial window too large")
        if identifier == p.MAX_FRAME_SIZE and not 16_384 <= value <= 0xFF_FFFF:
            raise ConnectionFault(p.PROTOCOL_ERROR, "bad MAX_FRAME_SIZE")
        yield identifier, value
