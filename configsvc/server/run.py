"""The composition root: joins the parts of one member, starts and stops them.

Order of a start: settings, keys, log, history, state in memory, peers, then clients. The line
``ready to serve client requests`` is written once per client listener, when a linearizable read
has succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from configsvc import __version__
from configsvc.api.table import Api
from configsvc.apply.applier import Applier
from configsvc.apply.state import ApplyState
from configsvc.audit.record import Resource
from configsvc.auth.bundle import parse_bundle
from configsvc.codec.publishing import bootstrap_op
from configsvc.codec.records import RecordCache
from configsvc.config import ServerConfig, split_url
from configsvc.errors import ConfigError, ExitCode, FatalError, InvariantViolationError
from configsvc.frontend.server import Frontend, raise_descriptor_limit
from configsvc.gateway.app import Gateway
from configsvc.raft.config import product_config
from configsvc.raft.node import RawNode
from configsvc.runtime.install import InstallStores
from configsvc.runtime.member import Member
from configsvc.runtime.parts import READER_THREADS, Parts
from configsvc.runtime.restore import adopt, read_stored
from configsvc.runtime.watchdog import Watchdog
from configsvc.server import rebirth
from configsvc.server.joining import find_cluster
from configsvc.server.local import audit_levels, local_writer, refusal_event, weakened
from configsvc.server.logs import Log, bridge_logging
from configsvc.server.memory import bound_bytes, used_bytes
from configsvc.server.restore import force_new_cluster
from configsvc.server.stores import Stores, has_stores, open_stores
from configsvc.server.tls import ClientTls, peer_tls
from configsvc.storage.history.store import History
from configsvc.storage.history.writer import HistoryWriter
from configsvc.storage.wal.writer import WalWriter
from configsvc.transport.hello import Hello, Refusal
from configsvc.transport.joining import JoinQuestion
from configsvc.transport.link import HelloState, PeerTransport
from configsvc.types import NodeId, Source

STOP_GRACE_S: Final = 0.6
# Collections of young objects cost a tenth of a busy loop at the interpreter's 700: what a write
# leaves behind lives until SQL has it, and nothing of it is cyclic. A full one is rare (H5).
GC_THRESHOLDS: Final = (20_000, 20, 100)
SWITCH_INTERVAL_S: Final = 0.001  # of the interpreter: threads in SQLite must not hold up the loop


class Clock:
    """The system's clocks."""

    monotonic = staticmethod(time.monotonic)
    time_ns = staticmethod(time.time_ns)


class Random:
    """Jitter of elections."""

    def randrange(self, n: int) -> int:
        return int.from_bytes(os.urandom(4), "big") % n


