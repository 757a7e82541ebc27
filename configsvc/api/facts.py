"""Facts about values that the policy in force may ask for (POL-5).

They are worked out by the accepting member and travel in the entry, so that no member's libraries
decide an outcome in apply. While no rule asks for them, nothing is done.
"""

from __future__ import annotations

from configsvc.auth.facts import format_facts
from configsvc.mvcc.messages import PutOp, TxnOp
from configsvc.runtime.member import Member


def facts_of(member: Member, op: PutOp | TxnOp) -> tuple[tuple[str, str], ...]:
    """What the policy in force can ask about the values of ``op``; usually nothing."""
    if not member.policy_facts:
        return ()
    return format_facts([op.value] if isinstance(op, PutOp) else _values(op))


def _values(op: TxnOp) -> list[bytes]:
    out: list[bytes] = []
    for inner in (*op.success, *op.failure):
        if isinstance(inner, PutOp):
            out.append(inner.value)
        elif isinstance(inner, TxnOp):
            out += _values(inner)
    return out
