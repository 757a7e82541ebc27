"""``apply --once``, ``plan`` and ``rollback`` without a running daemon: one pass, then an answer.

The same runners, pipelines and plans as in the daemon (M6); only who waits differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from typing import Any, Final, NamedTuple

from configagent.agent import Agent
from configagent.errors import Exit, SettingsError, StepError, exit_of, worst
from configagent.feed import Feed
from configagent.pipeline import Prepared
from configagent.records import read_generation
from configagent.runner import SetRunner
from configagent.snapshot import Snapshot
from configagent.trial import try_check
from configsvc.errors import CompactedError, FutureRevError

POLL_S: Final = 0.02
AUTHORS_S: Final = 1.0  # for the names behind a commit that is done; then they stay unknown


class Answer(NamedTuple):
    """How one set ended."""

    name: str
    code: Exit
    reason: str
    generation: int


def _answer(runner: SetRunner, before: int, *, offline: bool) -> Answer:
    plan, record = runner.plan, runner.pipeline.record
    code = exit_of(plan.outcome)
    reason = plan.reason
    if offline:
        code = Exit.OFFLINE
        reason = reason or _silence(runner.feed)
    elif code is Exit.CONVERGED and record.generation != before:
        code = Exit.CHANGED
    return Answer(runner.name, code, reason, record.generation)


async def apply_once(
    agent: Agent, names: list[str], timeout_s: float, *, wait: bool
) -> list[Answer]:
    """Bring sets to the store's present state, once.

    Args:
        agent: Started, not followed.
        names: Which sets; empty: all.
        timeout_s: For everything together.
        wait: Wait for missing keys until then, instead of giving up at once.
    """
    chosen = [r for name, r in agent.runners.items() if not names or name in names]
    before = {runner.name: runner.pipeline.record.generation for runner in chosen}
    deadline = time.monotonic() + timeout_s
    agent.follow(names)
    while time.monotonic() < deadline:
        if all(_is_done(runner, wait=wait) for runner in chosen):
            break
        await asyncio.sleep(POLL_S)
    await asyncio.gather(*(runner.looked_up(AUTHORS_S) for runner in chosen))
    return [
        _answer(
            runner,
            before[runner.name],
            offline=not _is_live(runner) and runner.plan.outcome in ("converged", "pending"),
        )
        for runner in chosen
    ]


def _is_live(runner: SetRunner) -> bool:
    """Whether the store itself was asked; stored inputs are only the second best."""
    return runner.decided.is_set() and runner.feed is not None and not runner.feed.from_cache


def _is_done(runner: SetRunner, *, wait: bool) -> bool:
    plan = runner.plan
    if not _is_live(runner) or plan.busy is not None or plan.behind:
        return False
    if plan.outcome in ("pending", "rendering"):
        return False
    waiting = wait and plan.outcome in ("render_failed", "held", "check_failed")
    return not waiting


class Difference(NamedTuple):
    """What a set would become."""

    name: str
    code: Exit
    text: str  # unified diff, secrets masked; or the reason why there is none


async def show_plan(
    agent: Agent, names: list[str], timeout_s: float, *, revision: int = 0, check: bool = False
) -> list[Difference]:
    """What ``apply`` would change; changes nothing.

    Args:
        agent: Started without acting.
        names: Which sets; empty: all.
        timeout_s: For the store's answer; then what is stored here decides, with exit 14.
        revision: Judge this revision of the store instead of the present one; 0: the present one.
        check: Run the sets' check commands too, on a tree of its own.

    Raises:
        SettingsError: the store has no such revision (any more).
    """
    agent.follow(names, run=False)
    found = []
    for name, runner in agent.runners.items():
        if names and name not in names:
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while runner.feed is None or runner.feed.snapshot is None or runner.feed.from_cache:
                    await asyncio.sleep(POLL_S)
        found.append(await _difference(agent, runner, revision, check=check))
    return found


async def _difference(agent: Agent, runner: SetRunner, revision: int, *, check: bool) -> Difference:
    feed = runner.feed
    if feed is None or feed.snapshot is None or (revision and feed.from_cache):
        return Difference(runner.name, Exit.OFFLINE, _silence(feed) + "\n")
    snapshot = await _at(feed, revision) if revision else feed.snapshot
    try:
        bounds = snapshot.too_large(agent.settings.limits)
        prepared = await runner.pipeline.prepare(snapshot, bounds=bounds)
        if check:
            await try_check(
                runner.pipeline.spec, prepared.items, snapshot, agent.settings.state_dir
            )
    except StepError as error:
        return Difference(runner.name, error.exit, f"{error}\n")
    same = prepared.root == runner.pipeline.record.root
    text = "" if same else _diff_text(agent, runner, prepared)
    if feed.from_cache:
        note = f"{_silence(feed)}; inputs of {runner.cache}\n"
        return Difference(runner.name, Exit.OFFLINE, note + text)
    return Difference(runner.name, Exit.CONVERGED if same else Exit.WOULD_CHANGE, text)


def _silence(feed: Feed | None) -> str:
    """That the store gave no answer, and why as far as we know."""
    why = feed.trouble if feed is not None else ""
    return "the store does not answer" + (f": {why}" if why else "")


async def _at(feed: Feed, revision: int) -> Snapshot:
    try:
        return await feed.read_at(revision)
    except (CompactedError, FutureRevError) as error:
        raise SettingsError(f"revision {revision}: {error}") from None


def _diff_text(agent: Agent, runner: SetRunner, prepared: Prepared) -> str:
    record = runner.pipeline.record
    old: dict[str, bytes] = {}
    secret: set[str] = {o.spec.name for o in prepared.rendered.outputs if o.secret}
    lost = ""
    if record.generation:
        state_dir = agent.settings.state_dir
        try:
            sidecar, sealed = read_generation(state_dir, runner.name, record.generation)
            old = agent.node_key.open(runner.name, record.generation, sealed)
            secret |= {facts["name"] for facts in sidecar["files"] if facts["secret"]}
        except (OSError, ValueError):
            lost = f"generation {record.generation} cannot be read: shown as if there were none\n"
    new = {item.name: item.content for item in prepared.items}
    parts = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            hidden = name in secret
            parts.append(unified(name, old.get(name), new.get(name), hidden=hidden))
    return lost + ("".join(parts) or "only owner or mode differ\n")


def unified(name: str, old: bytes | None, new: bytes | None, *, hidden: bool) -> str:
    """A unified diff of one file; a hidden one only says that it differs."""
    if hidden:
        return f"--- {name}\n+++ {name}\n(secret content differs)\n"
    try:
        before = (old or b"").decode().splitlines(keepends=True)
        after = (new or b"").decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return f"--- {name}\n+++ {name}\n(binary content differs)\n"
    lines = list(difflib.unified_diff(before, after, name, name))
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def worst_of(answers: list[Any]) -> Exit:
    """The exit code for several sets."""
    return worst(answer.code for answer in answers)
