"""Leases of a migration: granted on the other side under their own ids.

A lease is granted with the time it has left; while following, with its full time, and renewed
as often as the source's was. Always true: a key is never written with a lease that has ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from configsvc import limits
from configsvc.cli.migrate_ends import EVERYTHING, Ends, Span, in_spans
from configsvc.client import Txn, operations, txn
from configsvc.errors import ConfigServiceError, LeaseExistError, LeaseNotFoundError
from configsvc.proto import kv_pb2

_TICK_S: Final = 0.5


@dataclass(slots=True)
class _Carried:
    ttl_s: int
    good_until: float


class LeaseBook:
    """Which leases the target has. Used by the copying thread and by ``Tender``."""

    def __init__(self, ends: Ends, spans: list[Span], *, following: bool) -> None:
        self._ends = ends
        self._spans = spans
        self._restored: dict[bytes, int] = {}  # keys brought back, with the source's revision
        self._following = following
        self._carried: dict[int, _Carried] = {}
        self._lock = threading.Lock()
        self.writing = threading.Lock()  # held while events are applied

    def __len__(self) -> int:
        return len(self._carried)

    def ids(self) -> list[int]:
        """All leases that were carried."""
        with self._lock:
            return list(self._carried)

    def carry(self, lease_id: int) -> bool:
        """See to it that the target has the lease; False: it has ended in the source."""
        with self._lock:
            known = self._carried.get(lease_id)
            if known is not None and time.monotonic() < known.good_until:
                return True
            found = self._ends.source.client.do(operations.lease_ttl(lease_id))
            if found.TTL < 0:
                self._carried.pop(lease_id, None)
                return False
            ttl = max(1, found.grantedTTL if self._following else found.TTL)
            self._carried[lease_id] = self._grant(lease_id, ttl)
            return True

    def _grant(self, lease_id: int, ttl: int) -> _Carried:
        target = self._ends.target.client
        sent = time.monotonic()
        grant = operations.lease_grant(ttl, lease_id)
        try:
            # Repeating is harmless: the second attempt finds the lease of the first.
            granted = target.do(grant.repeatable())
        except LeaseExistError:  # of an earlier run
            there = target.do(operations.lease_ttl(lease_id))
            if there.TTL > 0:
                return _Carried(there.grantedTTL, sent + there.TTL)
            granted = target.do(grant.repeatable())
        return _Carried(granted.TTL, sent + granted.TTL)

    def forget(self, lease_id: int) -> None:
        """The target says that it has ended."""
        with self._lock:
            self._carried.pop(lease_id, None)

    def tend(self) -> None:
        """Renew what is alive in the source; end what has ended there."""
        source, target = self._ends.source.client, self._ends.target.client
        with self._lock:
            due = [
                (lease_id, one)
                for lease_id, one in self._carried.items()
                if one.good_until - time.monotonic() < one.ttl_s * 2 / 3
            ]
        for lease_id, one in due:
            left = source.do(operations.lease_ttl(lease_id)).TTL
            try:
                if left < 0:
                    target.do(operations.lease_revoke(lease_id).repeatable())
                    self.forget(lease_id)
                elif time.monotonic() + left > one.good_until:
                    sent = time.monotonic()
                    one.good_until = sent + target.renew(lease_id)
            except LeaseNotFoundError:
                self.forget(lease_id)
                if left >= 0:
                    self._restore(lease_id)

    def _restore(self, lease_id: int) -> None:
        """The lease ended in the target only, and took its keys along: bring them back.

        No event is applied meanwhile: a key that the source deletes after our look at it gets
        its delete after our put.
        """
        source, target = self._ends.source.client, self._ends.target.client
        with self.writing:
            if not self.carry(lease_id):
                return
            for key in source.do(operations.lease_ttl(lease_id, keys=True)).keys:
                kv = source.get(key)
                if kv is None or kv.lease != lease_id or not in_spans(key, self._spans):
                    continue
                put = operations.put(key, kv.value, lease=lease_id)
                absent = Txn().when(txn.version(key) == 0).then(put)
                if target.do(absent.operation().repeatable()).succeeded:
                    self._restored[key] = kv.mod_revision

    def knows(self, kv: kv_pb2.KeyValue) -> bool:
        """Whether an event is older than what was brought back; call it under ``writing``."""
        return kv.mod_revision <= self._restored.get(kv.key, 0)

    def adopt(self) -> None:
        """Take over what an earlier run carried; what ran out since comes back with its keys."""
        there = {one.ID for one in self._ends.target.client.do(operations.lease_list()).leases}
        for one in self._ends.source.client.do(operations.lease_list()).leases:
            if one.ID in there:
                self.carry(one.ID)
            elif self._has_keys_of_ours(one.ID):
                self._restore(one.ID)

    def _has_keys_of_ours(self, lease_id: int) -> bool:
        if self._spans == [EVERYTHING]:
            return True
        found = self._ends.source.client.do(operations.lease_ttl(lease_id, keys=True))
        return any(in_spans(key, self._spans) for key in found.keys)


class Tender:
    """Calls ``LeaseBook.tend``, then ``on_tick``, now and then until closed, from a thread.

    A cluster that is away for a moment is told by ``warn`` and is no end.
    """

    def __init__(
        self, book: LeaseBook, warn: Callable[[str], None], on_tick: Callable[[], None]
    ) -> None:
        self._book = book
        self._warn = warn
        self._on_tick = on_tick
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-tender", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        trouble = ""
        while not self._closed.wait(_TICK_S):
            before, trouble = trouble, ""
            try:
                self._book.tend()
            except ConfigServiceError as error:
                trouble = " ".join(str(error).split())
            if trouble and trouble != before:
                self._warn(f"leases cannot be renewed: {trouble}")
            self._on_tick()

    def close(self) -> None:
        """Stop renewing."""
        self._closed.set()
        self._thread.join(timeout=limits.CLIENT_TIMEOUT_S)
