"""One migration from beginning to end: look, copy, leases, users, follow; and what is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from configsvc.cli.exits import CliError, Exit, line_of
from configsvc.cli.migrate_copy import Copy, Plan, Verdict
from configsvc.cli.migrate_ends import EVERYTHING, Ends, Span
from configsvc.cli.migrate_follow import Follower
from configsvc.cli.migrate_leases import LeaseBook
from configsvc.cli.migrate_progress import Progress
from configsvc.cli.migrate_rights import Carried, RightsCopy
from configsvc.cli.migrate_state import State, StateFile
from configsvc.cli.migrate_write import Writer
from configsvc.cli.output import escape
from configsvc.client import OutcomeUnknownError, UnavailableError, operations
from configsvc.errors import CompactedError

if TYPE_CHECKING:
    from configsvc.cli.session import Session

_BEHIND_EVERY_S: Final = 2.0
_PAUSE_S: Final = 1.0  # before following goes on after an end was away


class Migration:
    """Between two clusters, for some spans."""

    def __init__(self, session: Session, ends: Ends, spans: list[Span], file: StateFile) -> None:
        self._session = session
        self._args = session.args
        self._ends = ends
        self._spans = spans
        self._file = file
        self._leases = LeaseBook(ends, spans, following=session.args.follow)
        self._writer = Writer(
            ends.target, self._leases, session.why, overwrite=session.args.overwrite
        )

    def _state(self) -> State:
        args = self._args
        source, target = self._ends.source.cluster, self._ends.target.cluster
        if args.restart:
            return State(f"{source:x}", f"{target:x}", sorted(args.prefix))
        state = self._file.load(source, target, args.prefix)
        if state.revision > self._ends.source.revision:
            lost = "source"
        elif state.target_revision > self._ends.target.revision:
            lost = "target"
        else:
            return state
        # Made anew, or out of a backup: ids are derived, so they may be the same.
        self._session.warn(f"the {lost} is not where it was left: beginning anew")
        return State(state.source, state.target, state.prefixes)

    def _save(self, state: State) -> None:
        state.target_revision = max(state.target_revision, self._writer.revision)
        self._file.save(state)

    def look(self) -> tuple[Plan, RightsCopy | None]:
        """What a run from the beginning would find; writes nothing, not even the state."""
        source, target = self._ends.source.cluster, self._ends.target.cluster
        state = State(f"{source:x}", f"{target:x}", sorted(self._args.prefix))
        copy = Copy(self._ends, self._spans, state, lambda _: None)
        copy.begin()
        return copy.look(Progress()), self._rights()

    def _rights(self) -> RightsCopy | None:
        if self._args.skip_users:
            return None
        return RightsCopy(self._ends, self._session.why, overwrite=self._args.overwrite)

    def check(self, plan: Plan, rights: RightsCopy | None) -> None:
        """Raise when something is in the way of this plan."""
        plan.check(overwrite=self._args.overwrite)
        if rights is not None:
            rights.check()

    def run(self) -> int:
        """Everything; returns the exit code."""
        state = self._state()
        if state.copied and not self._args.follow:
            state.revision = 0  # done once: bring it up to date from the beginning
        if not state.copied or not state.revision:
            self._copy(state)
        elif self._args.follow:
            self._session.warn(f"going on at revision {state.revision} of the source")
        return self._follow(state) if self._args.follow else Exit.OK

    def _copy(self, state: State) -> None:
        while True:
            try:
                self._copy_once(state)
                return
            except CompactedError:
                self._session.warn("the source was compacted meanwhile: beginning again")

    def _copy_once(self, state: State) -> None:
        copy = Copy(self._ends, self._spans, state, self._save)
        copy.begin()
        if state.last_key:
            self._session.warn(f"going on behind {escape(state.last_key)}")
        found = copy.look(Progress())
        rights = self._rights()
        self.check(found, rights)
        done = copy.write(
            self._writer, self._leases, Progress(), total=found.seen, prune=self._args.prune
        )
        if self._spans == [EVERYTHING]:
            for lease in self._ends.source.client.do(operations.lease_list()).leases:
                self._leases.carry(lease.ID)
        self._tell(state, done, rights.run() if rights is not None else None)

    def _tell(self, state: State, plan: Plan, carried: Carried | None) -> None:
        out = self._session.out
        people = carried or Carried([], [], [])
        if out.as_json:
            out.json(
                {
                    "ok": not people.refused,
                    "revision": state.revision,
                    "written": self._writer.written,
                    "keys": {verdict.value: count for verdict, count in plan.counts.items()},
                    "leases": len(self._leases),
                    "roles": people.roles,
                    "users_without_password": people.users,
                    "refused": people.refused,
                }
            )
        else:
            out.line(
                f"as of revision {state.revision}: {self._writer.written:,} keys written, "
                f"{plan.counts[Verdict.SAME]:,} were right already, {len(self._leases)} leases, "
                f"{len(people.roles)} roles, {len(people.users)} users"
            )
            if people.users:
                out.line("new users have no password yet; each needs one, or a certificate:")
            for user in people.users:
                out.line(f"  {escape(user)}")
        out.flush()
        if plan.counts[Verdict.EXTRA] and not self._args.prune:
            self._session.warn(
                f"{plan.counts[Verdict.EXTRA]:,} keys are in the target only: left alone (--prune)"
            )
        if people.refused:
            raise CliError(Exit.CONFLICT, "the target refused: " + "; ".join(people.refused))

    def _follow(self, state: State) -> int:
        """Until a signal: that is the normal end, exit 0 once it has begun."""
        events = 0
        try:
            while True:
                follower = Follower(
                    self._ends, self._spans, state, self._writer, self._leases, self._save
                )
                try:
                    self._leases.adopt()
                    self._session.warn(f"following from revision {state.revision}")
                    follower.run(_Telling(follower, state).step, self._session.warn)
                    raise CliError(Exit.UNAVAILABLE, "the watch ended: start this again")
                except CompactedError:
                    self._session.warn("the source compacted what was missed: copying again")
                    self._copy(state)
                except (UnavailableError, OutcomeUnknownError) as error:
                    self._session.warn(f"trying again: {line_of(error)}")
                    time.sleep(_PAUSE_S)
                finally:
                    events += follower.applied
        except KeyboardInterrupt:
            self._session.out.done(
                f"stopped at revision {state.revision}: start this again to go on",
                revision=state.revision,
                events=events,
            )
            return Exit.OK


class _Telling:
    """Now and then, how far behind the following is."""

    def __init__(self, follower: Follower, state: State) -> None:
        self._follower = follower
        self._state = state
        self._progress = Progress()
        self._asked = 0.0
        self._behind = 0

    def step(self) -> None:
        self._progress.step(self._line)

    def _line(self, _: float) -> str:
        now = time.monotonic()
        if now - self._asked > _BEHIND_EVERY_S:
            self._asked, self._behind = now, self._follower.behind()
        return (
            f"at revision {self._state.revision}, {self._behind} behind, "
            f"{self._follower.applied:,} events applied"
        )