class Server:
    """One member process."""

    def __init__(self, config: ServerConfig, log: Log) -> None:
        self.config = config
        self.log = log
        self._dying = threading.Lock()
        self._stop = asyncio.Event()
        self._signals = 0

    # --- ends ------------------------------------------------------------------------------------

    def die(self, error: FatalError) -> None:
        """End the process with the error's code, now; callable from any thread (W8)."""
        if not self._dying.acquire(blocking=False):
            return
        self.log.line("fatal", "server", str(error), exit=int(error.code), remedy=error.remedy)
        print(f"configsvc: {error}: {error.remedy}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(int(error.code))

    def _storage_failed(self, error: BaseException) -> None:
        if isinstance(error, FatalError):
            self.die(error)
        if isinstance(error, InvariantViolationError):
            self.die(FatalError(ExitCode.INVARIANT, f"invariant: {error}", "report this"))
        reason = getattr(error, "strerror", None) or type(error).__name__
        self.die(
            FatalError(
                ExitCode.STORAGE, f"storage failed: {reason}", "repair the disk, then start again"
            )
        )

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, FatalError):
            self.die(error)
        if isinstance(error, InvariantViolationError):
            self.die(
                FatalError(ExitCode.INVARIANT, f"invariant: {error}", "report this with the log")
            )
        self.log.error(
            "server",
            str(context.get("message", "unexpected failure")),
            error_class=type(error).__name__ if error is not None else "",
            stack=_where(error),
        )

    # --- start -----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until a signal."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_failed)
        self._recover_from_disaster()
        joined = None
        if self.config.initial_cluster_state == "existing" and not has_stores(self.config):
            joined = await find_cluster(self.config, self.log)
        stores = open_stores(self.config, joined)
        self._say_hello(stores)
        state = load_state(self.config, stores)
        records = RecordCache()
        wal_writer = WalWriter(
            stores.wal,
            on_durable=lambda token: _on_loop(loop, self._on_durable, token),
            on_space=lambda ok: _on_loop(loop, self._on_space, ok),
            die=self.die,
        )
        history = self._history_writer(loop, stores.history)
        local = local_writer(
            stores.local,
            lambda: self.member.audit,
            lambda call: _on_loop(loop, call),
            self._storage_failed,
        )
        peers = self._peers(loop, stores, records)
        self.member = member = Member(
            Parts(
                config=self.config,
                report=self.log,
                clock=Clock(),
                loop=loop,
                self_id=stores.self_id,
                cluster_id=stores.cluster_id,
                store_id=stores.store_id,
                incarnation=stores.incarnation,
                raft=self._raft(stores),
                log=stores.log,
                applier=Applier(state),
                writer=wal_writer,
                history=history,
                reader=stores.reader,
                executor=ThreadPoolExecutor(READER_THREADS, thread_name_prefix="history-reader"),
                net=peers,
                conf_state=stores.conf_state,
                hard_state=stores.hard_state,
                applied=stores.applied,
                durable=stores.last_index,
                written_revision=state.store.revision,
                history_durable=stores.history.durable,
                token_key=stores.token_key,
                log_key=stores.log_key,
                wal=wal_writer,
                install=InstallStores(
                    data_dir=stores.data_dir,
                    identity=stores.identity,
                    key_file=stores.key_file,
                    generation=stores.generation,
                    new_writer=lambda made: self._history_writer(loop, made),
                ),
                local=local,
                audit_levels=audit_levels(),
                free_bytes=lambda: shutil.disk_usage(stores.data_dir).free,
                memory_used=used_bytes,
                memory_bound=bound_bytes(),
                records=records,
                bootstrap_op=self._bootstrap(stores),
                genesis=stores.genesis,
                die=self.die,
            )
        )
        member.gate.hurry = lambda: member.history.hurry()  # an install replaces the writer
        wal_writer.start()
        history.start()
        local.start()
        member.audit.begin(__version__, weakened(self.config))
        raise_descriptor_limit()
        await self._bind(peers.listen(self.config.listen_peer_urls), self.config.listen_peer_urls)
        api = Api(member)
        client_tls = ClientTls(self.config, self.log)
        frontend = Frontend(
            api,
            Gateway(member, api),
            max_streams=self.config.max_concurrent_streams,
            on_refused=self._peer_refused,
            refuse=api.refusals.refuse,
        )
        self._listen(frontend, client_tls)
        self._announce_when_ready()
        self._handle_signals(loop, client_tls, peers)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        watchdog = Watchdog(loop, self.log, self.die, self.config.election_timeout_ms / 1000)
        watchdog.start()
        member.start()
        await self._stop.wait()
        await self._shut_down(member, frontend, peers, wal_writer)
        watchdog.stop()

    def _recover_from_disaster(self) -> None:
        """New stores in the place of old ones, when told so or when a kill came in between."""
        if rebirth.finish(Path(os.path.abspath(self.config.data_dir))):
            self.log.warn("server", "new stores took the place of the old ones")
        if not self.config.force_new_cluster:
            return
        made = force_new_cluster(self.config)
        if made is None:
            self.log.warn("server", "--force-new-cluster: this member is alone already")
            return
        self.log.warn(
            "server",
            "a new cluster of one; take --force-new-cluster off the command line",
            cluster=f"{made.cluster_id:016x}",
            revision=made.revision,
        )

    def _history_writer(self, loop: asyncio.AbstractEventLoop, history: History) -> HistoryWriter:
        """The writer of one generation; one that an install replaced is not listened to."""

        def told(call: Callable[..., None], *args: Any) -> None:
            if self.member.history is writer:
                call(*args)

        def failed(error: BaseException) -> None:
            if self.member.history is writer:
                self._storage_failed(error)

        writer = HistoryWriter(
            history,
            on_written=lambda index, revision: _on_loop(
                loop, told, self._on_written, index, revision
            ),
            on_durable=lambda index: _on_loop(loop, told, self._on_history_durable, index),
            on_fatal=failed,
        )
        return writer

    def _say_hello(self, stores: Stores) -> None:
        self.log.bind(member=f"{stores.self_id:016x}")
        self.log.info(
            "server",
            "member starts",
            version=__version__,
            name=self.config.name,
            cluster=f"{stores.cluster_id:016x}",
            applied=stores.applied,
            durable=stores.last_index,
            round=stores.incarnation,
            state="new" if stores.first_start else "restart",
        )
        if self.config.insecure_dev:
            self.log.warn("server", "INSECURE: --insecure-dev, throwaway data on loopback only")

    def _raft(self, stores: Stores) -> RawNode:
        config = product_config(stores.self_id, self.config.election_ticks, 2)
        return RawNode(
            config,
            stores.log,
            Random(),
            hard_state=stores.hard_state,
            conf_state=stores.conf_state,
            applied=stores.applied,
        )

    def _peers(
        self, loop: asyncio.AbstractEventLoop, stores: Stores, records: RecordCache
    ) -> PeerTransport:
        def state() -> HelloState:
            raft = self.member.machine.raft
            return HelloState(raft.term, self.member.machine.durable)

        return PeerTransport(
            loop=loop,
            self_id=stores.self_id,
            cluster_id=stores.cluster_id,
            store_id=stores.store_id,
            incarnation=stores.incarnation,
            insecure=self.config.insecure_dev,
            tls=peer_tls(self.config, stores.self_id),
            state=state,
            handler=_Handler(self),
            records=records,
            report=self.log,
            now=lambda: int(time.time()),
            epoch=stores.identity.epoch,
            on_gone=lambda peer: self.member.elections.refused(peer),
            on_refused=lambda peer, refusal: self.member.membership.refused(peer, refusal),
        )

    def _bootstrap(self, stores: Stores) -> bytes:
        source = policy_source(self.config)
        bundle = parse_bundle(source)
        return bootstrap_op(
            trust_domain=self.config.trust_domain,
            policy_source=source,
            policy_compiled=bundle.compiled,
            policy_name=bundle.policy.name,
            policy_version=bundle.policy.version,
            members=sorted(stores.genesis.items()),
            insecure=self.config.insecure_dev,
        )

    async def _bind(self, binding: Any, urls: Any) -> None:
        try:
            await binding
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {', '.join(urls)}: {error.strerror}",
                "free the port, or choose another with the --listen flags",
            ) from None

    def _listen(self, frontend: Frontend, tls: ClientTls) -> None:
        config = self.config
        split = bool(config.listen_client_http_urls)
        for urls, grpc, http in (
            (config.listen_client_urls, True, not split),
            (config.listen_client_http_urls, False, True),
            (config.listen_metrics_urls, False, True),
        ):
            for url in urls:
                scheme, host, port = split_url(url)
                try:
                    frontend.listen(
                        host,
                        port,
                        tls=tls.context if scheme == "https" else None,
                        serves_grpc=grpc,
                        serves_http=http,
                    )
                except OSError as error:
                    raise ConfigError(
                        f"cannot listen on {url}: {error.strerror}",
                        "free the port, or choose another with --listen-client-urls",
                    ) from None

    def _announce_when_ready(self) -> None:
        member = self.member
        urls = (*self.config.listen_client_urls, *self.config.listen_client_http_urls)

        def tell() -> None:
            if member.ready:
                member.forget_ready_change(self)
                for url in urls:
                    self.log.info("server", "ready to serve client requests", url=url)

        member.on_ready_change(self, tell)

    def _handle_signals(
        self, loop: asyncio.AbstractEventLoop, tls: ClientTls, peers: PeerTransport
    ) -> None:
        def stop() -> None:
            self._signals += 1
            if self._signals > 1:
                os._exit(1)
            self.log.info("server", "stopping")
            self._stop.set()

        def reload() -> None:
            for what, problem in (("client", tls.reload()), ("peer", peers.reload_tls())):
                self.member.audit.note(
                    "reload",
                    code="FAILED_PRECONDITION" if problem else "OK",
                    detail=problem,
                    resource=Resource(object=f"{what} TLS files"),
                )
                if problem:
                    self.log.error("server", f"{what} TLS files stay as they were", reason=problem)
                else:
                    self.log.info("server", f"{what} TLS files reloaded")

        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGINT, stop)
        loop.add_signal_handler(signal.SIGHUP, reload)

    async def _shut_down(
        self,
        member: Member,
        frontend: Frontend,
        peers: PeerTransport,
        wal_writer: WalWriter,
    ) -> None:
        await member.stop()
        await frontend.stop(STOP_GRACE_S)
        if not member.audit.end("signal"):
            self.log.warn("server", "the last local audit records are not on disk")
        await peers.close()
        member.history.close(0.4)
        wal_writer.stop()
        self.log.info("server", "stopped")

    def _peer_refused(self, ip: str, reason: str) -> None:
        """A client was cut off (3.13); ``reason`` is a constant of ours or OpenSSL's."""
        event = refusal_event(reason)
        code = "UNAUTHENTICATED" if event == "tls.refused" else "RESOURCE_EXHAUSTED"
        self.member.audit.note(event, source=Source(ip, "", "", ""), code=code, detail=reason)

    # --- from threads ----------------------------------------------------------------------------

    def _on_durable(self, token: int) -> None:
        self.member.on_durable(token)

    def _on_space(self, ok: bool) -> None:
        self.member.disk.log_space(ok)

    def _on_written(self, applied: int, revision: int) -> None:
        self.member.on_written(applied, revision)

    def _on_history_durable(self, applied: int) -> None:
        self.member.on_history_durable(applied)


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> None:
    """From another thread; a loop that is closed already needs nothing any more."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)


class _Handler:
    """Peers' messages to the member, which exists once the transport does."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def on_messages(self, peer: Any, messages: Any) -> None:
        self._server.member.on_messages(peer, messages)

    def on_frame(self, peer: Any, kind: int, body: bytes) -> None:
        self._server.member.on_frame(peer, kind, body)

    def on_hello(self, peer: NodeId, hello: Hello) -> str | Refusal:
        return self._server.member.membership.judge_hello(peer, hello)

    def on_join(self, question: JoinQuestion) -> NodeId | Refusal:
        return self._server.member.membership.admit(question)

    def on_unreachable(self, peer: Any) -> None:
        self._server.member.on_unreachable(peer)


