"""Writing to the target: guarded batches that may be repeated.

A ``Change`` says what the key must be before it. A batch is one transaction whose comparisons
are those guards; when it does not go through, or its outcome got lost, each change is settled
alone: done already, still possible, or in conflict.

Always true: a value that nobody expected is overwritten only under ``overwrite``.
"""

from __future__ import annotations

from typing import NamedTuple

from configsvc import limits
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.migrate_ends import End
from configsvc.cli.migrate_leases import LeaseBook
from configsvc.cli.output import escape
from configsvc.client import Operation, Txn, Why, operations, txn
from configsvc.errors import LeaseNotFoundError
from configsvc.proto import kv_pb2
from configsvc.proto import rpc_pb2 as rpc


class Change(NamedTuple):
    """One key's way to what the source has."""

    key: bytes
    value: bytes | None  # None: delete it
    lease: int
    guard: rpc.Compare | None  # None: the state before is not known, look
    before: bytes | None  # a value that may be replaced; None: none may

    @property
    def operation(self) -> Operation[rpc.PutResponse] | Operation[rpc.DeleteRangeResponse]:
        """What to do once the guard holds."""
        if self.value is None:
            return operations.delete(self.key)
        return operations.put(self.key, self.value, lease=self.lease)

    @property
    def size(self) -> int:
        """Bytes in a transaction."""
        guard = self.guard.ByteSize() if self.guard is not None else 0
        return 2 * len(self.key) + len(self.value or b"") + guard

    def done(self, there: kv_pb2.KeyValue | None) -> bool:
        """Whether the target has it already."""
        if self.value is None or there is None:
            return self.value is None and there is None
        return there.value == self.value and there.lease == self.lease


class Writer:
    """Collects changes and carries them out in order."""

    def __init__(self, target: End, leases: LeaseBook, why: Why, *, overwrite: bool) -> None:
        self._target = target
        self._leases = leases
        self._why = why
        self.overwrite = overwrite
        self._batch: list[Change] = []
        self._keys: set[bytes] = set()
        self._bytes = 0
        self.written = 0  # keys put or deleted
        self.revision = 0  # of the target after the last of them

    def add(self, change: Change) -> bool:
        """Take a change; True: earlier ones were written, which may have taken long."""
        full = (
            len(self._batch) >= limits.MIGRATE_BATCH_OPS_MAX
            or self._bytes + change.size > limits.MIGRATE_BATCH_BYTES_MAX
            or change.key in self._keys  # a transaction changes a key once
        )
        if full:
            self.flush()
        self._batch.append(change)
        self._keys.add(change.key)
        self._bytes += change.size
        return full

    def together(self, changes: list[Change]) -> None:
        """Take the changes of one source revision, in one transaction if it can hold them."""
        count = len(self._batch) + len(changes)
        size = self._bytes + sum(change.size for change in changes)
        too_much = (
            count > limits.MIGRATE_BATCH_OPS_MAX
            or size > limits.MIGRATE_BATCH_BYTES_MAX
            or any(change.key in self._keys for change in changes)
        )
        if too_much:
            self.flush()
        for change in changes:
            self.add(change)

    def flush(self) -> None:
        """Write what was collected.

        Raises:
            CliError: conflict; a key has a value that nobody expected.
        """
        batch, self._batch = self._batch, []
        self._keys.clear()
        self._bytes = 0
        if not batch:
            return
        if all(change.guard is not None for change in batch) and self._together(batch):
            self.written += len(batch)
            return
        for change in batch:
            self._settle(change)

    def _together(self, batch: list[Change]) -> bool:
        request = Txn()
        for change in batch:
            if change.guard is not None:
                request.when(change.guard)
            request.then(change.operation)
        try:
            return bool(self._do(request).succeeded)
        except LeaseNotFoundError:
            for change in batch:
                self._leases.forget(change.lease)
            return False

    def _do(self, request: Txn) -> rpc.TxnResponse:
        # Repeating is harmless: after it was done the guards do not hold any more.
        answer = self._target.client.do(request.operation().repeatable(), why=self._why)
        self.revision = answer.header.revision
        return answer

    def _settle(self, change: Change) -> None:
        for _ in range(limits.MIGRATE_RIVAL_TRIES_MAX):
            if change.lease and not self._leases.carry(change.lease):
                return  # ended in the source: its delete is on the way
            there = self._target.client.get(change.key)
            if change.done(there):
                self.written += 1
                return
            expected = (None, change.value, change.before)
            if not self.overwrite and there is not None and there.value not in expected:
                raise conflict([change.key])
            revision = there.mod_revision if there is not None else 0
            single = Txn().when(txn.modified(change.key) == revision).then(change.operation)
            try:
                if self._do(single).succeeded:
                    self.written += 1
                    return
            except LeaseNotFoundError:
                self._leases.forget(change.lease)
        raise CliError(
            Exit.CONFLICT, f"{escape(change.key)}: somebody else keeps changing it in the target"
        )


def conflict(keys: list[bytes], more: int = 0) -> CliError:
    """The error of keys that hold something else."""
    named = ", ".join(escape(key) for key in keys[: limits.MIGRATE_SHOWN_MAX])
    rest = f" and {more:,} more" if more else ""
    return CliError(
        Exit.CONFLICT,
        f"the target holds other values for {named}{rest}: --overwrite replaces them",
    )
