"""Carries out the steps that a ``Plan`` asks for, for one set (agent.md 4.2).

``prepare`` is shared by the daemon, ``apply --once`` and ``plan``: what is shown is what would be
written (M6). Everything left of the commit leaves no trace that a service could see.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

from configagent import commands
from configagent.child import Child, ChildLostError
from configagent.commits import Item
from configagent.errors import (
    CheckError,
    HealthError,
    HeldError,
    NotifyError,
    RefusedError,
    RenderError,
    StepError,
    WorkerError,
    WriteError,
)
from configagent.guard import check_guard
from configagent.plan import Result, Step
from configagent.records import Record, load_record, read_generation
from configagent.render import Output, Rendered, Renderer
from configagent.seal import NodeKey
from configagent.services import Services
from configagent.settings import SetSpec
from configagent.sidecar import file_facts, make_sidecar
from configagent.snapshot import Snapshot, redact
from configagent.trial import check_error
from configagent.writer import items_root, make_item
from configsvc import limits

WRITER_S: Final = 60.0  # a disk that takes longer is broken
_RESULTS: Final[dict[type[StepError], Result]] = {
    WorkerError: Result.WORKER_FAILED,
    RenderError: Result.RENDER_FAILED,
    HeldError: Result.HELD,
    RefusedError: Result.REFUSED,
    WriteError: Result.WRITE_FAILED,
    CheckError: Result.CHECK_FAILED,
    HealthError: Result.UNHEALTHY,
    NotifyError: Result.RELOAD_FAILED,
}


class Prepared(NamedTuple):
    """What a set would become."""

    rendered: Rendered
    items: tuple[Item, ...]
    root: str


def result_of(error: StepError) -> Result:
    """The plan's word for a failed step."""
    return _RESULTS[type(error)]


class WriterDoor:
    """The writer process, with its answers turned into outcomes."""

    def __init__(self, child: Child) -> None:
        self._child = child

    async def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """One step of the writer.

        Raises:
            StepError: it failed, or the writer was lost.
        """
        try:
            answer = await self._child.call({"op": op, **request}, WRITER_S)
        except ChildLostError as error:
            raise WriteError(f"the writer {error}") from None
        if "error" in answer:
            kind = RefusedError if answer["kind"] == RefusedError.outcome else WriteError
            raise kind(answer["error"], answer["path"])
        return answer


