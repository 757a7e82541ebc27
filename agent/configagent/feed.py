"""Keeps one set's snapshot in step with the store (agent.md D1 to D8).

List at R, watch from R + 1; a compacted watch lists again; every reconcile interval the keys'
revisions are compared with a fresh list, so that a lost event is found. Runs for ever; what goes
wrong becomes the link's state and a jittered wait.

Not here: what a change leads to (``runner``), connections themselves (``configsvc.client``).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

from configagent.log import Log
from configagent.settings import SetSpec, Store
from configagent.snapshot import Change, Entry, Snapshot
from configsvc import limits
from configsvc.client import AsyncClient, AsyncWatch, ClientError, WatchOptions, operations
from configsvc.client.errors import UnauthenticatedError
from configsvc.errors import (
    CompactedError,
    ConfigServiceError,
    PermissionDeniedError,
    RequestError,
    UserNotFoundError,
)
from configsvc.proto import kv_pb2

DENIED: Final = (PermissionDeniedError, UnauthenticatedError, UserNotFoundError)
DENIED_S: Final = (60.0, 300.0)
_QUICK_S: Final = 10.0  # a denial is asked again this soon at first: roles may be on their way


class StoreResetError(Exception):
    """The store is another one, or went back behind what was seen."""


class Link:
    """How the agent stands with the store; the worst of its feeds speaks."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._states: dict[str, str] = {}
        self._on_change = on_change
        self._was_connected = False
        self.since = time.time()
        self.reconnects = 0  # since the start; the first connection is none
        self.cluster_id = 0

    @property
    def state(self) -> str:
        """One word (agent.md 4.5)."""
        for word in ("denied", "store_reset", "offline", "stale", "connected"):
            if word in self._states.values():
                return word
        return "offline"

    def set(self, feed: str, state: str) -> None:
        """One feed's state."""
        before = self.state
        self._states[feed] = state
        if self.state != before:
            self.since = time.time()
            self.reconnects += self.state == "connected" and self._was_connected
            self._was_connected |= self.state == "connected"
            self._on_change()

    def forget(self, feed: str) -> None:
        """A feed ended."""
        self._states.pop(feed, None)


