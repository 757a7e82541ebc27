"""Answers of very many keys: encoded piece by piece, so that other calls get their turn.

The key values were gathered in one step and never change, so the answer is of one revision
however long its encoding takes (R1).

Not here: which keys (``mvcc.store``), streams of pages (``kv``: RangeStream).
"""

from __future__ import annotations

import asyncio

from configsvc.codec import answers
from configsvc.limits import RANGE_PIECE_KEYS
from configsvc.mvcc.messages import RangeResult
from configsvc.runtime.waiting import Waiting


def range_answer(
    loop: asyncio.AbstractEventLoop, header: bytes, result: RangeResult
) -> bytes | Waiting:
    """A RangeResponse; at once when it is of at most ``RANGE_PIECE_KEYS`` keys."""
    kvs = result.kvs
    if len(kvs) <= RANGE_PIECE_KEYS:
        return header + answers.range_body(result)
    waiting = Waiting()
    parts = [header]

    def piece(at: int) -> None:
        if waiting.done:
            return  # the caller went away
        end = at + RANGE_PIECE_KEYS
        parts.append(answers.key_values(kvs[at:end]))
        if end < len(kvs):
            loop.call_soon(piece, end)
        else:
            parts.append(answers.range_end(result))
            waiting.complete(b"".join(parts))

    loop.call_soon(piece, 0)
    return waiting
