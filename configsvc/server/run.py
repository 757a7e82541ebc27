"""Starts and stops one member process.

Order of a start: settings, keys, log, history, state in memory, peers, then clients. The line
``ready to serve client requests`` is written once per client listener, when a linearizable read
has succeeded.

Not here: joining the parts (``composing``), ends by failure (``ends``).
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from configsvc import __version__
from configsvc.api.table import Api
from configsvc.api.traffic import ClientTraffic
from configsvc.audit.record import Resource
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError, InvariantViolationError
from configsvc.frontend.refusals import KINDS
from configsvc.frontend.server import Frontend, raise_descriptor_limit
from configsvc.gateway.app import Gateway
from configsvc.gateway.metrics import Traffic
from configsvc.runtime.interpreter import INTERPRETER
from configsvc.runtime.member import Member
from configsvc.runtime.scrubbing import Scrubber
from configsvc.runtime.watchdog import Watchdog
from configsvc.server import rebirth, rotation
from configsvc.server.composing import Composed
from configsvc.server.ends import Ends
from configsvc.server.joining import find_cluster
from configsvc.server.listening import listen_clients, listen_peers
from configsvc.server.local import refusal_event, weakened
from configsvc.server.logs import Log, bridge_logging
from configsvc.server.peers import is_denied, is_listed
from configsvc.server.restore import force_new_cluster
from configsvc.server.stores import Stores, has_stores, ignored_flags, open_stores
from configsvc.server.tls import ClientTls
from configsvc.storage.history.engine import sqlite_warnings
from configsvc.transport.link import PeerTransport
from configsvc.types import Source

STOP_GRACE_S: Final = 0.6
# Collections of young objects cost a tenth of a busy loop at the interpreter's 700: what a write
# leaves behind lives until SQL has it, and nothing of it is cyclic. A full one is rare (H5).
GC_THRESHOLDS: Final = (20_000, 20, 100)


class Server:
    """One member process."""

    def __init__(self, config: ServerConfig, log: Log) -> None:
        self.config = config
        self.log = log
        self._ends = Ends(log)
        self._stop = asyncio.Event()
        self._signals = 0
        self._client_urls: list[str] = []

    async def serve(self) -> None:
        """Run until a signal."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._ends.loop_failed)
        composed = Composed(self.config, self.log, self._ends, loop, await self._open())
        self.member = member = composed.member
        composed.start()
        self._rotation = composed.rotation(self.config)
        member.audit.begin(__version__, weakened(self.config))
        raise_descriptor_limit()
        await listen_peers(self.config, composed.peers)
        tls = ClientTls(self.config, self.log)
        timeout = self.config.election_timeout_ms / 1000
        watchdog = Watchdog(loop, self.log, self._ends.die, timeout)
        scrubber = composed.scrubber()
        frontend = self._serve_clients(tls, composed.peers, watchdog, scrubber)
        self._announce_when_ready()
        self._handle_signals(loop, tls, composed.peers, frontend)
        self._end_denied(loop, frontend)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        watchdog.start()
        member.start()
        scrubbing = loop.create_task(scrubber.run())
        await self._stop.wait()
        scrubbing.cancel()
        await self._shut_down(composed, frontend)
        watchdog.stop()

    async def _open(self) -> Stores:
        self._recover_from_disaster()
        joined = None
        if self.config.initial_cluster_state == "existing" and not has_stores(self.config):
            joined = await find_cluster(self.config, self.log)
        stores = open_stores(self.config, joined)
        self._say_hello(stores)
        return stores

    def _recover_from_disaster(self) -> None:
        """New stores in the place of old ones, when told so or when a kill came in between."""
        if rebirth.finish(Path(os.path.abspath(self.config.data_dir))):
            self.log.warn("server", "new stores took the place of the old ones")
        rotation.finish(self.config, self.log)
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
        for warning in sqlite_warnings():
            self.log.warn("server", warning)
        ignored = ignored_flags(self.config, stores)
        if ignored:
            self.log.info(
                "server",
                "the data directory decides: flags of a first start are ignored",
                setting=" ".join(ignored),
            )
        if self.config.insecure_dev:
            self.log.warn("server", "INSECURE: --insecure-dev, throwaway data on loopback only")

    def _serve_clients(
        self, tls: ClientTls, peers: PeerTransport, watchdog: Watchdog, scrubber: Scrubber
    ) -> Frontend:
        api = Api(self.member)
        refused = Counter(dict.fromkeys(KINDS, 0))
        clients = ClientTraffic()
        traffic = Traffic(clients, peers.counters.peers, watchdog, scrubber)
        gateway = Gateway(self.member, api, refused, traffic)
        frontend = Frontend(
            api,
            gateway,
            max_streams=self.config.max_concurrent_streams,
            on_refused=self._client_refused,
            refused_counts=refused,
            refuse=api.refusals.refuse,
            traffic=clients,
            slices=self.member.slices,
        )
        self.member.passes.answers = frontend.answers
        self._client_urls = listen_clients(self.config, frontend, tls, gateway.probes)
        return frontend

    def _client_refused(self, ip: str, reason: str) -> None:
        """A client was cut off (3.13); ``reason`` is a constant of ours or OpenSSL's."""
        event = refusal_event(reason)
        code = "UNAUTHENTICATED" if event == "tls.refused" else "RESOURCE_EXHAUSTED"
        self.member.audit.note(event, source=Source(ip, "", "", ""), code=code, detail=reason)

    def _announce_when_ready(self) -> None:
        member = self.member

        def tell() -> None:
            if member.ready:
                member.forget_ready_change(self)
                for url in self._client_urls:
                    self.log.info("server", "ready to serve client requests", url=url)

        member.on_ready_change(self, tell)

    def _handle_signals(
        self,
        loop: asyncio.AbstractEventLoop,
        tls: ClientTls,
        peers: PeerTransport,
        frontend: Frontend,
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
            ended = frontend.disconnect(lambda identity: is_listed(identity, tls.revoked))
            if ended:
                self.log.info("server", "connections of revoked certificates ended", count=ended)
            self._rotation.begin()

        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGINT, stop)
        loop.add_signal_handler(signal.SIGHUP, reload)

    def _end_denied(self, loop: asyncio.AbstractEventLoop, frontend: Frontend) -> None:
        """Connections that the deny-list names end soon after the entry that denied them."""
        member = self.member

        def end() -> None:
            auth, now = member.state.auth, member.time_ns()
            ended = frontend.disconnect(lambda who: is_denied(who, auth, now))
            if ended:
                self.log.info("server", "connections of denied certificates ended", count=ended)

        # Not from inside the pass that applied it: the answers it gave are still to be sent.
        member.following.on_denied = lambda: loop.call_soon(end)

    async def _shut_down(self, composed: Composed, frontend: Frontend) -> None:
        member: Member = composed.member
        await member.stop()
        await frontend.stop(STOP_GRACE_S)
        if not member.audit.end("signal"):
            self.log.warn("server", "the last local audit records are not on disk")
        await composed.peers.close()
        member.history.close(0.4)
        composed.wal.stop()
        self.log.info("server", "stopped")


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
        INTERPRETER.set_up()
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
