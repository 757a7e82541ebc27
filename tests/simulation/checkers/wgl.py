"""Wing and Gong's search, with Lowe's memory, on the history of one key: an independent oracle.

It knows nothing of revisions: only calls, answers and a register with compare. It decides small
histories; whoever calls it samples. The revision-ordered checker must agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulation.checkers.history import FOR_EVER, Operation

STEPS_MAX = 200_000


class Undecided(Exception):
    """The search was given up; take a smaller sample."""


def linearizable(operations: Sequence[Operation]) -> bool:
    """Whether the calls on one key (put, delete, read) can be put in one order.

    Swaps compare revisions, which this model does not have: leave their keys out.

    Raises:
        Undecided: after STEPS_MAX states.
    """
    ops = sorted(
        (
            o
            for o in operations
            if not o.impossible and not (o.kind == "read" and not o.acknowledged)
        ),
        key=lambda o: o.called,
    )
    total = len(ops)
    needed = sum(1 << i for i, op in enumerate(ops) if op.acknowledged)
    seen: set[tuple[int, bytes | None]] = set()
    stack: list[tuple[int, bytes | None]] = [(0, None)]
    while stack:
        taken, value = stack.pop()
        if taken & needed == needed:
            return True
        if (taken, value) in seen:
            continue
        seen.add((taken, value))
        if len(seen) > STEPS_MAX:
            raise Undecided
        # Whoever began before the first answer among the rest may be next.
        first_end = min(
            (_end(ops[i]) for i in range(total) if not taken >> i & 1), default=FOR_EVER
        )
        for i in range(total):
            op = ops[i]
            if op.called > first_end:
                break
            if taken >> i & 1:
                continue
            if op.kind == "read":
                if op.seen == value:
                    stack.append((taken | 1 << i, value))
            elif op.refused:
                stack.append((taken | 1 << i, value))
            else:
                after = op.value if op.kind == "put" else None
                stack.append((taken | 1 << i, after))
    return False


def _end(op: Operation) -> int:
    return op.returned if op.acknowledged else FOR_EVER
