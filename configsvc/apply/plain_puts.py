"""Runs of plain puts, done together: most of a log is this.

A put without options whose author surely may, while there is no alarm, cannot fail and asks
nothing of the entries before it. So a run of them is done step by step instead of entry by entry:
each step's code and tables stay in the processor's caches, and what the entries share is looked up
once. What comes out is what the general way makes of each (``applier``).

Not here: everything else that a put can be (``operations.put``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from configsvc.apply import digest
from configsvc.apply.commands import Command, CommitRow, Effects
from configsvc.apply.state import ApplyState
from configsvc.audit.commitments import SALT_BYTES
from configsvc.audit.put_leaves import PlainPut
from configsvc.limits import LEAF_KEY_BYTES_MAX
from configsvc.mvcc.messages import PutResult
from configsvc.raft.messages import Entry

_KEY_MAX: Final = LEAF_KEY_BYTES_MAX  # a longer one stands in its leaf by its digest
_new: Final = tuple.__new__  # skips the Python frame of a named tuple's constructor


def plain_run(
    state: ApplyState, entries: Sequence[Entry], commands: Sequence[Command], at: int
) -> list[PlainPut]:
    """The plain puts that follow each other from place ``at`` on; empty: there is none there."""
    found: list[PlainPut] = []
    if state.alarms:
        return found
    principal = source = view = None
    for number in range(at, len(commands)):
        env, op, _ = commands[number]
        key, value, lease, prev_kv, ignore_value, ignore_lease = op
        request_id, who, where, reason, ticket, salt, _, _, time_ns, suspect, member, _ = env
        if lease or prev_kv or ignore_value or ignore_lease or not 0 < len(key) <= _KEY_MAX:
            break
        if reason or ticket or suspect or len(salt) != SALT_BYTES:
            break
        if who is not principal or where is not source:
            principal, source, view = who, where, state.rights.sure_view(who, where)
        rule = None if view is None else view.put_always or view.granted_put(key)
        if view is None or rule is None:
            break
        term, index, _, _ = entries[number]
        values = (
            index, term, request_id, who, where, salt, time_ns, member, rule, view.roles, key, value
        )  # fmt: skip
        found.append(_new(PlainPut, values))
    return found


def put_all(state: ApplyState, puts: Sequence[PlainPut]) -> list[Effects]:
    """Do a run that ``plain_run`` found."""
    revision = state.store.revision + 1
    rows, prevs = state.store.puts([put[10:] for put in puts])
    auth = state.auth
    leaves, hashes, commits = state.recorder.puts(
        puts, prevs, revision, auth.revision, auth.policy.version
    )
    digests = digest.step_puts(state.digest, puts[0][0], rows)
    state.applied, state.term, state.digest = puts[-1][0], puts[-1][1], digests[-1]
    newest = state.last_time_ns
    effects: list[Effects] = []
    for at, put in enumerate(puts):
        row, prev = rows[at], prevs[at]
        if put[6] > newest:
            newest = put[6]
        if prev is not None and prev[5]:
            state.lessor.move(row[2], prev[5], 0)
        revision = row[0]
        values = (
            put[0], put[1], put[2], _new(PutResult, (revision, None)), revision, (row,), (prev,),
            (), leaves[at], _new(CommitRow, commits[at]), digests[at], hashes[at],
        )  # fmt: skip
        effects.append(_new(Effects, values))
    state.last_time_ns = newest
    return effects