class Pipeline:
    """One set's steps. ``record`` is the truth about the node, also on disk."""

    def __init__(
        self,
        spec: SetSpec,
        record: Record,
        *,
        node: str,
        state_dir: str,
        key: NodeKey,
        renderer: Renderer,
        writer: WriterDoor,
        services: Services,
    ) -> None:
        self.spec = spec
        self.record = record
        self.reason = ""
        self.failed_path = ""
        self.seen_at = time.monotonic()  # when the change being applied was seen
        self.held_root = ""
        self.cluster = ""
        self.left: dict[str, Any] = {}  # files that left with the last commit: removed, kept
        self.rollback_to = 0  # a generation that a person chose; 0: the last good one
        self._node = node
        self._state_dir = state_dir
        self._key = key
        self._renderer = renderer
        self._writer = writer
        self._services = services
        self._took: dict[str, int] = {}  # of the attempt that is under way
        self._began = time.monotonic()
        self._made: dict[str, tuple[Output, Item]] = {}  # by file; an output kept is an item kept
        self._facts: dict[str, tuple[Item, dict[str, Any]]] = {}

    # --- looking ----------------------------------------------------------------------------------

    async def prepare(self, snapshot: Snapshot, *, bounds: str) -> Prepared:
        """Read, render, guard.

        Raises:
            RenderError: see ``Renderer.render``.
            HeldError: ``bounds`` names a bound of the set that is broken, or a guard is.
        """
        if bounds:
            raise HeldError(f"the set is too large: {bounds}")
        with self._timed("render"):
            rendered = await self._renderer.render(snapshot)
            items = tuple(self._item(output) for output in rendered.outputs)
            root = items_root(list(items))
            if root != self.record.root and root != self.record.approved:
                self._guard(rendered.outputs, root)
        return Prepared(rendered, items, root)

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            spent = round((time.monotonic() - began) * 1e6)
            self._took[part] = self._took.get(part, 0) + spent

    def _item(self, output: Output) -> Item:
        file = output.spec
        made = self._made.get(file.name)
        if made is not None and made[0] is output:
            return made[1]
        owner = (file.uid, file.gid)
        key = self._key.digest_key
        item = make_item(key, file.name, output.content, file.mode, owner, file.link)
        self._made[file.name] = (output, item)
        return item

    def _file_facts(self, item: Item, origin: dict[str, Any]) -> dict[str, Any]:
        known = self._facts.get(item.name)
        if known is not None and known[0] is item:
            return known[1]
        facts = file_facts(item, origin, self.spec, self._key.digest_key)
        self._facts[item.name] = (item, facts)
        return facts

    def _guard(self, outputs: tuple[Output, ...], root: str) -> None:
        sizes = {facts["name"]: facts.get("size") for facts in self.record.files}
        try:
            for output in outputs:
                check_guard(
                    output.spec.guard,
                    output.spec.name,
                    len(output.content),
                    output.found,
                    sizes.get(output.spec.name),
                    blank=not output.content.strip(),
                )
        except HeldError:
            self.held_root = root
            raise

    # --- steps ------------------------------------------------------------------------------------

    async def carry_out(
        self, step: Step, snapshot: Snapshot | None, *, bounds: str, restart: bool
    ) -> Result:
        """One step of the plan; ``reason`` says why it failed."""
        if step is not Step.NOTIFY:
            self._took, self._began = {}, time.monotonic()
        elif not self._took:  # the agent was started between the commit and this
            self._took = {part: us for part, us in self.record.took.items() if part != "total"}
            self._began = time.monotonic() - sum(self._took.values()) / 1e6
        result = await self._carry_out(step, snapshot, bounds=bounds, restart=restart)
        if result not in (Result.UNCHANGED, Result.QUARANTINED):
            total = round((time.monotonic() - self._began) * 1e6)
            self.record.took = self._took | {"total": total}
        return result

    async def _carry_out(
        self, step: Step, snapshot: Snapshot | None, *, bounds: str, restart: bool
    ) -> Result:
        self.reason = self.failed_path = ""
        try:
            if self.record.swap is not None:
                await self.recover()
            if step is Step.APPLY:
                return await self._apply(snapshot, bounds)
            if step is Step.NOTIFY:
                return await self._notify(snapshot, restart=restart)
            if step is Step.ROLLBACK:
                chosen, self.rollback_to = self.rollback_to, 0
                return await self._put_back(chosen or self.record.good, "rollback", snapshot)
            return await self._put_back(self.record.generation, "corrective", snapshot)
        except StepError as error:
            self.reason = str(error)[: limits.AGENT_REASON_CHARS_MAX]
            self.failed_path = error.path
            if isinstance(error, WriteError | RefusedError):
                # The commit may have been decided all the same; the disk knows.
                self.record = load_record(self._state_dir, self.spec.name)
            return result_of(error)

    async def recover(self) -> dict[str, Any]:
        """Roll an unfinished commit forward, remove strays, read the record again.

        Raises:
            StepError: something is in the way.
        """
        spec = self.spec
        destinations = [file.name for file in spec.files] if spec.commit == "files" else []
        answer = await self._writer.ask(
            "recover", set=spec.name, commit=spec.commit, dir=spec.dir, destinations=destinations
        )
        self.record = load_record(self._state_dir, spec.name)
        return answer

    async def _apply(self, snapshot: Snapshot | None, bounds: str) -> Result:
        if snapshot is None:
            return Result.UNCHANGED
        prepared = await self.prepare(snapshot, bounds=bounds)
        rendered, record = prepared.rendered, self.record
        self.held_root = ""
        same_place = record.where == [self.spec.commit, self.spec.dir]
        if record.generation and prepared.root == record.root and same_place:
            record.target_revision = rendered.target_revision
            record.content_revision = rendered.content_revision
            return Result.UNCHANGED
        if record.quarantine == self._quarantine(prepared.root, rendered.content_revision):
            record.target_revision = rendered.target_revision
            self.reason = record.reason
            return Result.QUARANTINED
        await self._commit(
            list(prepared.items),
            {output.spec.name: output for output in rendered.outputs},
            rendered.target_revision,
            rendered.content_revision,
            "intentional",
            snapshot,
        )
        self.record.quarantine = None
        return Result.COMMITTED

    @staticmethod
    def _quarantine(root: str, revision: int) -> dict[str, Any]:
        return {"root": root, "content_revision": revision}

    async def _put_back(self, number: int, cause: str, snapshot: Snapshot | None) -> Result:
        """An older generation's content as a new generation."""
        record = self.record
        try:
            sidecar, sealed = read_generation(self._state_dir, self.spec.name, number)
            contents = self._key.open(self.spec.name, number, sealed)
        except (OSError, ValueError) as error:
            self.reason = f"generation {number} cannot be read: {error}"
            return Result.ROLLBACK_IMPOSSIBLE if cause == "rollback" else Result.WRITE_FAILED
        key = self._key.digest_key
        items = [
            make_item(key, f["name"], contents[f["name"]], f["mode_bits"],
                      (f["uid"], f["gid"]), f["link"])
            for f in sidecar["files"]
        ]  # fmt: skip
        if cause == "corrective":
            await self._keep_copies()
        bad = self._quarantine(record.root, record.content_revision)
        await self._commit(
            items, sidecar, sidecar["target_revision"], sidecar["content_revision"], cause, snapshot
        )
        if cause == "rollback":
            self.record.quarantine = bad
        return Result.COMMITTED

    async def _keep_copies(self) -> None:
        for found in (await self._writer.ask("scan", set=self.spec.name))["found"]:
            if found["name"]:
                try:
                    await self._writer.ask("copy", set=self.spec.name, path=found["path"])
                except StepError:
                    continue  # a copy for people; the repair matters more

    # --- commit -----------------------------------------------------------------------------------

    async def _commit(
        self,
        items: list[Item],
        origin: dict[str, Any],
        target_revision: int,
        content_revision: int,
        cause: str,
        snapshot: Snapshot | None,
    ) -> None:
        """Stage, check, commit. ``origin`` is an older sidecar, or rendered outputs by name."""
        spec, number = self.spec, self.record.last_generation + 1
        record = replace(
            self.record,
            generation=number,
            last_generation=number,
            root=items_root(items),
            target_revision=target_revision,
            content_revision=content_revision,
            to_notify=[service.name for service in spec.services],
            approved="",
            cause=cause,
            outcome="pending",
        )
        facts = [self._file_facts(item, origin) for item in items]
        sidecar = make_sidecar(record, facts, self._node, self.cluster, self.record.good)
        packed = json.dumps(sidecar, ensure_ascii=True).encode()
        contents = {item.name: item.content for item in items}
        sealed = self._key.seal(spec.name, number, contents)
        common: dict[str, Any] = {
            "set": spec.name, "generation": number, "commit": spec.commit, "dir": spec.dir,
            "sidecar": packed, "sealed": sealed, "keep": spec.keep_generations,
        }  # fmt: skip
        stage = common | {
            "items": [tuple(item) for item in items],
            "tree": spec.check is not None and spec.commit == "files",
        }
        if spec.check is None:
            stage["record"] = record.as_dict()
        with self._timed("commit"):
            places = await self._writer.ask("stage", **stage)
        if spec.check is not None:
            with self._timed("check"):
                await self._check(places, snapshot)
            with self._timed("commit"):
                await self._writer.ask("commit", **common, record=record.as_dict())
        if cause == "intentional":
            record.lag_ms = round((time.monotonic() - self.seen_at) * 1000)
        old, self.record = self.record, record
        record.files = [item.facts() for item in items]
        record.where = [spec.commit, spec.dir]
        await self._drop_left_files(old)

    async def _drop_left_files(self, old: Record) -> None:
        """Files that left the configuration go while they are as we wrote them (B7)."""
        names = {facts["name"] for facts in self.record.files}
        gone = [facts for facts in old.files if facts["name"] not in names]
        if not gone or not old.where or old.where[0] != "files":
            return
        self.left = {"removed": [], "kept": [facts["name"] for facts in gone]}
        if self.spec.prune:
            try:
                self.left = await self._writer.ask("prune", set=self.spec.name, files=gone)
            except StepError:
                return  # said to be kept; the new generation is in place all the same

    async def _check(self, places: dict[str, Any], snapshot: Snapshot | None) -> None:
        command = self.spec.check
        if command is None:
            return
        try:
            paths = {"dir": places["dir"], "file": places["file"]}
            ran = await commands.run(command, paths)
        except BaseException:
            await asyncio.shield(self._writer.ask("abandon", set=self.spec.name))
            raise
        if not ran.ok:
            await self._writer.ask("abandon", set=self.spec.name)
            raise check_error(ran, snapshot)

    # --- notify -----------------------------------------------------------------------------------

    def notify_at(self, now: float) -> float | None:
        """When services may be told of the present generation; None: nobody has to be."""
        waiting = [s for s in self.spec.services if s.name in self.record.to_notify]
        generation = self.record.generation
        if self.record.cause == "rollback":
            return now if waiting else None  # a service that hurts waits for no splay
        return self._services.earliest(waiting, self._node, self.spec.name, generation, now)

    async def _notify(self, snapshot: Snapshot | None, *, restart: bool) -> Result:
        known = {service.name: service for service in self.spec.services}
        for name in list(self.record.to_notify):
            service = known.get(name)
            if service is not None:
                with self._timed("reload"):
                    await self._services.notify(
                        service,
                        restart=restart,
                        redact=lambda text: redact(
                            text, snapshot or Snapshot(0), limits.AGENT_REASON_CHARS_MAX
                        ),
                    )
        self.record.to_notify = []
        return Result.CONVERGED
