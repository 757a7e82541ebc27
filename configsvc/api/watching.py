"""A watch by the member itself, in a caller's name: the same handler, rights and bounds as theirs.

Used by steps that wait for a key to change (``sequence``). What arrives is kept up to a bound;
beyond it the watch falls behind and is fed from history later.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from configsvc.api.contract import Caller
from configsvc.api.sequence import Pause
from configsvc.api.watch import WatchService
from configsvc.errors import CompactedError, ConfigServiceError, ElectionError
from configsvc.limits import SELF_WATCH_MESSAGES_MAX
from configsvc.proto import kv_pb2, rpc_pb2
from configsvc.runtime.waiting import Waiting

NO_PUT: Final = rpc_pb2.WatchCreateRequest.NOPUT
NO_DELETE: Final = rpc_pb2.WatchCreateRequest.NODELETE
LOST_WATCHER: Final = "lost watcher waiting for delete"
DELETE: Final = kv_pb2.Event.DELETE


class Watching:
    """A running watch of some spans; ``close`` it whatever happens."""

    def __init__(self, service: WatchService, caller: Caller) -> None:
        self._loop = service.member.loop
        self._found: deque[bytes | ConfigServiceError] = deque()
        self._waiter: Waiting | None = None
        self._told = False  # a delivery is scheduled
        self._blocked = False
        self._open = True
        self._handler = service.watch(caller, self)

    def add(self, key: bytes, range_end: bytes, start: int, *, without: int | None = None) -> None:
        """Watch a span from a revision on, without one kind of event if so wanted."""
        create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, start_revision=start)
        if without is not None:
            create.filters.append(without)  # type: ignore[arg-type]
        request = rpc_pb2.WatchRequest(create_request=create)
        self._handler.on_message(request.SerializeToString())

    def next(self) -> Waiting:
        """The next message with events, an encoded ``WatchResponse``.

        It fails with ``CompactedError`` when the wanted revisions are gone, and with
        ``ElectionError`` when the watch was refused or ended.
        """
        waiter = self._waiter = Pause()
        if self._found:
            self._schedule()
        elif self._blocked:
            self._blocked = False
            self._handler.on_writable()
        return waiter

    def close(self) -> None:
        """Free it; nothing is delivered afterwards."""
        self._waiter = None
        if self._open:
            self._open = False
            self._handler.on_cancel()

    # --- StreamSink ------------------------------------------------------------------------------

    def send(self, payload: bytes) -> bool:
        """A message of the handler."""
        m = rpc_pb2.WatchResponse.FromString(payload)
        if m.canceled:
            self._found.append(_error_of(m))
        elif m.events:
            self._found.append(payload)
        else:
            return True
        self._schedule()
        if len(self._found) >= SELF_WATCH_MESSAGES_MAX:
            self._blocked = True
        return not self._blocked

    def finish(self, error: ConfigServiceError | None) -> None:
        """The handler ended the stream; it is freed already."""
        self._open = False
        self._found.append(error or ElectionError(LOST_WATCHER))
        self._schedule()

    # --- inside ----------------------------------------------------------------------------------

    def _schedule(self) -> None:
        # Not from inside the pass that feeds all watchers: the next step may close this one.
        if not self._told:
            self._told = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._told = False
        waiter = self._waiter
        if waiter is not None and self._found:
            self._waiter = None
            waiter.complete(self._found.popleft())


def _error_of(m: rpc_pb2.WatchResponse) -> ConfigServiceError:
    if m.compact_revision:
        return CompactedError()
    return ElectionError(m.cancel_reason.rpartition("desc = ")[2] or LOST_WATCHER)
