"""Telling services that their files changed, and seeing that they took it (agent.md E3, E4, E8).

One notification of a service at a time, over all sets; ``min_interval`` and splay only defer.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from configagent import commands
from configagent.errors import HealthError, NotifyError
from configagent.settings import Health, Service
from configsvc import limits


def splay_s(node: str, set_name: str, generation: int, over_s: float) -> float:
    """A node's own place in the splay: the same for the same generation, spread over nodes."""
    text = f"{node}\0{set_name}\0{generation}".encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:6], "big")
    return over_s * number / 2**48


class Services:
    """Notifies; remembers when each service was told last."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def earliest(
        self, services: Iterable[Service], node: str, set_name: str, generation: int, now: float
    ) -> float | None:
        """When all of them may be told of a generation; None: there is nobody to tell."""
        found: float | None = None
        for service in services:
            at = now + splay_s(node, set_name, generation, service.splay_s)
            if service.name in self._told_at:
                at = max(at, self._told_at[service.name] + service.min_interval_s)
            found = at if found is None else max(found, at)
        return found

    async def notify(
        self, service: Service, *, restart: bool, redact: Callable[[str], str]
    ) -> dict[str, object]:
        """Reload (or restart) one service and watch its health; returns facts for the sidecar.

        Raises:
            NotifyError: the command failed.
            HealthError: the service is not well within its window.
        """
        command = service.restart if restart and service.restart else service.reload
        word = "restart" if command is service.restart else "reload"
        async with self._turns[service.name]:
            self._told_at[service.name] = time.monotonic()
            ran = await commands.run(command)
            if not ran.ok:
                said = redact(ran.output)[-limits.AGENT_REASON_CHARS_MAX // 2 :]
                raise NotifyError(f"{word} of {service.name}: {ran.explain()}: {said}".rstrip(": "))
            if service.health is not None:
                await _healthy(service.name, service.health)
        return {"service": service.name, "rc": ran.code, "ms": round(ran.seconds * 1000)}


async def _healthy(name: str, health: Health) -> None:
    deadline = time.monotonic() + health.window_s
    row, last = 0, "no answer"
    while True:
        began = time.monotonic()
        last = await _probe(health)
        row = 0 if last else row + 1
        if row >= health.successes:
            return
        pause = max(0.0, health.every_s - (time.monotonic() - began))
        if time.monotonic() + pause > deadline:
            raise HealthError(f"health of {name}: {last or 'too few successes in its window'}")
        await asyncio.sleep(pause)


async def _probe(health: Health) -> str:
    """What is wrong; empty when the service is well."""
    if health.command is not None:
        ran = await commands.run(health.command)
        return "" if ran.ok else ran.explain()
    host, port = health.tcp or ("", 0)
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), port), health.every_s + 1.0
        )
    except (OSError, TimeoutError):
        return f"{host}:{port} does not accept connections"
    writer.close()
    return ""
