"""The verdict of ``audit verify``: rules from ``audit.verify``, heads and pins from the caller.

Always true: anything unexpected is INTERNAL (4); "OK" is said only with 0; what was not there
makes the verdict INCOMPLETE (3), never INTACT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from configsvc.audit.checkpoint import Checkpoint, decode_checkpoint, decode_note
from configsvc.audit.merkle import Frontier
from configsvc.audit.verify import ActorRow, Anchor, Entry, Report, Verdict, verify_log
from configsvc.cli.audit_pins import Pins, best_checkpoint
from configsvc.errors import ConfigServiceError, DecodeError

# What an auditor without rights on the values does not get to see.
_VALUES_ONLY: Final = frozenset({"openings", "revisions with rows and salt"})
_WORST_FIRST: Final = (Verdict.INTERNAL, Verdict.TAMPERED, Verdict.INCOMPLETE, Verdict.INTACT)


class Finding(NamedTuple):
    """What was found about one log."""

    where: str
    verdict: Verdict
    problem: str  # empty when intact
    bad_seq: int  # -1: none
    leaves: int
    revisions: int
    signed: bool  # enough pinned keys signed the head
    anchors: tuple[Anchor, ...] = ()  # heads of members' own streams that this log holds


class _Roots:
    """Passes entries on and remembers the root at chosen sizes."""

    def __init__(self, entries: Iterable[Entry], sizes: Iterable[int]) -> None:
        self._entries = entries
        self._sizes = frozenset(sizes)
        self.roots: dict[int, bytes] = {}
        self.failure = ""  # what kept the source from being read to its end

    def __iter__(self) -> Iterator[Entry]:
        try:
            yield from self._watched()
        except DecodeError:
            raise
        except ConfigServiceError as error:
            self.failure = " ".join(str(error).split()) or type(error).__name__
            raise

    def _watched(self) -> Iterator[Entry]:
        frontier = Frontier()
        if 0 in self._sizes:
            self.roots[0] = frontier.root()
        for entry in self._entries:
            frontier.append(entry.leaf)
            if frontier.size in self._sizes:
                self.roots[frontier.size] = frontier.root()
            yield entry


def head_of(note: str) -> Checkpoint:
    """The head in a note, signatures unchecked.

    Raises:
        DecodeError: it is none.
    """
    return decode_checkpoint(decode_note(note).text)


def unanswered(where: str, problem: str) -> Finding:
    """A member that could not be asked: its copy stays unverified."""
    return Finding(where, Verdict.INCOMPLETE, problem, -1, 0, 0, False)


def judge(
    where: str,
    entries: Iterable[Entry],
    actors: Mapping[bytes, ActorRow],
    notes: Sequence[str],
    pins: Pins | None,
    *,
    kept: Sequence[str] = (),
    whole: Checkpoint | None = None,
    records_only: bool = False,
) -> Finding:
    """Verify one log against the best signed head, and all other heads against it.

    Args:
        where: What this log is, for people.
        entries: The leaves, ascending from 0.
        actors: Actor records by hash; may fill up while ``entries`` is read.
        notes: Every head known of this origin, from whichever member.
        pins: Whose signatures count; None: nobody's, and the verdict cannot be INTACT.
        kept: Heads that the auditor kept from earlier; believed, whoever signed them.
        whole: What the log says of itself, to look at all of it and not only up to the head.
        records_only: What only readers of the values get to see may be missing.
    """
    try:
        older = max((head_of(note) for note in kept), key=lambda head: head.size, default=None)
        heads = [head_of(note) for note in (*notes, *kept)]
        signed = best_checkpoint((*notes, *kept), pins) if pins is not None else None
        # Of two, the larger: a log that ends before its signed head lacks records.
        target = max(
            (head for head in (whole, signed) if head is not None) if whole or signed else heads,
            key=lambda head: head.size,
            default=None,
        )
        if target is None:
            return Finding(where, Verdict.INCOMPLETE, "there is no checkpoint", -1, 0, 0, False)
        watched = _Roots(entries, [head.size for head in heads])
        report = verify_log(watched, actors, target, older=older)
    except DecodeError as error:
        return Finding(where, Verdict.TAMPERED, str(error), -1, 0, 0, False)
    verdict, problem = _soften(report, records_only=records_only)
    problem = watched.failure or problem
    if verdict in (Verdict.INTACT, Verdict.INCOMPLETE):
        problem_of_heads = _compare_heads(heads, watched.roots, target)
        if problem_of_heads:
            verdict, problem = Verdict.TAMPERED, problem_of_heads
        elif signed is None and verdict is Verdict.INTACT:
            wanted = "pinned keys" if pins is None else f"{pins.threshold} of the pinned keys"
            verdict, problem = Verdict.INCOMPLETE, f"no checkpoint is signed by {wanted}"
    return Finding(
        where,
        verdict,
        problem,
        report.bad_seq,
        report.leaves,
        report.revisions,
        signed is not None,
        report.anchors,
    )


def _soften(report: Report, *, records_only: bool) -> tuple[Verdict, str]:
    lacks = set(report.missing)
    if report.verdict is Verdict.INCOMPLETE and records_only and lacks <= _VALUES_ONLY:
        return Verdict.INTACT, ""
    return report.verdict, report.problem


def _compare_heads(
    heads: Iterable[Checkpoint], roots: Mapping[int, bytes], target: Checkpoint
) -> str:
    """Heads of other members must be heads of this very tree (a split view is tampering)."""
    for head in heads:
        if head.origin != target.origin:
            return f"a checkpoint is of another origin: {head.origin}"
        if head.size in roots and roots[head.size] != head.root:
            return f"a member signed another root at size {head.size}"
    return ""


def worst(findings: Iterable[Finding]) -> Verdict:
    """The verdict over several logs."""
    found = {finding.verdict for finding in findings}
    return next(verdict for verdict in _WORST_FIRST if verdict in found)


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding for machines."""
    return {
        "log": finding.where,
        "verdict": finding.verdict.name.lower(),
        "problem": finding.problem,
        "bad_seq": finding.bad_seq if finding.bad_seq >= 0 else None,
        "leaves": finding.leaves,
        "revisions": finding.revisions,
        "signed": finding.signed,
    }


def finding_line(finding: Finding) -> str:
    """A finding for people. The word OK is kept for the verdict over all logs."""
    counts = f"{finding.leaves} records, {finding.revisions} revisions compared"
    if finding.verdict is Verdict.INTACT:
        return f"intact {finding.where}: {counts}"
    place = f" at seq {finding.bad_seq}" if finding.bad_seq >= 0 else ""
    return f"{finding.verdict.name} {finding.where}{place}: {finding.problem} ({counts})"
