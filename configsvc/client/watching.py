"""A watch that survives its connections: the pure part.

``Cursor`` turns the messages of one stream after another into batches without gaps or repeats:
it knows the revision to resume from, and joins fragments. The shells (``client.sync_streams``,
``client.aio_streams``) own streams, pauses and threads.

Always true: a batch is handed out once, in the order of revisions; ``resume_revision`` is behind
everything handed out.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from configsvc.client.errors import BY_TEXT, Failure, WatchCompactedError, cancel_error
from configsvc.client.retry import backoff_s
from configsvc.errors import (
    AuthOldRevisionError,
    InvalidAuthTokenError,
    NotSupportedForLearnerError,
)
from configsvc.proto import kv_pb2
from configsvc.proto import rpc_pb2 as rpc

WATCH_PATH: Final = "/etcdserverpb.Watch/Watch"
_RESUMABLE: Final = frozenset({"UNAVAILABLE", "INTERNAL"})
STALE_TOKEN: Final = (InvalidAuthTokenError, AuthOldRevisionError)


class WatchOptions(NamedTuple):
    """What to watch. ``start_revision`` 0: from now on; else inclusive, also in the past."""

    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    prev_kv: bool = False
    progress_notify: bool = False
    puts: bool = True
    deletes: bool = True


class WatchBatch(NamedTuple):
    """Events in order. No events: progress, everything up to ``revision`` was delivered."""

    revision: int  # of the member when it sent this
    events: tuple[kv_pb2.Event, ...]


class Cursor:
    """Where one watch stands."""

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._fragments: list[kv_pb2.Event] = []
        self._failures = 0
        self.resume_revision = options.start_revision  # 0: not known yet
        self.connected = False  # the server has confirmed the watch on the present stream

    def create_request(self) -> rpc.WatchRequest:
        """The first message of a new stream."""
        self._fragments.clear()
        self.connected = False
        own = self._options
        filters = []
        if not own.puts:
            filters.append(rpc.WatchCreateRequest.NOPUT)
        if not own.deletes:
            filters.append(rpc.WatchCreateRequest.NODELETE)
        return rpc.WatchRequest(
            create_request=rpc.WatchCreateRequest(
                key=own.key,
                range_end=own.range_end,
                start_revision=self.resume_revision,
                prev_kv=own.prev_kv,
                progress_notify=own.progress_notify,
                filters=filters,
                fragment=True,
            )
        )

    def take(self, message: rpc.WatchResponse) -> WatchBatch | None:
        """Digest one message; None when it holds nothing for the reader.

        Raises:
            WatchCompactedError: the revision to go on from was compacted.
            RequestError: the server refused or ended the watch.
        """
        if message.canceled:
            if message.compact_revision:
                raise WatchCompactedError(message.compact_revision)
            raise cancel_error(message.cancel_reason)
        if message.created:
            self.connected = True
            self._failures = 0
            if not self.resume_revision:
                self.resume_revision = message.header.revision + 1
            return None
        self._fragments.extend(message.events)
        if message.fragment:
            return None
        events, self._fragments = tuple(self._fragments), []
        seen = events[-1].kv.mod_revision if events else message.header.revision
        self.resume_revision = max(self.resume_revision, seen + 1)
        return WatchBatch(message.header.revision, events)

    def after(self, failure: Failure, jitter: float) -> float | None:
        """Seconds to wait before a new stream; None: this failure ends the watch."""
        self.connected = False
        learner = BY_TEXT.get(failure.text) is NotSupportedForLearnerError  # another is none
        if failure.code not in _RESUMABLE and not learner:
            return None
        self._failures += 1
        return backoff_s(self._failures - 1, jitter)


def is_stale_token(failure: Failure) -> bool:
    """Whether a new token would help."""
    return BY_TEXT.get(failure.text) in STALE_TOKEN
