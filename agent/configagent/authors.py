"""Who changed the keys behind a generation (agent.md J1), filled in after the commit.

A lookup never delays a commit: it runs afterwards, is tried a few times and then given up; what
is missing is shown as not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from typing import Any, Final

from configagent.log import Log
from configagent.records import generation_numbers, read_generation, replace_file, set_folder
from configagent.settings import SetSpec
from configsvc.client import AsyncClient, inquiries, operations
from configsvc.errors import ConfigServiceError
from configsvc.proto import v1_pb2 as v1

_TRIES: Final = 4
_PAUSE_S: Final = 1.0
_KEYS_SINGLY_MAX: Final = 16  # beyond, the whole scope is asked for at once
_CALL_S: Final = 5.0


def author_facts(record: v1.Record) -> dict[str, Any]:
    """What is kept of one change; no value."""
    seconds, nanos = divmod(record.time_ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanos // 10**6:03}Z"
    return {
        "mod_revision": record.revision, "changed_by": record.actor, "via": record.method,
        "changed_at": stamp, "reason": record.reason, "ticket": record.ticket,
        "audit_leaf": record.seq,
    }  # fmt: skip


class Authors:
    """Looks authors up and keeps them beside the generations."""

    def __init__(self, client: AsyncClient, state_dir: str, log: Log) -> None:
        self._client = client
        self._state_dir = state_dir
        self._log = log

    def known(self, name: str, number: int) -> bool:
        """Whether somebody looked up the authors of a generation."""
        base = os.path.join(set_folder(self._state_dir, name), "authors")
        return os.path.exists(os.path.join(base, f"{number}.json"))

    async def fill(self, spec: SetSpec, number: int) -> None:
        """Find the authors of a generation's keys; failures are only noted."""
        for attempt in range(1, _TRIES + 1):
            try:
                sidecar, _ = read_generation(self._state_dir, spec.name, number)
                keys = sorted({key for facts in sidecar["files"] for key in facts["keys"]})
                found = await self._ask(spec, keys, sidecar["target_revision"])
                self._write(spec.name, number, found)
                return
            except ConfigServiceError as error:
                if attempt == _TRIES:
                    self._log.event("authors_unknown", set=spec.name, why=str(error))
                await asyncio.sleep(_PAUSE_S * attempt)
            except (OSError, ValueError):
                return  # the generation went meanwhile

    async def _ask(
        self, spec: SetSpec, keys: list[str], revision: int
    ) -> dict[str, dict[str, Any]]:
        wanted = {key.encode() for key in keys}
        spans = [(key, b"") for key in sorted(wanted)]
        if len(spans) > _KEYS_SINGLY_MAX:
            spans = [operations.prefix_span(spec.span_prefix)]
        found = {}
        for start, end in spans:
            more = True
            while more:  # a member answers with so many at once only
                question = inquiries.blame(start, end, revision=revision)
                answer = await self._client.do(question, timeout_s=_CALL_S)
                for record in answer.records:
                    start = record.key + b"\0"
                    if record.key in wanted:
                        found[record.key.decode()] = author_facts(record)
                more = answer.more and bool(answer.records)
        return found

    def _write(self, name: str, number: int, found: dict[str, Any]) -> None:
        base = os.path.join(set_folder(self._state_dir, name), "authors")
        os.makedirs(base, mode=0o700, exist_ok=True)
        folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            replace_file(folder, f"{number}.json", json.dumps(found).encode())
            kept = {f"{one}.json" for one in generation_numbers(self._state_dir, name)}
            for old in os.listdir(base):
                if old not in kept:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(old, dir_fd=folder)
        finally:
            os.close(folder)
