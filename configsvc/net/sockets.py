"""Listening sockets of both ports, and accepting in slices.

Not here: what becomes of a connection (``frontend.listener``, ``transport.listening``).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

_OUT_OF_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_GONE_ALREADY: Final = frozenset((errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR))
_BACKLOG: Final = 1_024
_NOT_HERE: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))  # no such address


def bind(host: str, port: int) -> list[socket.socket]:
    """Bound, listening, non-blocking sockets, one for each address that ``host`` stands for.

    ``localhost`` is both ::1 and 127.0.0.1 for its clients, whichever they try first (P14). An
    address that this machine does not have is left out, unless nothing else remains. Port 0 is
    chosen once and then the same for all.

    Raises:
        OSError: an address is taken, or none of them is ours.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    socks: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            chosen = socks[0].getsockname()[1] if socks else port
            try:
                socks.append(_listening(family, (address[0], chosen, *address[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                absent = error
        if absent is not None and not socks:
            raise absent
    except OSError:
        for sock in socks:
            sock.close()
        raise
    return socks


def accepted(
    listening: socket.socket, most: int, rest: Callable[[], None]
) -> Iterator[tuple[socket.socket, Any]]:
    """Connections that wait, non-blocking, and their addresses; ``most`` of them.

    ``rest`` is called when the process has no descriptor left: look away for a moment, the backlog
    waits in the kernel (N37).
    """
    for _ in range(most):
        try:
            sock, address = listening.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in _GONE_ALREADY:
                continue
            if error.errno in _OUT_OF_DESCRIPTORS:
                rest()
                return
            raise
        sock.setblocking(False)
        yield sock, address


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
