"""One of the agent's own helper processes, seen from the main one.

Started before it is needed, one request at a time, killed when it takes too long, and started
again. It gets two pipes and nothing else: no environment, no other descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any, Final

import configagent
import configsvc
from configagent import frames
from configsvc import limits

START_S: Final = 20.0  # a cold interpreter on a busy machine
_START: Final = (
    "import sys; sys.path[:0] = sys.argv[1].split(':'); "
    "import importlib; importlib.import_module(sys.argv[2]).main()"
)


class ChildLostError(Exception):
    """It was killed, ended by itself or talked nonsense; the text says which."""


def _roots() -> str:
    found = [os.path.dirname(os.path.dirname(m.__file__ or "")) for m in (configagent, configsvc)]
    return ":".join(dict.fromkeys(found))


class Child:
    """A helper process that is there whenever it is asked."""

    def __init__(self, module: str, *, jobs_max: int = 0) -> None:
        self._module = module
        self._jobs_max = jobs_max  # 0: no end
        self._jobs = 0
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._opening: dict[str, Any] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """Process id; 0 while there is none."""
        return self._process.pid if self._process else 0

    async def start(self, opening: dict[str, Any] | None = None) -> dict[str, Any]:
        """Start it and wait until it answers; ``opening`` is sent first after every start."""
        self._opening = opening or {"op": "ping"}
        async with self._turn:
            return await self._launch()

    async def _launch(self) -> dict[str, Any]:
        argv = (sys.executable, "-I", "-B", "-c", _START, _roots(), self._module)
        self._process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8"},
            start_new_session=True,  # a terminal's Ctrl-C is for the agent to handle
            limit=limits.AGENT_FRAME_BYTES_MAX,
        )
        self._jobs = 0
        return await self._exchange(self._opening or {"op": "ping"}, START_S)

    async def call(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask and wait for the answer.

        Raises:
            ChildLostError: no answer; a new process is on its way.
        """
        async with self._turn:
            if self._process is None:
                await self._launch()
            elif self._jobs_max and self._jobs >= self._jobs_max:
                self._kill()
                await self._launch()
            self._jobs += 1
            try:
                return await self._exchange(request, timeout_s)
            except ChildLostError:
                if not self._closed:
                    self._restart = asyncio.create_task(self._warm_up())
                raise

    async def _warm_up(self) -> None:
        async with self._turn:
            if self._process is None and not self._closed:
                with contextlib.suppress(ChildLostError, OSError):
                    await self._launch()

    async def _exchange(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ChildLostError("is not running")
        try:
            async with asyncio.timeout(timeout_s):
                process.stdin.write(frames.pack_request(request))
                await process.stdin.drain()
                header = await process.stdout.readexactly(frames.HEADER.size)
                (size,) = frames.HEADER.unpack(header)
                if size > limits.AGENT_FRAME_BYTES_MAX:
                    raise ValueError("answer too long")
                return frames.parse_answer(await process.stdout.readexactly(size))
        except TimeoutError:
            self._kill()
            raise ChildLostError(f"took longer than {timeout_s:g} s and was killed") from None
        except (OSError, EOFError, ValueError):
            code = await self._end()
            raise ChildLostError(f"ended with {code}") from None
        except BaseException:
            self._kill()  # cancelled half-way: its answer would go to the next caller
            raise

    async def _end(self) -> str:
        process = self._process
        self._kill()
        if process is None:
            return "nothing"
        code = await process.wait()
        return f"signal {-code}" if code < 0 else f"status {code}"

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def close(self) -> None:
        """End it."""
        self._closed = True
        process = self._process
        self._kill()
        if process is not None:
            await process.wait()
        if self._restart is not None:
            await asyncio.gather(self._restart, return_exceptions=True)
            await self._end()
