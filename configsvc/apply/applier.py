"""A committed entry takes effect: authorize, change the state, write its audit leaf, chain it.

Deterministic: reads the command and the state, nothing else. The same entries give the same
state, rows, leaves and digests on every member, in whatever batches they come.

Always true:
  * An entry takes effect whole or not at all; a refused one changes no table, yet has its leaf.
  * Leaf and effect are one result: there is no way to get one without the other (FC-1).
  * Any exception that is not a ``RequestError`` is a bug or a local failure and ends the member.

Not here: decoding entries (``codec``), answering callers (``runtime``), SQL (``storage.history``).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from configsvc.apply import commands as c
from configsvc.apply import digest
from configsvc.apply.commands import Command, CommitRow, Effects, Envelope, Refused
from configsvc.apply.describe import SILENT, describe
from configsvc.apply.operations import OPERATIONS, Change, Context, put
from configsvc.apply.outcome import code_of
from configsvc.apply.state import ApplyState
from configsvc.audit.changes import KeyChange
from configsvc.audit.commitments import SALT_BYTES
from configsvc.audit.events import CODES
from configsvc.audit.record import Resource
from configsvc.errors import RequestError, ensure
from configsvc.limits import KEY_BYTES_MAX
from configsvc.mvcc.messages import KeyValue, PutOp, PutResult, Row

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor
_OK: Final = 0  # its place in CODES
_NUMBER_OF: Final = {name: number for number, name in enumerate(CODES)}


class Applier:
    """Applies entries in the order of the log. One per member."""

    __slots__ = ("_rights", "state")

    def __init__(self, state: ApplyState) -> None:
        self.state = state
        self._rights = state.rights

    def apply(self, index: int, term: int, command: Command | None) -> Effects:
        """The effects of the entry at ``index``; None is the empty entry of a new leader."""
        state = self.state
        if index != state.applied + 1:  # a call for every entry would be a tenth of a put
            ensure(False, "entries are applied in the order of the log")
        state.applied = index
        state.term = term
        if command is None:
            state.digest = after = digest.step(
                state.digest, index, state.store.revision, _OK, (), ()
            )
            return Effects(index, term, 0, None, state.store.revision, (), (), (), b"", None, after)
        env, op, _ = command
        if env.time_ns > state.last_time_ns:
            state.last_time_ns = env.time_ns
        if len(env[5]) != SALT_BYTES:
            # A member's bug must not stop all members: any salt will do, if it is the same one.
            env = env._replace(salt=sha256(env.salt).digest())
        if type(op) is PutOp:
            return self._put(index, term, env, op)
        self._rights.forget()
        try:
            operate = OPERATIONS[type(op)]
            change = operate(env, op, Context(state, self._rights, index, term))
        except RequestError as error:
            return self._refused(index, term, env, op, error)
        return self._done(index, term, env, op, change)

    # --- the hot path ----------------------------------------------------------------------------

    def _put(self, index: int, term: int, env: Envelope, op: PutOp) -> Effects:
        """``operations.put`` and ``_done`` in one, for most entries are plain puts.

        A put without options whose author surely may, while there is no alarm, cannot fail.
        """
        key, value, lease, prev_kv, ignore_value, ignore_lease = op
        state = self.state
        rights = self._rights
        plain = not (lease or prev_kv or ignore_value or ignore_lease or state.alarms)
        if plain and 0 < len(key) <= KEY_BYTES_MAX and rights.plain_put(env, key):
            row, prev = state.store.put(key, value)
            if prev is not None and prev[5]:
                state.lessor.move(key, prev[5], 0)
            result: c.Result = _new(PutResult, (row[0], None))
        else:
            rights.forget()
            try:
                change = put(env, op, Context(state, rights, index, term))
            except RequestError as error:
                return self._refused(index, term, env, op, error)
            result, (row,), (prev,), _, _ = change
        revision = row[0]
        auth = state.auth
        if prev is None:
            before, prev_value = 0, None
        else:
            _, prev_value, _, before, _, _ = prev
        leaf, values = state.recorder.put(
            env, (index, term, revision, auth.revision, auth.policy.version), rights.rule,
            key, row[3], row[6], before, prev_value,
        )  # fmt: skip
        state.digest = chained = digest.step_put(state.digest, index, revision, row)
        return _new(
            Effects,
            (
                index, term, env[0], result, revision, (row,), (prev,),
                (), leaf, _new(CommitRow, values), chained,
            ),
        )  # fmt: skip

    # --- everything else -------------------------------------------------------------------------

    def _done(
        self, index: int, term: int, env: Envelope, op: c.Operation, change: Change
    ) -> Effects:
        result, rows, prevs, tables, tells_keys = change
        state = self.state
        revision = state.store.revision
        leaf, commit = b"", None
        if not isinstance(op, SILENT):
            event, resource = describe(op)
            one, several = _key_changes(resource, rows, prevs) if tells_keys else (None, None)
            leaf, values = state.recorder.record(
                env,
                self._position(index, term),
                event,
                rule=self._rights.rule,
                resource=resource,
                change=one,
                changes=several,
            )
            commit = CommitRow(*values)
        state.digest = after = digest.step(state.digest, index, revision, _OK, rows, tables)
        return Effects(
            index, term, env.request_id, result, revision, rows, prevs, tables, leaf, commit, after
        )

    def _refused(
        self, index: int, term: int, env: Envelope, op: c.Operation, error: RequestError
    ) -> Effects:
        state = self.state
        revision = state.store.revision
        code = code_of(error)
        leaf, commit = b"", None
        if not isinstance(op, SILENT):
            event, resource = describe(op)
            leaf, values = state.recorder.record(
                env,
                self._position(index, term),
                event,
                code=code,
                rule=self._rights.rule,
                detail=str(error),
                resource=resource,
            )
            commit = CommitRow(*values)
        state.digest = after = digest.step(state.digest, index, revision, _NUMBER_OF[code], (), ())
        result = Refused(error)
        return Effects(
            index, term, env.request_id, result, revision, (), (), (), leaf, commit, after
        )

    def _position(self, index: int, term: int) -> tuple[int, int, int, int, int]:
        state = self.state
        auth = state.auth
        return index, term, state.store.revision, auth.revision, auth.policy.version


def _key_changes(
    resource: Resource, rows: Sequence[Row], prevs: Sequence[KeyValue | None]
) -> tuple[KeyChange | None, list[KeyChange] | None]:
    """The one change of the one key that ``resource`` names, or all changes, be they none."""
    changes = [
        KeyChange(
            row.sub,
            row.key,
            None if row.tombstone else row.value,
            row.lease,
            0 if prev is None else prev.mod_revision,
            None if prev is None else prev.value,
        )
        for row, prev in zip(rows, prevs, strict=True)
    ]
    if len(changes) == 1 and resource.key is not None and resource.range_end is None:
        return changes[0], None
    return None, changes
