"""One set's life: feed, plan, pipeline and drift scan, tied together on the event loop.

Errors stay in their set (E9): whatever a step meets becomes an outcome. A slow command here
delays no other set (E6), because each runner is a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Final

from configagent.authors import Authors
from configagent.errors import StepError
from configagent.feed import Feed
from configagent.inputs import InputsError, InputsKeeper, NoInputsError, load_inputs
from configagent.log import Log
from configagent.pipeline import Pipeline, WriterDoor
from configagent.plan import DRIFT_OUTCOMES, Plan, Result, Step
from configagent.records import generation_numbers
from configagent.render import Renderer
from configagent.seal import NodeKey
from configagent.settings import Limits
from configagent.snapshot import Snapshot
from configsvc.errors import ensure

HINT_S: Final = 0.1  # after the last file event, before the scan
_GOOD: Final = frozenset({Result.COMMITTED, Result.CONVERGED, Result.UNCHANGED, Result.QUARANTINED})


def plan_of(pipeline: Pipeline, now: float) -> Plan:
    """A plan that goes on where the record stands."""
    spec, record = pipeline.spec, pipeline.record
    plan = Plan(spec.settle_min_s, spec.settle_max_s, spec.drift_interval_s)
    plan.to_notify = bool(record.to_notify)
    plan.has_good = bool(record.good) and record.good != record.generation
    plan.remember(record.outcome, record.reason, now, undoing=record.cause == "rollback")
    return plan


class SetRunner:
    """Runs one set until cancelled."""

    def __init__(
        self,
        pipeline: Pipeline,
        renderer: Renderer,
        writer: WriterDoor,
        log: Log,
        bounds: Limits,
        on_report: Callable[[], None],
        *,
        state_dir: str,
        key: NodeKey,
    ) -> None:
        self.pipeline = pipeline
        self.keeper: InputsKeeper | None = None
        self._inputs_on_disk = pipeline.record.inputs
        self.cache = ""  # what became of the stored inputs while the store is away
        self._key = key
        self.authors: Authors | None = None
        self._state_dir = state_dir
        self._lookup: asyncio.Task[None] | None = None
        self.feed: Feed | None = None
        self.deviations: list[dict[str, str]] = []
        self.decided = asyncio.Event()  # a first decision was made with the set's data
        self.ready = asyncio.Event()  # that, or the store is away and what is here stays
        self.step_name = ""
        self.step_s = dict.fromkeys(Step, 0.0)  # how long the last one of each kind took
        self.plan = plan_of(pipeline, time.monotonic())
        self.counts = dict.fromkeys(("apply", "rollback", "repair"), 0)  # committed, by step
        self._renderer = renderer
        self._writer = writer
        self._log = log
        self._bounds = bounds
        self._on_report = on_report
        self._wake = asyncio.Event()
        self._hinted = asyncio.Event()

    @property
    def name(self) -> str:
        """The set's name."""
        return self.pipeline.spec.name

    # --- events -----------------------------------------------------------------------------------

    def data_changed(self, changed: set[str]) -> None:
        """The feed's snapshot changed."""
        self.pipeline.seen_at = time.monotonic()
        if self.keeper is not None and self.feed is not None and not self.feed.from_cache:
            self.cache = ""
            self.keeper.changed()
        first = not self.decided.is_set()
        concerned = self._renderer.concerned(changed)
        self._renderer.note(changed)
        if first or concerned:
            self.plan.data_changed(time.monotonic())
            self._wake.set()
        else:
            self._follow_revision()

    def _follow_revision(self) -> None:
        """Nothing that was read changed: the applied state is that of the new revision too."""
        snapshot = self.feed.snapshot if self.feed else None
        if snapshot is not None and self.plan.outcome == "converged":
            self.pipeline.record.target_revision = snapshot.revision
            self._on_report()

    def store_away(self, state: str) -> None:
        """The store gave no snapshot: what was stored here decides, or nothing changes (G1)."""
        if state == "offline" and self.feed is not None:
            try:
                stored = load_inputs(
                    self._state_dir, self._key, self.pipeline.spec, self.pipeline.record
                )
                self.cache = f"revision {stored.snapshot.revision}, stored here"
                self._log.event("cache_used", set=self.name, revision=stored.snapshot.revision)
                self.feed.offer(stored.snapshot)
                return
            except NoInputsError:
                self.cache = "nothing is stored here"
            except InputsError as error:
                self.cache = f"not used: {error}"
                self._log.event("cache_refused", level="warning", set=self.name, why=str(error))
        self.ready.set()

    def keep_inputs(self) -> InputsKeeper:
        """Store the set's inputs from now on; whoever asks runs the keeper."""
        self.keeper = InputsKeeper(
            self._state_dir, self._key, self.pipeline.spec,
            number=self.pipeline.record.inputs, current=self._inputs, on_kept=self._inputs_kept,
            on_failed=lambda why: self._log.event(
                "inputs_not_stored", level="warning", set=self.name, why=why
            ),
        )  # fmt: skip
        return self.keeper

    def _inputs(self) -> tuple[int, Snapshot] | None:
        feed = self.feed
        if feed is None or feed.snapshot is None or feed.from_cache:
            return None
        too_large = feed.snapshot.too_large(self._bounds)
        return None if too_large else (feed.cluster_id, feed.snapshot)

    async def _inputs_kept(self) -> None:
        """The record must know the new number; a step that is busy saves it when it ends."""
        if not self._is_busy():
            await self._remember(durable=False)

    async def close(self) -> None:
        """After the last step: the record must know the last number, or an older file passes.

        Where a step was left half-way the writer may know more than we do: nothing is saved then.
        """
        if self._has_new_inputs() and not self._is_busy():
            await self._remember(durable=True)

    def _has_new_inputs(self) -> bool:
        """Whether inputs were stored whose number no record on disk has."""
        return self.keeper is not None and self.keeper.number > self._inputs_on_disk

    def hint(self) -> None:
        """A file event came."""
        self._hinted.set()

    def retry(self) -> None:
        """A person wants it tried again."""
        self.pipeline.record.quarantine = None
        self._renderer.forget()
        self.plan.retry(time.monotonic())
        self._wake.set()

    def retemplate(self) -> None:
        """Local templates may have changed; the renderer compares them."""
        self.plan.data_changed(time.monotonic())
        self._wake.set()

    def approve(self) -> bool:
        """A person lets the held output through; False: nothing is held."""
        held = self.pipeline.held_root
        if not held:
            return False
        self.pipeline.record.approved = held
        self.plan.retry(time.monotonic())
        self._wake.set()
        return True

    def roll_back(self, to: int) -> bool:
        """A person wants an older generation back; 0: the last good one before this."""
        record, stored = self.pipeline.record, self._stored()
        earlier = [n for n in record.goods if n in stored and n != record.generation]
        target = to or (earlier[-1] if earlier else 0)
        if target not in stored or self.plan.busy is not None:
            return False
        self.pipeline.rollback_to = target
        self.plan.roll_back(time.monotonic())
        self._wake.set()
        return True

    def _stored(self) -> list[int]:
        return generation_numbers(self._state_dir, self.name)

    # --- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Recover, then do what the plan says, for ever."""
        self.plan.busy = None  # after a bug
        await self.recover()
        number = self.pipeline.record.generation
        if number and self.authors is not None and not self.authors.known(self.name, number):
            self._look_up()  # the agent was stopped, or the store away, after that commit
        scans = asyncio.create_task(self._scans())
        try:
            while True:
                await self.turn()
        finally:
            tasks = [scans] if self._lookup is None else [scans, self._lookup]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def recover(self) -> None:
        """Make the set whole before anything else."""
        before = self.pipeline.record.generation
        try:
            answer = await self.pipeline.recover()
            if answer["rolled_forward"] or answer["swept"]:
                self._log.event("recovered", set=self.name, **answer)
        except StepError as error:
            self._log.event("recover_failed", level="error", set=self.name, why=str(error))
        ensure(self.pipeline.record.generation >= before, "a generation number never goes back")
        self.plan = plan_of(self.pipeline, time.monotonic())
        if self.feed is not None and self.feed.snapshot is not None:
            self.plan.data_changed(time.monotonic())  # it came while we were busy here

    async def turn(self) -> None:
        """Carry out the next step, or wait for the next event."""
        now = time.monotonic()
        step = self.plan.next(now)
        if step is not None:
            await self._do(step)
            return
        if not self.plan.undecided:
            self.decided.set()
            self.ready.set()
        self._wake.clear()
        wake_at = self.plan.wake_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - now)):
                await self._wake.wait()

    async def _do(self, step: Step) -> None:
        snapshot = self.feed.snapshot if self.feed else None
        bounds = snapshot.too_large(self._bounds) if snapshot else ""
        self.step_name = step.value
        began = time.monotonic()
        before = self.plan.outcome
        if step in (Step.APPLY, Step.NOTIFY) and before in DRIFT_OUTCOMES:
            self.deviations = []
        result = await self.pipeline.carry_out(
            step, snapshot, bounds=bounds, restart=self.plan.restart
        )
        self.step_name = ""
        self.step_s[step] = time.monotonic() - began
        self._finished(step, result)
        if step is Step.APPLY:
            self.plan.undecided = False
        news = result is not Result.UNCHANGED or self.plan.outcome != before
        if news or self._has_new_inputs():
            await self._remember(durable=True)
        self._on_report()

    def _finished(self, step: Step, result: Result) -> None:
        now = time.monotonic()
        record, plan = self.pipeline.record, self.plan
        if result is Result.COMMITTED:
            self.deviations = []
            self.counts[step.value] += 1
            self._look_up()
            if self.pipeline.left:
                self._log.event("files_left", set=self.name, **self.pipeline.left)
                self.pipeline.left = {}
        if record.to_notify and not plan.to_notify and result is not Result.COMMITTED:
            plan.to_notify = True
        notify_at = self.pipeline.notify_at(now) if result is Result.COMMITTED else None
        plan.done(
            result, now, random.random(), reason=self.pipeline.reason, notify_at=notify_at  # noqa: S311
        )  # fmt: skip
        if result in _GOOD and record.generation and not record.to_notify:
            self._mark_good()
        plan.has_good = bool(record.good) and record.good != record.generation
        level = "info" if result in (Result.COMMITTED, Result.CONVERGED) else "warning"
        if result is not Result.UNCHANGED:
            self._log.event(
                "step", level=level, set=self.name, step=step.value, result=result.value,
                outcome=plan.outcome, generation=record.generation,
                revision=record.content_revision, reason=plan.reason, lag_ms=record.lag_ms,
                cause=record.cause,
            )  # fmt: skip

    def _look_up(self) -> None:
        """Find out who is behind the new generation, beside everything else."""
        if self.authors is not None:
            if self._lookup is not None:
                self._lookup.cancel()
            number = self.pipeline.record.generation
            self._lookup = asyncio.create_task(self.authors.fill(self.pipeline.spec, number))

    async def looked_up(self, seconds: float) -> None:
        """Wait for the authors of the present generation, for so long at most."""
        if self._lookup is not None:
            await asyncio.wait({self._lookup}, timeout=seconds)

    def _mark_good(self) -> None:
        record = self.pipeline.record
        record.good = record.generation
        if record.good and record.good not in record.goods:
            stored = self._stored()
            record.goods = [n for n in record.goods if n in stored] + [record.good]

    async def _remember(self, *, durable: bool) -> None:
        record, plan = self.pipeline.record, self.plan
        if record.outcome != plan.outcome:
            record.changed_ns = time.time_ns()
        record.outcome, record.reason = plan.outcome, plan.reason
        record.attempts = plan.attempts
        if self.keeper is not None:
            record.inputs = max(record.inputs, self.keeper.number)
        try:
            # Shielded: a cancelled exchange would cost the writer its life.
            await asyncio.shield(
                self._writer.ask("save", set=self.name, record=record.as_dict(), durable=durable)
            )
            self._inputs_on_disk = record.inputs
        except StepError as error:
            self._log.event("record_not_saved", level="error", set=self.name, why=str(error))

    # --- drift ------------------------------------------------------------------------------------

    async def _scans(self) -> None:
        spec = self.pipeline.spec
        while spec.drift_policy != "ignore":
            wait = spec.drift_interval_s * (0.8 + 0.4 * random.random())  # noqa: S311  # jitter
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._hinted.wait()
                    await asyncio.sleep(HINT_S)
            self._hinted.clear()
            await self.scan()

    async def scan(self) -> None:
        """Compare the disk with the record, once."""
        generation = self.pipeline.record.generation
        if not generation or self._is_busy():
            return
        try:
            found = (await self._writer.ask("scan", set=self.name))["found"]
        except StepError as error:
            self._log.event("scan_failed", level="warning", set=self.name, why=str(error))
            return
        if self._is_busy() or generation != self.pipeline.record.generation:
            return  # a commit went on meanwhile
        repair = self.pipeline.spec.drift_policy == "repair"
        if repair and found and not any(one["name"] for one in found):
            await self._repair_links(found)
            return
        self.deviations = found
        before = self.plan.outcome
        if found:
            reason = "; ".join(f"{one['path']}: {one['what']}" for one in found[:5])
            self.plan.drifted(time.monotonic(), reason, repair=repair)
        else:
            self.plan.undrifted()
        if self.plan.outcome != before:
            self._log.event(
                "drift", set=self.name, outcome=self.plan.outcome, reason=self.plan.reason
            )
            await self._remember(durable=False)
            self._on_report()
        self._wake.set()

    def _is_busy(self) -> bool:
        return self.plan.busy is not None

    async def _repair_links(self, found: list[dict[str, str]]) -> None:
        """Links hold no content: making them again needs no check and no notification."""
        try:
            await self._writer.ask("links", set=self.name)
            self._log.event("links_repaired", set=self.name, paths=[one["path"] for one in found])
        except StepError as error:
            self.deviations = found
            self.plan.drifted(time.monotonic(), str(error), repair=False)
            self._on_report()
