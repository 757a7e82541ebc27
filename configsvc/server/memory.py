"""How much memory this process uses and may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MACHINE_SHARE: Final = 0.9  # of physical memory; the rest is the system's
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")
_STATM: Final = Path("/proc/self/statm")


def used_bytes() -> int:
    """Resident memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def bound_bytes() -> int:
    """The smaller of the container's bound and most of the machine's memory."""
    bound = int(os.sysconf("SC_PHYS_PAGES") * _PAGE * _MACHINE_SHARE)
    try:
        text = _CGROUP.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return bound
    return min(bound, int(text)) if text.isdigit() else bound
