"""The supervisor: starts the helper processes, one runner per set, the reporter and the socket.

It ends on a signal and on nothing else: data, templates, commands and the store become outcomes.
A changed configuration is judged before anything of the old one stops (M8).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from configagent.authors import Authors
from configagent.child import Child, ChildLostError
from configagent.control import LocalServer, json_server, metrics_server
from configagent.drift import Hints
from configagent.errors import SettingsError, StepError
from configagent.feed import Feed, Link
from configagent.log import Log
from configagent.metrics import metrics_text
from configagent.notifier import Notifier
from configagent.pipeline import Pipeline, WriterDoor
from configagent.records import load_record
from configagent.render import Renderer, allowed_environment, check_version
from configagent.renewal import CertificateKeeper, finish_at_start
from configagent.report import Reporter, certificate_expiry_ns, set_report, trust_bundle_digest
from configagent.runner import SetRunner
from configagent.seal import KEY_BYTES, NodeKey, load_key
from configagent.services import Services
from configagent.settings import SetSpec, Settings
from configagent.state import NodeState, StateDir
from configsvc import __version__, limits
from configsvc.client import AsyncClient, ClientSettings, TlsFiles, parse_endpoints
from configsvc.proto import v1_pb2 as v1

CLOSE_S = 1.0  # for the records, when the agent stops


def open_client(settings: Settings) -> AsyncClient:
    """A client as this node."""
    store = settings.store
    return AsyncClient(
        ClientSettings(
            endpoints=parse_endpoints(store.endpoints),
            tls=TlsFiles(store.ca, store.cert, store.key),
        )
    )


class Agent:
    """One node. Use ``start``, then ``serve`` until cancelled, then ``stop``."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        client: Callable[[Settings], AsyncClient] = open_client,
    ) -> None:
        self.settings = settings
        self.log = log
        self.runners: dict[str, SetRunner] = {}
        self.node_state = NodeState()
        self._open_client = client
        self._state_dir = StateDir(settings.state_dir)
        self._renderer = Child("configagent.render_worker", jobs_max=limits.AGENT_RENDER_JOBS_MAX)
        self._writer_child = Child("configagent.writer")
        self._writer = WriterDoor(self._writer_child)
        self._services = Services()
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._servers: list[LocalServer] = []
        self._hints: Hints | None = None
        self._acts = False
        self._key: NodeKey | None = None
        self._client: AsyncClient | None = None
        self._reporter: Reporter | None = None
        self._background: list[asyncio.Task[None]] = []
        self._notifier = Notifier()
        self.link = Link(self._report)

    # --- start and stop ---------------------------------------------------------------------------

    async def start(self, *, act: bool = True, store: bool = True, report: bool = True) -> None:
        """Take the state directory, start helpers, recover every set.

        Args:
            act: False: only look; another agent may hold the state directory meanwhile.
            store: Follow the store; False: only what is on this node.
            report: Tell the fleet view, and listen on the local socket.

        Raises:
            SettingsError: this node is not as the configuration needs it; nothing was changed.
        """
        check_version()
        self._open_state(act)
        await self._start_helpers()
        for spec in self.settings.sets:
            self.runners[spec.name] = self._runner(spec)
        if act:
            for name in set(self.node_state.sets or ()) - self.runners.keys():
                self.log.event("set_left", set=name, why="it is no longer configured")
            await asyncio.gather(*(runner.recover() for runner in self.runners.values()))
            self._save_state()
        if store:
            if act:
                finish_at_start(self.settings.store)
            self._client = self._open_client(self.settings)
        if report:
            await self._start_reporting()

    def _open_state(self, act: bool) -> None:
        self._acts = act
        if act:
            self._state_dir.open()
        self.node_state = self._state_dir.load()
        self.node_state.start_counter += 1
        self.link.cluster_id = self.node_state.cluster_id
        own = os.path.join(self.settings.state_dir, "node.key")
        path = self.settings.cache_key or own
        if act or os.path.exists(path):
            self._key = load_key(path, self.settings.node, create=path == own)
        else:
            self._key = NodeKey(os.urandom(KEY_BYTES), self.settings.node)  # nothing is stored yet

    async def _start_helpers(self) -> None:
        key = self._key.digest_key if self._key else b""
        opening = {"op": "open", "roots": list(self.settings.allow_roots),
                   "state_dir": self.settings.state_dir, "key": key}  # fmt: skip
        starts = [self._renderer.start()]
        if self._acts:
            starts.append(self._writer_child.start(opening))
        try:
            levels = await asyncio.gather(*starts)
        except ChildLostError as error:
            raise SettingsError(f"a helper process {error}") from None
        self.log.event("started", version=__version__, node=self.settings.node,
                       sets=len(self.settings.sets), renderer=levels[0].get("level"),
                       writer=levels[-1].get("level"))  # fmt: skip

    async def _start_reporting(self) -> None:
        if self._client is not None:
            self._reporter = Reporter(
                self._client, self.log, node=self.settings.node,
                start_counter=self.node_state.start_counter,
                heartbeat_s=self.settings.store.heartbeat_s, build=self._build_report,
            )  # fmt: skip
        group = self.settings.socket_group
        self._servers.append(json_server(self.settings.socket, self.handle, group))
        if self.settings.metrics:
            text: Callable[[], str] = lambda: metrics_text(  # noqa: E731
                self.runners.values(), self.link
            )
            self._servers.append(metrics_server(self.settings.metrics, text, group))
        for server in self._servers:
            await server.start()

    @property
    def node_key(self) -> NodeKey:
        """The node's key.

        Raises:
            SettingsError: before ``start``.
        """
        if self._key is None:
            raise SettingsError("not started")
        return self._key

    def follow(self, names: Iterable[str] = (), *, run: bool = True) -> None:
        """Start feeds, runners and background tasks.

        Args:
            names: Which sets; empty: all.
            run: False: only follow the store, carry out nothing.
        """
        chosen = set(names)
        for runner in self.runners.values():
            if not chosen or runner.name in chosen:
                self._follow(runner, run=run)
        if run:
            self._start_background()

    def _start_background(self) -> None:
        self._watch_files()
        if self._reporter is not None:
            self._background.append(asyncio.create_task(self._reporter.run()))
        if self._reporter is not None and self._client is not None:  # the daemon, not one pass
            keeper = CertificateKeeper(
                self.settings.store, self.settings.state_dir, self.log, self._client.reload_tls
            )
            self._background.append(asyncio.create_task(keeper.run()))
        self._background.append(asyncio.create_task(self._feed_watchdog()))

    def _follow(self, runner: SetRunner, *, run: bool = True) -> None:
        tasks = []
        if run:
            tasks.append(asyncio.create_task(self._guarded(runner, runner.run)))
        if self._client is not None:
            runner.authors = Authors(self._client, self.settings.state_dir, self.log)
            runner.feed = Feed(
                runner.pipeline.spec, self.settings.store, self._client, self.link, self.log,
                floor=runner.pipeline.record.target_revision, on_change=runner.data_changed,
                on_away=runner.store_away if self.settings.offline_start else lambda state: None,
            )  # fmt: skip
            tasks.append(asyncio.create_task(self._guarded(runner, runner.feed.run)))
            if run and self._acts:
                keeper = runner.keep_inputs()
                tasks.append(asyncio.create_task(self._guarded(runner, keeper.run)))
        self._tasks[runner.name] = tasks

    async def _guarded(self, runner: SetRunner, life: Callable[[], Awaitable[None]]) -> None:
        """A bug in one set must not take the others down: it is shown and the set starts again."""
        while True:
            try:
                await life()
            except Exception as error:  # noqa: BLE001  # the last line of defence (E9)
                where = traceback.extract_tb(error.__traceback__)[-1]
                why = f"{type(error).__name__} at {os.path.basename(where.filename)}:{where.lineno}"
                self.log.event("bug", level="error", set=runner.name, why=why)
                await asyncio.sleep(limits.AGENT_RETRY_S_MIN)

    def _watch_files(self) -> None:
        specs = [s for s in self.settings.sets if s.drift_policy != "ignore"]
        if self._hints is not None:
            self._hints.stop()
        self._hints = Hints(asyncio.get_running_loop(), self._hint)
        failed = self._hints.start(specs)
        if failed:
            self.log.event("no_file_events", level="warning", folders=failed)

    def _hint(self, name: str) -> None:
        runner = self.runners.get(name)
        if runner is not None:
            runner.hint()

    def _runner(self, spec: SetSpec) -> SetRunner:
        settings, key = self.settings, self.node_key
        environment = allowed_environment(settings.allow_env)
        renderer = Renderer(spec, self._renderer, settings.node, environment)
        record = load_record(settings.state_dir, spec.name)
        pipeline = Pipeline(
            spec, record, node=settings.node, state_dir=settings.state_dir, key=key,
            renderer=renderer, writer=self._writer, services=self._services,
        )  # fmt: skip
        return SetRunner(
            pipeline, renderer, self._writer, self.log, settings.limits, self._report,
            state_dir=settings.state_dir, key=key,
        )  # fmt: skip

    async def stop(self) -> None:
        """Leave the present steps, within ``AGENT_STOP_S``, and end the helpers."""
        tasks = [task for group in self._tasks.values() for task in group] + self._background
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limits.AGENT_STOP_S)
        with contextlib.suppress(TimeoutError, StepError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(runner.close() for runner in self.runners.values()))
                if self._writer_child.pid:
                    await self._writer.ask("ping")  # a save that is under way is done then
        for server in self._servers:
            await server.stop()
        if self._hints is not None:
            self._hints.stop()
        if self._client is not None:
            await self._client.close()
        await self._renderer.close()
        await self._writer_child.close()
        if self._acts and self._key is not None:
            self._save_state()
        self._state_dir.close()

    def _save_state(self) -> None:
        self.node_state.cluster_id = self.link.cluster_id or self.node_state.cluster_id
        self.node_state.sets = sorted(self.runners)
        try:
            self._state_dir.save(self.node_state)
        except OSError as error:
            self.log.event("state_not_saved", level="error", why=error.strerror or "")

    # --- background -------------------------------------------------------------------------------

    async def _feed_watchdog(self) -> None:
        """READY after a first decision for every set, then the service manager's watchdog.

        Without the store the decision may be that what is here stays (``offline_start``). The
        watchdog is fed by what answers: the event loop, and the writer behind it (M10).
        """
        if not self._notifier.listens:
            return
        if self._client is not None:
            offline = self.settings.offline_start
            waits = [(r.ready if offline else r.decided).wait() for r in self.runners.values()]
            await asyncio.gather(*waits)
        self._notifier.ready()
        while True:
            try:
                await self._writer.ask("ping")
                self._notifier.alive(self._summary())
            except StepError as error:
                self.log.event("writer_silent", level="error", why=str(error))
            await asyncio.sleep(self._notifier.interval_s)

    def _summary(self) -> str:
        plans = [runner.plan for runner in self.runners.values()]
        bad = sum(plan.outcome != "converged" for plan in plans)
        return f"{self.link.state}, {len(plans)} sets, {bad} not converged"

    # --- reports and requests ---------------------------------------------------------------------

    def _report(self) -> None:
        if self._hints is not None:
            self._hints.try_again()  # a first commit may have made the folder
        if self._reporter is not None:
            self._reporter.changed()

    def _build_report(self, request: v1.ReportRequest) -> None:
        request.link = self.link.state
        request.certificate_expires_ns = certificate_expiry_ns(self.settings.store.cert)
        request.trust_bundle = trust_bundle_digest(self.settings.store.ca)
        for runner in self.runners.values():
            request.sets.append(set_report(runner, self.settings.state_dir))

    async def handle(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One request of the local socket."""
        command = asked.get("command")
        if command == "status":
            return self.status()
        if command == "reload":
            return {"done": await self.reload()}
        runner = self.runners.get(str(asked.get("set", "")))
        if runner is None:
            return {"error": "there is no such set"}
        if command == "retry":
            runner.retry()
            return {"done": True}
        if command == "approve":
            return {"done": runner.approve()}
        if command == "rollback":
            to = asked.get("to", 0)
            return {"done": isinstance(to, int) and runner.roll_back(to)}
        return {"error": "unknown command"}

    def status(self) -> dict[str, Any]:
        """Everything that ``configagent status --json`` shows."""
        return {
            "node": self.settings.node,
            "version": __version__,
            "link": self.link.state,
            "link_seconds": round(time.time() - self.link.since, 1),
            "pid": os.getpid(),
            "sets": [_set_status(runner) for runner in self.runners.values()],
        }

    async def reload(self) -> str:
        """Read the configuration again; "" when it is in force, else why the old one stays."""
        from configagent.config import load

        self._notifier.reloading()
        try:
            fresh = load(self.settings.path)
            self._judge_reload(fresh)
        except SettingsError as error:
            self.log.event("reload_refused", level="error", why=str(error))
            self._notifier.ready()
            return str(error)
        await self._change_sets(fresh)
        self.log.event("reloaded", sets=len(fresh.sets))
        self._notifier.ready()
        return ""

    def _judge_reload(self, fresh: Settings) -> None:
        for name in (
            "node",
            "state_dir",
            "socket",
            "socket_group",
            "metrics",
            "store",
            "cache_key",
            "allow_roots",
        ):
            if getattr(fresh, name) != getattr(self.settings, name):
                raise SettingsError(f"{name} changed: restart the agent for that")

    async def _change_sets(self, fresh: Settings) -> None:
        """Stop what changed or went away, start what changed or is new, leave the rest alone."""
        old = {spec.name: spec for spec in self.settings.sets}
        new = {spec.name: spec for spec in fresh.sets}
        same_rules = (fresh.limits, fresh.allow_env) == (
            self.settings.limits, self.settings.allow_env
        )  # fmt: skip
        ended = [name for name in old if not same_rules or new.get(name) != old[name]]
        await self._end_sets(ended)
        self.settings = fresh
        await self._prune([old[n] for n in ended if n not in new], new.values())
        for spec in fresh.sets:
            if spec.name not in self.runners:
                runner = self.runners[spec.name] = self._runner(spec)
                await runner.recover()
                self._follow(runner)
            else:
                self.runners[spec.name].retemplate()
        self._save_state()
        self._watch_files()
        self._report()

    async def _end_sets(self, names: Iterable[str]) -> None:
        tasks = [task for name in names for task in self._tasks.pop(name, [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limits.AGENT_STOP_S)
        for name in names:
            runner = self.runners.pop(name, None)
            if runner is not None:
                await runner.close()

    async def _prune(self, gone: Iterable[SetSpec], stay: Iterable[SetSpec]) -> None:
        """Remove files of sets that left the configuration, where it says so (B7)."""
        taken = {file.name for spec in stay for file in spec.files}
        for spec in gone:
            record = load_record(self.settings.state_dir, spec.name)
            files = [facts for facts in record.files if facts["name"] not in taken]
            if not spec.prune or spec.commit != "files" or not files:
                self.log.event("set_left", set=spec.name, files=len(files))
                continue
            try:
                answer = await self._writer.ask("prune", set=spec.name, files=files)
                self.log.event("pruned", set=spec.name, **answer)
            except StepError as error:
                self.log.event("prune_failed", level="warning", set=spec.name, why=str(error))


def _set_status(runner: SetRunner) -> dict[str, Any]:
    record, plan = runner.pipeline.record, runner.plan
    wake = plan.wake_at()
    retry_in = None if wake is None else max(0.0, round(wake - time.monotonic(), 1))
    return {
        "set": runner.name, "outcome": plan.outcome, "reason": plan.reason,
        "generation": record.generation, "good": record.good, "root": record.root,
        "content_revision": record.content_revision, "target_revision": record.target_revision,
        "attempts": plan.attempts, "step": runner.step_name, "next_in_s": retry_in,
        "lag_ms": record.lag_ms, "took_us": record.took, "changed_ns": record.changed_ns,
        "to_notify": record.to_notify, "cause": record.cause,
        "deviations": runner.deviations, "cache": runner.cache, "decided": runner.decided.is_set(),
    }  # fmt: skip


async def serve(agent: Agent, stop: asyncio.Event) -> None:
    """Run a started agent until ``stop`` is set, then stop it."""
    agent.follow()
    await stop.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limits.AGENT_STOP_S + 1):
            await agent.stop()
