"""Running configured programs (agent.md E5): argv only, bounded in time and output, no orphans.

A program gets a fixed environment, no input, its own process group, and none of our descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import time
from typing import Any, Final, NamedTuple

from configagent.settings import Command
from configsvc import limits

ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
}


class Ran(NamedTuple):
    """How a program ended."""

    code: int  # its exit status, or minus the signal; -1000: it could not be started
    seconds: float
    timed_out: bool
    output: str  # the first part of stdout and stderr, for people only

    @property
    def ok(self) -> bool:
        """Exit status 0, in time."""
        return self.code == 0 and not self.timed_out

    def explain(self) -> str:
        """How it ended, without its output."""
        if self.timed_out:
            return f"took longer than {self.seconds:.0f} s"
        if self.code == -1000:
            return "could not be started"
        return f"signal {-self.code}" if self.code < 0 else f"exit {self.code}"


async def run(command: Command, places: dict[str, str] | None = None) -> Ran:
    """Run a program to its end.

    Args:
        command: What to run.
        places: Paths to put for ``{dir}`` and ``{file}`` in arguments.
    """
    argv = [_filled(argument, places or {}) for argument in command.argv]
    began = time.monotonic()
    # Our own pipe: asyncio's would make waiting for the program wait for its children too.
    source, sink = os.pipe2(os.O_CLOEXEC)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            **_identity(command.user),
        )
    except (OSError, KeyError) as error:
        os.close(source)
        why = error.strerror if isinstance(error, OSError) else "no such user"
        return Ran(-1000, 0.0, False, f"{argv[0]}: {why}")
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(sink)
    output = asyncio.create_task(_collect(source))
    timed_out = False
    try:
        async with asyncio.timeout(command.timeout_s):
            await process.wait()
    except TimeoutError:
        timed_out = True
        await _end_group(process)
    except BaseException:
        await _end_group(process)
        output.cancel()
        raise
    # What it left behind in its group goes too, and with it the last writers of our pipe.
    _signal_group(process.pid, signal.SIGKILL)
    done, _ = await asyncio.wait({output}, timeout=limits.AGENT_COMMAND_KILL_S)
    if not done:
        output.cancel()
    text = await output
    seconds = time.monotonic() - began
    code = process.returncode if process.returncode is not None else -9
    return Ran(code, seconds, timed_out, text.decode(errors="replace"))


def _identity(user: str) -> dict[str, Any]:
    """Arguments that make a program run as another user, with that user's group only."""
    if not user:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _filled(argument: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        argument = argument.replace("{" + name + "}", value)
    return argument


async def _collect(source: int) -> bytes:
    """Read a pipe to its end and close it; only the first part is kept."""
    kept = bytearray()
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(source, "rb", buffering=0)
    )
    try:
        while piece := await stream.read(16 * limits.KIB):
            room = limits.AGENT_COMMAND_OUTPUT_BYTES_MAX - len(kept)
            kept += piece[: max(0, room)]
    except asyncio.CancelledError:
        pass  # something that left the group still holds the pipe: what came is enough
    finally:
        transport.close()
    return bytes(kept)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), limits.AGENT_COMMAND_KILL_S)
    except TimeoutError:
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