class Feed:
    """The keys of one set.

    ``on_change`` gets the keys that changed, after ``snapshot`` did. ``on_away`` is called with the
    link's state whenever the store gave no snapshot yet; it may offer a stored one.
    """

    def __init__(
        self,
        spec: SetSpec,
        store: Store,
        client: AsyncClient,
        link: Link,
        log: Log,
        *,
        floor: int,
        on_change: Callable[[set[str]], None],
        on_away: Callable[[str], None] = lambda state: None,
    ) -> None:
        self.snapshot: Snapshot | None = None
        self._kept: Snapshot | None = None  # what was known before a list that is still to come
        self.trouble = ""  # why the store gives no answer now; "": it does
        self.from_cache = False  # ``snapshot`` was stored here earlier and not read just now
        self._spec = spec
        self._store = store
        self._client = client
        self._link = link
        self._log = log
        self._floor = floor  # the highest revision seen before
        self._on_change = on_change
        self._on_away = on_away
        self._doubts: dict[tuple[str, int], int] = {}  # of the last comparison
        self._failures = 0
        self._healthy_since = 0.0

    @property
    def cluster_id(self) -> int:
        """The cluster that the snapshot came from."""
        return self._link.cluster_id

    async def run(self) -> None:
        """Follow the store until cancelled."""
        try:
            while True:
                await self._one_life()
        finally:
            self._link.forget(self._spec.name)

    async def _one_life(self) -> None:
        try:
            if self.snapshot is None or self.from_cache:
                self._accept(await self._list())
                self._connected()
            await self._watch()
        except CompactedError:
            self._log.event("relist", set=self._spec.name, why="compacted")
            await self._relist()
        except StoreResetError as error:
            self._link.set(self._spec.name, "store_reset")
            self._log.event("store_reset", set=self._spec.name, why=str(error))
            self._floor = 0
            await self._relist()
        except DENIED as error:
            self._link.set(self._spec.name, "denied")
            self.trouble = str(error)
            self._log.event("denied", set=self._spec.name, why=self.trouble)
            self._away("denied")
            await self._pause(*(DENIED_S if self._failures > 5 else (_QUICK_S / 5, _QUICK_S)))
        except (ClientError, RequestError, ConfigServiceError) as error:
            self._link.set(self._spec.name, "offline")
            self.trouble = str(error)
            self._log.event("offline", set=self._spec.name, why=self.trouble)
            self._away("offline")
            await self._pause(self._store.backoff_min_s, self._store.backoff_max_s)

    def _away(self, state: str) -> None:
        if self.snapshot is None:
            self._on_away(state)

    def offer(self, snapshot: Snapshot) -> None:
        """Go on with a stored snapshot until the store answers."""
        self.snapshot, self.from_cache = snapshot, True
        self._on_change(set(snapshot.keys))

    async def _relist(self) -> None:
        """List at once, and say what differs from what was known, deletes included.

        What was known stays known when this list fails: the next one is compared with it.
        """
        self._kept, self.snapshot = self.snapshot or self._kept, None
        try:
            fresh = await self._list()
        except CompactedError:
            return
        except ConfigServiceError as error:
            self._log.event("offline", set=self._spec.name, why=str(error))
            await self._pause(self._store.backoff_min_s, self._store.backoff_max_s)
            return
        self._accept(fresh)

    async def _pause(self, low: float, high: float) -> None:
        if time.monotonic() - self._healthy_since > 60 > self._healthy_since > 0:
            self._failures = 0
        self._failures += 1
        wait = min(high, low * 2 ** min(self._failures - 1, 16))
        await asyncio.sleep(wait * (0.5 + random.random() / 2))  # noqa: S311  # jitter

    def _connected(self) -> None:
        self._failures = 0
        self.trouble = ""
        self._healthy_since = time.monotonic()
        self._link.set(self._spec.name, "connected")

    # --- lists ------------------------------------------------------------------------------------

    async def read_at(self, revision: int) -> Snapshot:
        """The keys as they stood at a revision, beside everything else.

        Raises:
            CompactedError: the store does not keep it any more.
            ConfigServiceError: it is not there yet, or the store does not answer.
        """
        return await self._list(at=revision)

    async def _list(self, *, keys_only: bool = False, at: int = 0) -> Snapshot:
        """All pages at one revision (``at`` 0: the present one); any error aborts."""
        start = self._spec.span_prefix
        end = operations.prefix_end(start)
        found: dict[str, Entry] = {}
        revision, key = at, start
        while True:
            page = await self._client.do(
                operations.range_(
                    key, end, limit=limits.AGENT_PAGE_KEYS, revision=revision, keys_only=keys_only
                )
            )
            if not revision:
                revision = page.header.revision
                self._judge(page.header.cluster_id, revision)
            for kv in page.kvs:
                found[self._relative(kv.key)] = Entry(kv.value, kv.mod_revision)
            if not page.more or not page.kvs:
                return Snapshot(revision, found)
            key = page.kvs[-1].key + b"\0"

    def _judge(self, cluster_id: int, revision: int) -> None:
        known = self._link.cluster_id
        if known and cluster_id != known:
            self._link.cluster_id = cluster_id
            raise StoreResetError(f"cluster {cluster_id:x} instead of {known:x}")
        self._link.cluster_id = cluster_id
        if revision < self._floor:
            raise StoreResetError(f"revision {revision} after {self._floor}")
        self._floor = revision

    def _relative(self, key: bytes) -> str:
        return key[len(self._spec.span_prefix) - 1 :].decode("utf-8", "backslashreplace")

    def _accept(self, fresh: Snapshot) -> None:
        known, self._kept = self.snapshot or self._kept, None
        changed = set(fresh.keys) if known is None else fresh.differing(known)
        cached, self.from_cache = self.from_cache, False
        self.snapshot = fresh
        self._floor = max(self._floor, fresh.revision)
        if changed or known is None or cached:
            self._on_change(changed)

    # --- watch ------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        snapshot = self.snapshot
        if snapshot is None:
            return
        start = self._spec.span_prefix
        options = WatchOptions(
            start, operations.prefix_end(start), snapshot.revision + 1, progress_notify=True
        )
        reconnected = asyncio.Event()
        watch = AsyncWatch(self._client, options, on_lost=self._lost, on_connected=reconnected.set)
        try:
            await self._follow(watch, reconnected)
        finally:
            watch.close()

    def _lost(self, line: str) -> None:
        self._link.set(self._spec.name, "offline")
        self._log.event("offline", set=self._spec.name, why=line)

    async def _follow(self, watch: AsyncWatch, reconnected: asyncio.Event) -> None:
        silent = 0
        reconcile_at = self._next_reconcile()
        coming = asyncio.ensure_future(anext(watch))
        connects = asyncio.ensure_future(reconnected.wait())
        first = True
        try:
            while True:
                wait = self._store.heartbeat_s * (0.8 + random.random() / 5)  # noqa: S311  # jitter
                done, _ = await asyncio.wait(
                    {coming, connects}, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                if connects in done:
                    reconnected.clear()
                    connects = asyncio.ensure_future(reconnected.wait())
                    self._connected()
                    if not first:
                        await self._check_not_reset()
                    first = False
                if coming in done:
                    silent = 0
                    batch = coming.result()
                    coming = asyncio.ensure_future(anext(watch))
                    self._take(batch.events)
                    if self.snapshot is not None and batch.revision < self.snapshot.revision:
                        await self._check_not_reset()
                elif not done:
                    silent += 1
                    if silent >= 3:
                        self._link.set(self._spec.name, "stale")
                        self._client.ring.leave(self._client.ring.current)
                        return
                    await watch.request_progress()
                if time.monotonic() > reconcile_at:
                    again = await self._reconcile()
                    pause = time.monotonic() + self._store.heartbeat_s
                    reconcile_at = pause if again else self._next_reconcile()
        except StopAsyncIteration:
            return
        finally:
            for task in (coming, connects):
                task.cancel()
                with contextlib.suppress(
                    asyncio.CancelledError, StopAsyncIteration, ConfigServiceError
                ):
                    await task

    def _next_reconcile(self) -> float:
        return time.monotonic() + self._store.reconcile_s * (
            0.8 + 0.4 * random.random()  # noqa: S311  # jitter
        )

    def _take(self, events: tuple[kv_pb2.Event, ...]) -> None:
        if not events or self.snapshot is None:
            return
        changes = []
        for event in events:
            gone = event.type == kv_pb2.Event.DELETE
            entry = None if gone else Entry(event.kv.value, event.kv.mod_revision)
            changes.append(Change(self._relative(event.kv.key), entry))
        self.snapshot = self.snapshot.after(changes, events[-1].kv.mod_revision)
        self._floor = max(self._floor, self.snapshot.revision)
        self._on_change({change.key for change in changes})

    async def _check_not_reset(self) -> None:
        """A linearizable answer decides: the member that we watch may only lag behind."""
        header = (
            await self._client.do(operations.range_(self._spec.span_prefix, count_only=True))
        ).header
        self._judge(header.cluster_id, header.revision)

    async def _reconcile(self) -> bool:
        """Compare revisions of all keys with the store (D4); True: look again soon.

        What the store has and we do not may be on its way. It is lost when the stream is past it
        already, or when it has not come by the second look.
        """
        listed = await self._list(keys_only=True)
        current = self.snapshot
        if current is None:
            return False
        before, self._doubts = self._doubts, current.doubts(listed)
        past = any(revision <= current.revision for revision in self._doubts.values())
        if not past and not self._doubts.keys() & before.keys():
            return bool(self._doubts)
        self._doubts = {}
        self._log.event("reconciled", set=self._spec.name, why="an event was lost")
        self._accept(await self._list())
        return False
