"""A front end in a process with few file descriptors; prints its port, ends with its stdin."""

from __future__ import annotations

import asyncio
import resource
import sys

import uvloop

from configsvc.frontend.server import Frontend
from tests.support.frontend_fakes import FakeApi, FakeHttp


async def serve() -> None:
    frontend = Frontend(FakeApi(), FakeHttp())
    listener = frontend.listen("127.0.0.1", 0, tls=None)
    print(listener.address[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await frontend.stop(0.0)


resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
uvloop.run(serve())