def load_state(config: ServerConfig, stores: Stores) -> ApplyState:
    """The replicated state as SQL holds it; the log's rest follows by being applied (Q3)."""
    state = ApplyState(quota_bytes=config.quota_backend_bytes or 2 << 30)
    meta = stores.history.meta()
    if not meta.applied:
        return state
    gc.disable()
    adopt(state, read_stored(stores.history), stores.history.load_live())
    gc.enable()
    return state


def policy_source(config: ServerConfig) -> str:
    """The bundle for the bootstrap entry: --policy-file, or the one that ships."""
    if config.policy_file:
        path = Path(config.policy_file)
    else:
        package = Path(__file__).resolve().parent.parent
        path = package / "_policies" / "default.toml"
        if not path.exists():
            path = package.parent / "policies" / "default.toml"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"policy file {path} cannot be read", "name one: --policy-file") from None


def _where(error: BaseException | None) -> str:
    """File and line of the innermost frames, without any value."""
    if error is None or error.__traceback__ is None:
        return ""
    frames = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return " < ".join(reversed(frames[-8:]))


def harden(config: ServerConfig) -> None:
    """What a member refuses or switches off before it touches anything (DEF-16).

    Raises:
        ConfigError: run as uid 0 without being told to.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0 and not (config.allow_root or config.insecure_dev):
        raise ConfigError("running as root", "use a user of its own, or pass --allow-root")
    for name in ("SSLKEYLOGFILE",):
        if os.environ.get(name):
            raise ConfigError(f"{name} is set: it would write session keys", f"unset {name}")


def main(config: ServerConfig, warnings: tuple[str, ...]) -> int:
    """Run a member; returns the exit code."""
    import uvloop

    log = Log(config.log_level)
    bridge_logging(log)
    try:
        harden(config)
        for warning in warnings:
            log.warn("settings", warning)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        uvloop.run(Server(config, log).serve())
    except FatalError as error:
        log.line("fatal", "server", str(error), exit=int(error.code), remedy=error.remedy)
        print(f"configsvc: {error}: {error.remedy}", file=sys.stderr)  # noqa: T201
        return int(error.code)
    except OSError as error:
        reason = f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
        log.line("fatal", "server", reason, exit=int(ExitCode.STORAGE))
        print(f"configsvc: storage failed: {reason}", file=sys.stderr)  # noqa: T201
        return int(ExitCode.STORAGE)
    except InvariantViolationError as error:
        log.line("fatal", "server", f"invariant: {error}", exit=int(ExitCode.INVARIANT))
        return int(ExitCode.INVARIANT)
    return 0
