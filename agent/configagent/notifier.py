"""The service manager's side channel (systemd ``sd_notify``): ready, reloading, alive."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Final

_IDLE_S: Final = 10.0


class Notifier:
    """Sends nothing where no service manager listens."""

    def __init__(self) -> None:
        self._path = os.environ.get("NOTIFY_SOCKET", "")
        usec = os.environ.get("WATCHDOG_USEC", "")
        self.interval_s = int(usec) / 2e6 / 2 if usec.isdigit() and int(usec) else _IDLE_S

    @property
    def listens(self) -> bool:
        """Whether anybody wants to hear it."""
        return bool(self._path)

    def ready(self) -> None:
        """The present configuration is in force."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A new configuration is being judged."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self, status: str) -> None:
        """What has to work does."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def _send(self, text: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.sendto(text.encode(), address)
