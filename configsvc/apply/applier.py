"""A committed entry takes effect: authorize, change the state, write its audit leaf, chain it.

Deterministic: reads the command and the state, nothing else. The same entries give the same
state, rows, leaves and digests on every member, in whatever batches they come.

Always true:
  * An entry takes effect whole or not at all; a refused one changes no table, yet has its leaf.
  * Leaf and effect are one result: there is no way to get one without the other (FC-1).
  * An entry that changes very many keys is told piece by piece and then changes them in one.
  * Any exception that is not a ``RequestError`` is a bug or a local failure and ends the member.

Not here: decoding entries (``codec``), answering callers (``runtime``), SQL (``storage.history``).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256
from typing import Final

from configsvc.apply import commands as c
from configsvc.apply import digest
from configsvc.apply.commands import Command, CommitRow, Effects, Envelope, Refused
from configsvc.apply.describe import SILENT, describe
from configsvc.apply.operations import OPERATIONS, Change, Context, put
from configsvc.apply.outcome import code_of
from configsvc.apply.state import ApplyState
from configsvc.audit.changes import ChangeRecords, KeyChange
from configsvc.audit.commitments import SALT_BYTES
from configsvc.audit.events import CODES
from configsvc.audit.record import NOTHING
from configsvc.errors import RequestError, ensure
from configsvc.limits import APPLY_PIECE_ROWS, KEY_BYTES_MAX
from configsvc.mvcc.messages import KeyValue, PutOp, PutResult, Row

Pieces = Generator[None, None, Effects]  # what is left of an entry's application

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
        outcome = self.begin(index, term, command)
        return outcome if type(outcome) is Effects else _drained(outcome)  # type: ignore[arg-type]

    def begin(self, index: int, term: int, command: Command | None) -> Effects | Pieces:
        """``apply``; for a change of more than ``APPLY_PIECE_ROWS`` rows what is left to be done.

        The caller runs those pieces to their end before anything else is applied. Until the last
        one the state is as it was before the entry, for whoever reads it in between.
        """
        state = self.state
        if index != state.applied + 1:  # a call for every entry would be a tenth of a put
            ensure(False, "entries are applied in the order of the log")
        state.applied = index
        state.term = term
        if command is None:
            state.digest = after = digest.step(
                state.digest, index, state.store.revision, _OK, (), ()
            )
            return Effects(
                index, term, 0, None, state.store.revision, (), (), (), b"", None, after, b""
            )
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
            result, (row,), (prev,) = change[:3]
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
                (), leaf, _new(CommitRow, values), chained, state.recorder.leaf_hash,
            ),
        )  # fmt: skip

    # --- everything else -------------------------------------------------------------------------

    def _done(
        self, index: int, term: int, env: Envelope, op: c.Operation, change: Change
    ) -> Effects | Pieces:
        pieces = self._pieces(index, term, env, op, change)
        return pieces if len(change.rows) > APPLY_PIECE_ROWS else _drained(pieces)

    def _pieces(
        self, index: int, term: int, env: Envelope, op: c.Operation, change: Change
    ) -> Pieces:
        """What tells the change is made first, piece by piece; then, in one, the change."""
        result, rows, prevs, tables, tells_keys, make = change
        state, rights = self.state, self._rights
        decided = rights.rule, rights.roles  # readers' rights are judged between two pieces
        revision = rows[0].revision if rows else state.store.revision
        event, resource = ("", NOTHING) if isinstance(op, SILENT) else describe(op)
        named = len(rows) == 1 and resource.key is not None and resource.range_end is None
        records = ChangeRecords(env.salt) if tells_keys and not named else None
        chain = digest.Chain(state.digest, index, revision, _OK, len(rows), len(tables))
        for at in range(0, len(rows), APPLY_PIECE_ROWS):
            piece = rows[at : at + APPLY_PIECE_ROWS]
            chain.add(piece)
            if records is not None:
                records.add(_key_changes(piece, prevs[at : at + APPLY_PIECE_ROWS]))
            if len(rows) > APPLY_PIECE_ROWS:
                yield
        if make is not None:
            make()
        rights.rule, rights.roles = decided
        leaf, commit, hashed = b"", None, b""
        if event:
            leaf, values = state.recorder.record(
                env,
                self._position(index, term),
                event,
                rule=rights.rule,
                resource=resource,
                change=next(_key_changes(rows, prevs)) if tells_keys and named else None,
                changes=records,
            )
            commit, hashed = CommitRow(*values), state.recorder.leaf_hash
        state.digest = after = chain.finish(tables)
        return Effects(
            index, term, env.request_id, result, revision, rows, prevs, tables, leaf, commit,
            after, hashed,
        )  # fmt: skip

    def _refused(
        self, index: int, term: int, env: Envelope, op: c.Operation, error: RequestError
    ) -> Effects:
        state = self.state
        revision = state.store.revision
        code = code_of(error)
        leaf, commit, hashed = b"", None, b""
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
            commit, hashed = CommitRow(*values), state.recorder.leaf_hash
        state.digest = after = digest.step(state.digest, index, revision, _NUMBER_OF[code], (), ())
        result = Refused(error)
        return Effects(
            index, term, env.request_id, result, revision, (), (), (), leaf, commit, after, hashed
        )

    def _position(self, index: int, term: int) -> tuple[int, int, int, int, int]:
        state = self.state
        auth = state.auth
        return index, term, state.store.revision, auth.revision, auth.policy.version


def _drained(pieces: Pieces) -> Effects:
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            effects: Effects = done.value
            return effects


def _key_changes(rows: Sequence[Row], prevs: Sequence[KeyValue | None]) -> Iterator[KeyChange]:
    """What the audit record says of ``rows``."""
    for (_, sub, key, value, _, _, lease, tombstone), prev in zip(rows, prevs, strict=True):
        mod, before = (0, None) if prev is None else (prev[3], prev[1])
        new = None if tombstone else value
        yield _new(KeyChange, (sub, key, new, lease, mod, before))
