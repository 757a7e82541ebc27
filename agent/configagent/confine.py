"""Takes rights away from a worker process, in ways it cannot undo.

Each part is best effort of its own, so that a kernel without one keeps the others; ``Level`` says
what held. Limits need no kernel feature and always hold.

Source: agent.md 4.1, C3, B3. Not here: when to kill a worker (``child``).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from configsvc import limits

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_LANDLOCK_CREATE: Final = 444
_LANDLOCK_ADD: Final = 445
_LANDLOCK_RESTRICT: Final = 446
_FS_ALL: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
_FS_READ_ONLY: Final = 0x4 | 0x8  # read a file, list a folder; never execute
_NOBODY: Final = 65534

# Numbers of calls that start a program or reach another process or the network.
_DENIED: Final = {
    "x86_64": (
        0xC000003E,
        (41, 42, 43, 49, 50, 53, 56, 57, 58, 59, 101, 165, 288, 310, 311, 321, 322, 435, 425),
    ),
    "aarch64": (
        0xC00000B7,
        (198, 199, 200, 201, 202, 203, 220, 221, 117, 40, 242, 270, 271, 280, 281, 435, 425),
    ),
}


class Level(NamedTuple):
    """What the kernel granted."""

    landlock: int  # its version; 0: none
    seccomp: bool
    unprivileged: bool


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """The kernel's Landlock version; 0: none."""
    return max(0, int(_libc().syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def landlock(writable: Iterable[str], readable: Iterable[str] = ()) -> int:
    """Allow files below some folders only; returns the version, 0 when the kernel has none.

    Nothing may be executed afterwards. Needs ``no_new_privs``.
    """
    libc = _libc()
    version = landlock_version()
    if not version:
        return 0
    handled = _FS_ALL.get(version, _FS_ALL[5])
    attribute = struct.pack("=Q", handled)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attribute, ctypes.c_size_t(len(attribute)), 0)
    if ruleset < 0:
        return 0
    rules = [(path, handled & ~0x1) for path in writable]
    rules += [(path, handled & _FS_READ_ONLY) for path in readable]
    for path, rights in rules:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, descriptor)
        failed = libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0)
        os.close(descriptor)
        if failed:
            os.close(ruleset)
            return 0
    failed = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return 0 if failed else version


def no_new_privileges() -> None:
    """No set-uid program helps from here on; no core dump, no tracing by equals."""
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def no_programs_no_network() -> bool:
    """Forbid exec, fork, sockets, tracing; False where the machine's calls are not known."""
    known = _DENIED.get(platform.machine())
    if known is None:
        return False
    architecture, numbers = known
    load, jump_equal, jump_from, answer = 0x20, 0x15, 0x35, 0x06
    deny = 0x00050001  # errno EPERM
    code = [(load, 0, 0, 4), (jump_equal, 1, 0, architecture), (answer, 0, 0, deny)]
    code += [(load, 0, 0, 0), (jump_from, 0, 1, 0x40000000), (answer, 0, 0, deny)]
    for place, number in enumerate(numbers):
        code.append((jump_equal, len(numbers) - place, 0, number))
    code += [(answer, 0, 0, 0x7FFF0000), (answer, 0, 0, deny)]
    program = b"".join(struct.pack("=HBBI", *one) for one in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=H6xQ", len(code), ctypes.addressof(buffer))
    return bool(_libc().prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0) == 0)


def become_nobody() -> bool:
    """Leave root for an account that owns nothing; True when not root afterwards."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        except OSError:
            return False
    return os.geteuid() != 0


def confine_renderer() -> Level:
    """For code that only computes: no files, no sockets, no programs, bounded memory."""
    hard = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    most = limits.AGENT_RENDER_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
    no_new_privileges()
    version = landlock(())
    unprivileged = become_nobody()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # stdin, stdout, stderr: none is left
    return Level(version, no_programs_no_network(), unprivileged)


def confine_writer(writable: Iterable[str]) -> Level:
    """For code that changes files: only below these folders, no programs, no network."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    no_new_privileges()
    version = landlock(writable, ("/etc",))
    return Level(version, no_programs_no_network(), os.geteuid() != 0)


def allow_seconds(seconds: float) -> None:
    """End this process when it computes for that long from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
