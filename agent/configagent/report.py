"""Telling the fleet view what is applied and healthy here (agent.md K1, K2, K6).

The newest report wins, so nothing is queued: what is sent is always the present state, on every
change, on every heartbeat, and again until a member took it. (start counter, seq) orders reports
over restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
from collections.abc import Callable, Iterable
from typing import Final

from configagent.log import Log
from configagent.records import read_generation
from configagent.runner import SetRunner
from configsvc import __version__, limits
from configsvc.client import AsyncClient, inquiries
from configsvc.errors import ConfigServiceError
from configsvc.proto import v1_pb2 as v1

DURATIONS: Final = ("render", "check", "commit", "reload", "total")
GATHER_S: Final = 0.02  # changes that come together go out together
RETRY_S: Final = (0.5, 30.0)
_CALL_S: Final = 5.0


def set_report(runner: SetRunner, state_dir: str) -> v1.SetReport:
    """One set's state; per file where it deviates, and its digest."""
    record, plan = runner.pipeline.record, runner.plan
    report = v1.SetReport(
        name=runner.name,
        target_revision=record.target_revision,
        content_revision=record.content_revision,
        generation=record.generation,
        outcome=plan.outcome,
        reason=plan.reason[: limits.AGENT_REASON_CHARS_MAX],
        attempts=plan.attempts,
        changed_ns=record.changed_ns,
        lag_ms=record.lag_ms,
        root=record.root,
        durations=v1.Durations(**{f"{part}_us": record.took.get(part, 0) for part in DURATIONS}),
    )
    differing = {one["name"]: one["what"] for one in runner.deviations}
    for name, path, sha256 in files_of(runner, state_dir):
        outcome, reason = plan.outcome, ""
        if name in differing:
            outcome, reason = "drifted", differing[name]
        elif runner.pipeline.failed_path == name:
            reason = plan.reason[: limits.AGENT_REASON_CHARS_MAX]
        report.files.add(path=path, sha256=sha256, outcome=outcome, reason=reason)
    return report


def files_of(runner: SetRunner, state_dir: str) -> Iterable[tuple[str, str, str]]:
    """Name, path and published digest of each file; planned ones while nothing is committed."""
    spec, record = runner.pipeline.spec, runner.pipeline.record
    digests: dict[str, str] = {}
    if record.generation:
        with contextlib.suppress(OSError, ValueError):
            sidecar, _ = read_generation(state_dir, spec.name, record.generation)
            digests = {facts["name"]: facts["sha256"] for facts in sidecar["files"]}
    for file in spec.files[: limits.FLEET_FILES_MAX]:
        path = f"{spec.dir}/current/{file.name}" if spec.commit == "dir" else file.name
        yield file.name, path, digests.get(file.name, "")


class Reporter:
    """Sends reports until cancelled."""

    def __init__(
        self,
        client: AsyncClient,
        log: Log,
        *,
        node: str,
        start_counter: int,
        heartbeat_s: float,
        build: Callable[[v1.ReportRequest], None],
    ) -> None:
        self._client = client
        self._log = log
        self._node = node
        self._start_counter = start_counter
        self._heartbeat_s = heartbeat_s
        self._build = build
        self._seq = 0
        self._changed = asyncio.Event()
        self._failures = 0
        self.sent = asyncio.Event()

    def changed(self) -> None:
        """Something is worth telling."""
        self._changed.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            wait = await self._send()
            if wait is None:
                wait = self._heartbeat_s * (0.8 + random.random() / 5)  # noqa: S311  # jitter
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
                    await asyncio.sleep(GATHER_S)

    async def _send(self) -> float | None:
        """One report; seconds to wait when the member asks for it or did not take it."""
        self._changed.clear()
        self._seq += 1
        request = v1.ReportRequest(
            node=self._node,
            start_counter=self._start_counter,
            seq=self._seq,
            agent_version=__version__,
        )
        self._build(request)
        try:
            answer = await self._client.do(inquiries.fleet_report(request), timeout_s=_CALL_S)
        except ConfigServiceError as error:
            self._failures += 1
            self._log.event("report_failed", level="warning", why=str(error))
            wait = min(RETRY_S[1], RETRY_S[0] * float(2 ** min(self._failures, 16)))
            return wait * (0.5 + random.random() / 2)  # noqa: S311  # jitter
        self._failures = 0
        self.sent.set()
        if answer.heartbeat_ms:
            self._heartbeat_s = answer.heartbeat_ms / 1000
        if answer.retry_after_ms:
            await asyncio.sleep(answer.retry_after_ms / 1000)
        return None


def trust_bundle_digest(path: str) -> str:
    """Which authorities we trust, as the digest of their file; "" when there is none to read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(limits.TRUST_BUNDLE_BYTES_MAX)).hexdigest()
    except OSError:
        return ""


def certificate_expiry_ns(path: str) -> int:
    """When our certificate ends; 0 when there is none to read."""
    return certificate_lifetime_ns(path)[1]


def certificate_lifetime_ns(path: str) -> tuple[int, int]:
    """When our certificate begins and ends; zeros when there is none to read."""
    from cryptography import x509

    try:
        size = os.stat(path).st_size
        if size > limits.TRUST_BUNDLE_BYTES_MAX:
            return 0, 0
        with open(path, "rb") as file:
            leaf = x509.load_pem_x509_certificate(file.read())
    except (OSError, ValueError):
        return 0, 0
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return int(begins.timestamp()) * 1_000_000_000, int(ends.timestamp()) * 1_000_000_000
