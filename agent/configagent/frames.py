"""Messages between the agent's own processes: a length, then a body.

Requests are ``marshal``: they come from the agent itself and hold plain values and bytes. Answers
are JSON, because the one who answers may have run a hostile template.
"""

from __future__ import annotations

import json
import marshal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from configsvc import limits

HEADER: Final = struct.Struct(">I")


def pack_request(request: dict[str, Any]) -> bytes:
    """One request as bytes."""
    body = marshal.dumps(request)
    return HEADER.pack(len(body)) + body


def pack_answer(answer: dict[str, Any]) -> bytes:
    """One answer as bytes."""
    body = json.dumps(answer).encode("utf-8", "surrogatepass")
    return HEADER.pack(len(body)) + body


def parse_answer(body: bytes) -> dict[str, Any]:
    """The answer in a body.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("not an answer")
    return found


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        sys.exit(0)  # the agent is gone
    return data


def serve(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer requests from stdin on stdout until the agent closes its end."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while True:
        (size,) = HEADER.unpack(_read(source, HEADER.size))
        if size > limits.AGENT_FRAME_BYTES_MAX:
            sys.exit(1)
        request = marshal.loads(_read(source, size))  # noqa: S302  # from our own parent
        sink.write(pack_answer(handle(request)))
        sink.flush()
