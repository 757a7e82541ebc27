"""One thread for work that blocks, which never keeps the process alive.

The standard pool joins its threads when the interpreter ends: a long check of an install would
hold up a stop for as long as it takes. What this thread is doing when the process ends is thrown
away by the next start.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_STOP: Final = None


class Worker(Executor):
    """An executor with one daemon thread, started by the first piece of work."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` behind what was submitted before; called on one thread."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # the future's reader judges it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._queue.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread behind what was submitted; ``cancel_futures`` has no effect here."""
        self._queue.put(_STOP)
        if wait and self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not _STOP:
            work()
            del work  # nothing keeps an old generation's objects alive
