"""The order of file steps in the log's directory (I21).

A power loss may keep any of the names since the last sync of the directory. So nothing that rests
on a name may happen before that name is durable, a file has its name only with synced content, and
segments go one by one, oldest first: whatever is kept, the rest is a contiguous run.
"""

from __future__ import annotations

from functools import cache

from configsvc.storage.wal.segments import SPARE_NAME
from tests.support.simdisk import Op, State

_PREFIX, _SUFFIX = "segment-", ".wal"


def check_step(state: State, op: Op) -> None:
    """``op`` is about to be done in ``state``."""
    if op.kind == "write":
        names = [name for name, inode in state.live.items() if inode == op.inode]
        for name in names:
            durable = not _is_segment(name) or state.durable.get(name) == op.inode
            assert durable, f"I21 a frame in {name} before its name is durable"
    elif op.kind == "rename" and op.name == SPARE_NAME and _is_segment(op.other):
        clean = not state.inodes[state.live[op.name]].dirty
        assert clean, f"I21 {op.other} is named before its content is durable"
    elif op.kind in ("unlink", "rename") and _is_segment(op.name):
        _check_removal(state, op)


def check_names(state: State) -> None:
    """After a step: the segments are a contiguous run, for who looks and after a power loss."""
    for names in (state.live, state.durable):
        numbers = [_number(name) for name in names if _is_segment(name)]
        whole = not numbers or max(numbers) - min(numbers) == len(numbers) - 1
        assert whole, f"I21 segments with a gap: {sorted(numbers)}"


def _check_removal(state: State, op: Op) -> None:
    oldest = min(_number(name) for name in state.live if _is_segment(name))
    assert _number(op.name) == oldest, f"I21 {op.name} goes before an older one"
    removed = [o for o in state.pending if o.kind in ("unlink", "rename") and _is_segment(o.name)]
    assert not removed, f"I21 {op.name} goes before the removal of {removed[0].name} is durable"


def _is_segment(name: str) -> bool:
    return name.startswith(_PREFIX)


@cache
def _number(name: str) -> int:
    return int(name.removeprefix(_PREFIX).removesuffix(_SUFFIX), 16)
