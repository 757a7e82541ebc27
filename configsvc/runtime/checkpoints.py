"""Signed heads of stream M: when this member signs, what it refuses to sign, who disagrees.

The leader signs first: every CHECKPOINT_LEAVES leaves (at most once in CHECKPOINT_GAP_S) or
CHECKPOINT_INTERVAL_S after the first new one, when it takes office, and when it stops. Its
signature goes through the log; whoever sees it applied signs the same head, so that a majority of
distinct keys stands under one text (TE-2, TE-3). A signature makes no leaf: an idle cluster signs
nothing.

Always true:
  * What is signed was recomputed from the tree in SQL, at a size that SQL has committed, and holds
    the head signed before as a prefix. Nothing smaller is ever signed, not when asked either: for
    a smaller size there are the signatures that the cluster stores.
  * The last signed head is synced to a file of its own before its signature leaves this member.
  * A root that differs at an equal size is a CORRUPT alarm; both heads are kept; a member that a
    majority contradicts, or whose SQL does not hold what it applied, ends (TE-6).

Not here: the note's text (``audit.checkpoint``), answers (``api.audit``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from configsvc.audit.checkpoint import Checkpoint, encode_checkpoint, merge
from configsvc.audit.proofs import root_at
from configsvc.audit.record import Resource
from configsvc.codec import command as codec
from configsvc.codec.publishing import checkpoint_signature_op
from configsvc.errors import ConfigServiceError, ExitCode, FatalError
from configsvc.limits import (
    CHECKPOINT_GAP_S,
    CHECKPOINT_INTERVAL_S,
    CHECKPOINT_LEAVES,
    CHECKPOINT_WAIT_S,
)
from configsvc.runtime.anchors import applied
from configsvc.storage.local.heads import Head, keep_evidence, load_last, store_last

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

ALARM_CORRUPT: Final = 2
ALARM_SENT_S: Final = 1.0  # for the alarm to reach the log before a corrupt member ends


class _Asked(NamedTuple):
    """One head that is being looked at."""

    head: Head  # as applied here, or as another member signed it
    signer: int  # 0: nobody, we go first


class _Looked(NamedTuple):
    """What the reader thread found in SQL."""

    root: bytes
    extends: bool  # the head signed before is a prefix
    stored: bool  # this head is the last signed one in the file


class Checkpoints:
    """The signing member; everything but ``_look`` runs on the loop."""

    def __init__(self, member: Member, path: Path) -> None:
        """``path``: file of the last signed head.

        Raises:
            FatalError: exit 84, the file holds no head.
        """
        self._member = member
        self._path = path
        self._last = load_last(path, member.log_origin)
        self._busy = False
        self._forced = False
        self._news_since: float | None = None
        self._signed_at = float("-inf")
        self._sent_at = float("-inf")  # the newest signature, on its way to the log
        self._alarm_due = False  # it was refused; told again until it is taken
        self._compared: set[tuple[int, int]] = set()  # (member, size)
        self._waiting: list[tuple[int, float, Callable[[], None]]] = []
        self.problem = ""

    # --- when ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Called every raft tick."""
        if self._waiting:
            self.look_for_good(now)
        if self._alarm_due:
            self._raise_alarm()
        if self._busy or self.problem or not self._may_sign():
            return
        foreign = self._foreign()
        if foreign is not None:
            self._begin(foreign)
        elif self._due(now):
            frontier = self._member.state.recorder.frontier
            self._begin(_Asked(Head(frontier.size, frontier.root()), 0))
        elif self._got_lost(now):
            self._send(self._last)

    def leadership(self) -> None:
        """This member leads from now on: the head it found is signed."""
        self._forced = True

    def ask(self, size: int, then: Callable[[], None]) -> None:
        """Call ``then`` once a majority has signed a head of at least ``size`` leaves.

        Or after CHECKPOINT_WAIT_S without one. Signs by itself when there is none yet.
        """
        good = self.good()
        if good is not None and good.size >= size:
            then()
            return
        deadline = self._member.clock.monotonic() + CHECKPOINT_WAIT_S
        self._waiting.append((size, deadline, then))
        self._forced = True

    async def final(self) -> None:
        """Sign what is new, before this member stops."""
        frontier = self._member.state.recorder.frontier
        if frontier.size <= self._last.size or self.problem or not self._may_sign():
            return
        done = self._member.loop.create_future()

        def told() -> None:
            if not done.done():
                done.set_result(None)

        self._waiting.append((frontier.size, float("inf"), told))
        self._forced = True
        self.tick(self._member.clock.monotonic())
        await asyncio.shield(done)

    def look_for_good(self, now: float) -> None:
        """Tell those whose head has its majority by now, or whose time is up."""
        good = self.good()
        size = good.size if good is not None else 0
        ready = [w for w in self._waiting if w[0] <= size or w[1] <= now]
        if ready:
            self._waiting = [w for w in self._waiting if w not in ready]
            for _, _, then in ready:
                then()

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for signatures."""
        return bool(self._waiting)

    # --- what there is ---------------------------------------------------------------------------

    def good(self) -> Head | None:
        """The largest head that a majority of the voters signed; None: there is none."""
        voters = self._member.machine.conf_state.voters
        votes: dict[Head, int] = {}
        for (who, size), (root, _) in self._member.state.signatures.items():
            if who in voters:
                head = Head(size, root)
                votes[head] = votes.get(head, 0) + 1
        return max((h for h, count in votes.items() if 2 * count > len(voters)), default=None)

    def best(self, *, most: int | None = None) -> Head | None:
        """The largest good head, else the largest signed one, of at most ``most`` leaves."""
        good = self.good()
        if good is not None and (most is None or good.size <= most):
            return good
        heads = [
            Head(size, root)
            for (_, size), (root, _) in self._member.state.signatures.items()
            if most is None or size <= most
        ]
        return max(heads, default=None)

    def note(self, head: Head) -> str:
        """The note over ``head`` with every stored signature that is good; "" when none is."""
        member = self._member
        found = {}
        checkpoint = Checkpoint(member.log_origin, head.size, head.root)
        for (who, size), (root, signature) in member.state.signatures.items():
            if Head(size, root) == head:
                public = key_of(member.log_public_keys(who), checkpoint, signature)
                if public is not None:
                    found[public] = signature
        return merge(checkpoint, found) if found else ""

    # --- signing ---------------------------------------------------------------------------------

    def _may_sign(self) -> bool:
        member = self._member
        return (
            bool(member.lead)
            and member.self_id in member.state.members.by_id
            and member.log_public_key(member.self_id) is not None
        )

    def _due(self, now: float) -> bool:
        member = self._member
        news = member.state.recorder.frontier.size - self._last.size
        if news <= 0:
            self._news_since, self._forced = None, False
            return False
        if self._forced:
            return True
        if not member.is_leader:
            return False
        if self._news_since is None:
            self._news_since = now
        if news >= CHECKPOINT_LEAVES and now - self._signed_at >= CHECKPOINT_GAP_S:
            return True
        return now - self._news_since >= CHECKPOINT_INTERVAL_S

    def _got_lost(self, now: float) -> bool:
        """Whether the newest head is signed here and the cluster does not have it.

        Without it, a majority under that head would have to wait for the next leaf.
        """
        member, last = self._member, self._last
        frontier = member.state.recorder.frontier
        return (
            last.size == frontier.size > 0
            and (member.self_id, last.size) not in member.state.signatures
            and now - self._sent_at >= CHECKPOINT_INTERVAL_S
            and last.root == frontier.root()
        )

    def _foreign(self) -> _Asked | None:
        """The largest head of another member that was not compared yet."""
        member = self._member
        held = member.state.signatures
        self._compared &= held.keys()
        new = [k for k in held if k[0] != member.self_id and k not in self._compared]
        if not new:
            return None
        who, size = max(new, key=lambda key: (key[1], key[0]))
        return _Asked(Head(size, held[who, size][0]), who)

    def _begin(self, asked: _Asked) -> None:
        """Look the head up in SQL, once SQL holds what is applied now."""
        member = self._member
        if asked.signer:
            self._compared.add((asked.signer, asked.head.size))
            signature = member.state.signatures[asked.signer, asked.head.size][1]
            checkpoint = Checkpoint(member.log_origin, *asked.head)
            keys = member.log_public_keys(asked.signer)
            if key_of(keys, checkpoint, signature) is None:
                # Without a key left it proves nothing, and nobody is to blame.
                what = "a signature is wrong" if keys else "a signature of a withdrawn key"
                tell = member.report.warn if keys else member.report.info
                tell("audit", what, peer=f"{asked.signer:016x}", size=asked.head.size)
                return
        else:
            self._forced, self._news_since = False, None
            self._signed_at = member.clock.monotonic()
        self._busy = True
        last = self._last
        try:
            member.gate.run(
                member.applied,
                lambda: self._look(asked.head, last),
                lambda result: self._looked(asked, result),
            )
        except ConfigServiceError:
            self._busy = False  # too many questions at once: its turn comes again
            self._compared.discard((asked.signer, asked.head.size))
            self._forced = self._forced or not asked.signer

    def _look(self, head: Head, last: Head) -> _Looked:
        """On a reader thread: what SQL says of the head; stores it when it may be signed."""
        with self._member.reader.tree() as read:
            root = root_at(head.size, read)
            extends = head.size < last.size or root_at(last.size, read) == last.root
        stored = root == head.root and extends and head.size > last.size
        if stored:
            store_last(self._path, Checkpoint(self._member.log_origin, *head))
        return _Looked(root, extends, stored)

    def _looked(self, asked: _Asked, result: _Looked | ConfigServiceError) -> None:
        self._busy = False
        if isinstance(result, ConfigServiceError):
            self._member.report.error("audit", "a head cannot be looked up", reason=str(result))
            return
        if not result.extends:
            self._corrupt("the tree does not hold the head signed before", asked, result.root)
        elif result.root != asked.head.root:
            self._corrupt("roots differ", asked, result.root)
        elif result.stored:
            self._last = asked.head
            self._send(asked.head)

    def _send(self, head: Head) -> None:
        member = self._member
        self._sent_at = member.clock.monotonic()
        signature = member.sign_checkpoint(Checkpoint(member.log_origin, *head))
        op = checkpoint_signature_op(member.self_id, head.size, head.root, signature)

        def done(result: bytes | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                # Lost on its way: the next head carries the same leaves, or it is sent again.
                member.report.debug("audit", "a signature got lost", reason=str(result))

        try:
            member.proposals.submit(
                codec.SYSTEM_ACTOR, codec.OP_CHECKPOINT_SIGNATURE, op, applied, urgent=True
            ).bind(done)
        except ConfigServiceError as error:
            done(error)

    # --- disagreement ----------------------------------------------------------------------------

    def _corrupt(self, what: str, asked: _Asked, own_root: bytes) -> None:
        member = self._member
        size = asked.head.size
        member.report.error("audit", what, size=size, peer=f"{asked.signer:016x}")
        whose = f"member {asked.signer:016x} signed" if asked.signer else "applied here"
        heads = {
            "in SQL here": Head(size, own_root),
            whose: asked.head,
            "signed last": self._last,
        }
        try:
            keep_evidence(self._path.parent, member.log_origin, what, size, heads)
        except OSError as error:  # whatever the disk does: the alarm matters more
            reason = error.strerror or type(error).__name__
            member.report.error("audit", "evidence cannot be kept", reason=reason)
        about = Resource(size=size, digest=own_root, target_member=asked.signer or None)
        member.audit.note("internal", code="DATA_LOSS", detail=what, resource=about)
        self._raise_alarm()
        if asked.signer and what == "roots differ" and not self._outvoted(asked.head, own_root):
            return  # the others know better only if they are more
        self.problem = what
        fatal = FatalError(
            ExitCode.DIVERGED,
            f"audit tree at size {size}: {what}",
            "replace this member; keep its directory, local/evidence-* says what differs",
        )
        member.loop.call_later(ALARM_SENT_S, member.die, fatal)

    def _raise_alarm(self) -> None:
        self._alarm_due = True
        with contextlib.suppress(ConfigServiceError):
            self._member.raise_alarm(ALARM_CORRUPT)
            self._alarm_due = False

    def _outvoted(self, head: Head, own_root: bytes) -> bool:
        member = self._member
        voters = member.machine.conf_state.voters
        against = [
            who
            for (who, size), (root, _) in member.state.signatures.items()
            if size == head.size and root == head.root and root != own_root and who in voters
        ]
        return 2 * len(against) > len(voters)


def key_of(keys: Iterable[bytes], checkpoint: Checkpoint, signature: bytes) -> bytes | None:
    """The first of these public keys that made the signature; None: no one did."""
    text = encode_checkpoint(checkpoint).encode()
    for public in keys:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
        except (InvalidSignature, ValueError):
            continue
        return public
    return None
