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
from configsvc.apply.plain_puts import plain_run, put_all
from configsvc.apply.state import ApplyState
from configsvc.audit.changes import ChangeRecords, KeyChange
from configsvc.audit.commitments import SALT_BYTES
from configsvc.audit.events import CODES
from configsvc.audit.record import NOTHING
from configsvc.errors import RequestError, ensure
from configsvc.limits import APPLY_PIECE_ROWS
from configsvc.mvcc.messages import KeyValue, PutOp, Row
from configsvc.raft.messages import Entry, EntryKind

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
        if command is not None and type(command[1]) is PutOp:
            entry = _new(Entry, (term, index, EntryKind.NORMAL, b""))
            return self.puts((entry,), (command,))[0]
        if index != state.applied + 1:  # a call for every entry would be a tenth of a put
            ensure(False, "entries are applied in the order of the log")
        if command is None:
            state.applied, state.term = index, term
            state.digest = after = digest.step(
                state.digest, index, state.store.revision, _OK, (), ()
            )
            return Effects(
                index, term, 0, None, state.store.revision, (), (), (), b"", None, after, b""
            )
        env, op = self._enter(index, term, command), command.op
        self._rights.forget()
        try:
            operate = OPERATIONS[type(op)]
            change = operate(env, op, Context(state, self._rights, index, term))
        except RequestError as error:
            return self._refused(index, term, env, op, error)
        return self._done(index, term, env, op, change)

    def _enter(self, index: int, term: int, command: Command) -> Envelope:
        """An entry begins; its envelope, as all members take it."""
        state, env = self.state, command.envelope
        state.applied = index
        state.term = term
        if env.time_ns > state.last_time_ns:
            state.last_time_ns = env.time_ns
        if len(env.salt) != SALT_BYTES:
            # A member's bug must not stop all members: any salt will do, if it is the same one.
            env = env._replace(salt=sha256(env.salt).digest())
        return env

    # --- puts ------------------------------------------------------------------------------------

    def puts(self, entries: Sequence[Entry], commands: Sequence[Command]) -> list[Effects]:
        """``apply`` for entries that follow each other and are all puts."""
        state = self.state
        in_order = entries[-1].index - entries[0].index == len(entries) - 1
        if entries[0].index != state.applied + 1 or not in_order:
            ensure(False, "entries are applied in the order of the log")
        effects: list[Effects] = []
        at = 0
        while at < len(entries):
            run = plain_run(state, entries, commands, at)
            if run:
                effects += put_all(state, run)
                at += len(run)
            else:
                effects.append(self._put(entries[at], commands[at]))
                at += 1
        return effects

    def _put(self, entry: Entry, command: Command) -> Effects:
        """``operations.put`` and ``_done`` in one, for a put that is not plain."""
        state, rights, op = self.state, self._rights, command.op
        term, index = entry.term, entry.index
        env = self._enter(index, term, command)
        rights.forget()
        try:
            change = put(env, op, Context(state, rights, index, term))
        except RequestError as error:
            return self._refused(index, term, env, op, error)
        result, (row,), (prev,) = change[:3]
        before, prev_value = (0, None) if prev is None else (prev.mod_revision, prev.value)
        leaf, values = state.recorder.put(
            env, self._position(index, term), rights.rule,
            op.key, row.value, row.lease, before, prev_value,
        )  # fmt: skip
        state.digest = chained = digest.step_put(state.digest, index, row.revision, row)
        return Effects(
            index, term, env.request_id, result, row.revision, (row,), (prev,), (), leaf,
            CommitRow(*values), chained, state.recorder.leaf_hash,
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
