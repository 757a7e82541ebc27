"""Whether a rendered file looks wrong (agent.md C9): size, growth, emptiness, number of keys.

Pure. A breach holds the whole set back until the output is inside the limits again or a person
approves exactly this output.
"""

from __future__ import annotations

from configagent.errors import HeldError
from configagent.settings import Guard

SMALL_BYTES = 64  # shares of a handful of bytes say nothing


def check_guard(
    guard: Guard, path: str, size: int, keys_read: int, size_before: int | None, *, blank: bool
) -> None:
    """Judge one file. ``size_before`` is that of the present generation, None for a new file.

    Raises:
        HeldError: a limit is broken; says which, with both numbers.
    """
    if guard.forbid_empty and blank:
        raise HeldError(f"{path}: would be empty", path)
    if size < guard.min_bytes:
        raise HeldError(f"{path}: {size} bytes, fewer than min_bytes {guard.min_bytes}", path)
    if size > guard.max_bytes:
        raise HeldError(f"{path}: {size} bytes, more than max_bytes {guard.max_bytes}", path)
    if keys_read < guard.min_keys:
        raise HeldError(f"{path}: read {keys_read} keys, fewer than {guard.min_keys}", path)
    if size_before is None or max(size, size_before) <= SMALL_BYTES:
        return
    if guard.max_shrink and size * 100 < size_before * (100 - guard.max_shrink):
        raise HeldError(
            f"{path}: would shrink from {size_before} to {size} bytes, "
            f"more than {guard.max_shrink}%",
            path,
        )
    if guard.max_grow and size * 100 > size_before * (100 + guard.max_grow):
        raise HeldError(
            f"{path}: would grow from {size_before} to {size} bytes, more than {guard.max_grow}%",
            path,
        )
