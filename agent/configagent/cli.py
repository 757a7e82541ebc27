"""``configagent``: the daemon, one pass, and requests to a running daemon (agent.md 7).

Commands that change something ask the running daemon over its socket, or act themselves when
none runs. Every command takes ``--config`` and most ``--json``.

Not here: commands that only look at this node (``questions``).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from configagent import questions
from configagent.agent import Agent, serve
from configagent.config import load
from configagent.control import ask
from configagent.errors import Exit, SettingsError
from configagent.log import Log
from configagent.once import apply_once, show_plan, worst_of
from configagent.settings import Settings
from configagent.toml_text import parse_duration
from configsvc.errors import ConfigServiceError

CONFIG_DEFAULT: Final = "/etc/configagent/agent.toml"
Arguments = argparse.Namespace


def _duration(text: str) -> float:
    """Seconds, of ``30`` or ``30s`` or ``500ms``."""
    try:
        found = float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30s") from None
    return found


def _whole(text: str) -> int:
    """A revision or the number of a generation."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold values (I7)
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        return Exit.CONVERGED if not stop.code else Exit.USAGE
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except SettingsError as error:
        print(f"configagent: {error}", file=sys.stderr)
        return error.exit
    except ConfigServiceError as error:
        print(f"configagent: {error}", file=sys.stderr)
        return Exit.OFFLINE
    except BrokenPipeError:
        _drop_output()  # the reader went away, as `head` does
        return Exit.CONVERGED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else None
        if where is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            _drop_output()
            where = "standard output"
        said = error.strerror or type(error).__name__
        print(f"configagent: {where}: {said}" if where else f"configagent: {said}", file=sys.stderr)
        return Exit.DISK


def _drop_output() -> None:
    """Nothing more can be written, and the interpreter must not try at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="configagent", description="keys become files")
    parser.add_argument("--config", default=CONFIG_DEFAULT, metavar="FILE")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Arguments], int], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE")
        return made

    add("run", run_daemon, "follow the store until stopped")
    once = add("apply", run_apply, "bring sets to the store's present state, once")
    once.add_argument("--once", action="store_true", help="the only way there is")
    once.add_argument("--set", action="append", default=[], metavar="SET")
    once.add_argument(
        "--timeout", type=_duration, default=30.0, metavar="T", help="as 30s; 30s by default"
    )
    once.add_argument("--wait", action="store_true", help="wait for missing keys")
    plan = add("plan", run_plan, "show what apply would change")
    plan.add_argument("--set", action="append", default=[], metavar="SET")
    plan.add_argument(
        "--timeout", type=_duration, default=30.0, metavar="T", help="as 30s; 30s by default"
    )
    plan.add_argument("--rev", type=_whole, default=0, metavar="N", help="at an older revision")
    plan.add_argument("--check", action="store_true", help="run the check commands too")
    render = add("render", run_render, "render a template without a store")
    render.add_argument("template")
    render.add_argument("--data", metavar="FILE", help="JSON object: key -> value")
    for name, run, text in (
        ("check", questions.run_check, "judge the configuration and this node"),
        ("doctor", questions.run_doctor, "what is weaker here than it could be"),
        ("status", questions.run_status, "what is applied here"),
        ("verify", questions.run_verify, "files against what was committed, offline"),
    ):
        add(name, run, text).add_argument("--json", action="store_true")
    status = commands.choices["status"]
    status.add_argument("--watch", action="store_true", help="again at every change")
    status.add_argument("--strict", action="store_true", help="exit with the worst set's code")
    explain = add("explain", questions.run_explain, "where a file comes from, or where a key goes")
    explain.add_argument("path", nargs="?")
    explain.add_argument("--key", metavar="KEY", help="the files that come from a key")
    explain.add_argument("--json", action="store_true")
    listed = add("generations", questions.run_generations, "stored generations")
    listed.add_argument("set", nargs="?")
    listed.add_argument("--json", action="store_true")
    compare = add("diff", questions.run_diff, "what changed between two generations")
    compare.add_argument("set")
    compare.add_argument("first", type=_whole)
    compare.add_argument("second", type=_whole)
    back = add("rollback", run_rollback, "put an older generation back, from this node's store")
    back.add_argument("set")
    back.add_argument("--to", type=_whole, default=0, metavar="GENERATION")
    for name, text in (("retry", "try again"), ("approve", "let a held output through")):
        add(name, run_request, text).add_argument("set")
        commands.choices[name].set_defaults(request=name)
    add("reload", run_request, "read the configuration again").set_defaults(
        request="reload", set=""
    )
    return parser


# --- daemon and one pass --------------------------------------------------------------------------


def run_daemon(arguments: Arguments) -> int:
    """``run``."""
    settings = load(arguments.config)
    return asyncio.run(_daemon(settings))


async def _daemon(settings: Settings) -> int:
    agent = Agent(settings, Log(settings.log_level))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[str]] = set()

    def reload() -> None:
        task = loop.create_task(agent.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await agent.start()
    except BaseException:
        await agent.stop()
        raise
    await serve(agent, stop)
    return Exit.CONVERGED


def run_apply(arguments: Arguments) -> int:
    """``apply --once``."""
    settings = load(arguments.config)
    _known(settings, arguments.set)

    async def once() -> int:
        agent = Agent(settings, Log("warning"))
        try:
            await agent.start(report=False)
            answers = await apply_once(agent, arguments.set, arguments.timeout, wait=arguments.wait)
        finally:
            await agent.stop()
        for one in answers:
            print(f"{one.name}: generation {one.generation}: {one.code.name.lower()} {one.reason}")
        return worst_of(answers)

    return asyncio.run(once())


def run_plan(arguments: Arguments) -> int:
    """``plan``."""
    settings = load(arguments.config)
    _known(settings, arguments.set)

    async def once() -> int:
        agent = Agent(settings, Log("warning"))
        try:
            await agent.start(act=False, report=False)
            found = await show_plan(
                agent, arguments.set, arguments.timeout,
                revision=arguments.rev, check=arguments.check,
            )  # fmt: skip
        finally:
            await agent.stop()
        for one in found:
            if one.code is not Exit.CONVERGED:
                print(f"# {one.name}: {one.code.name.lower()}\n{one.text}", end="")
        return worst_of(found)

    return asyncio.run(once())


def run_render(arguments: Arguments) -> int:
    """``render``."""
    from configagent.child import Child, ChildLostError
    from configagent.render import read_template
    from configsvc import limits

    data: Any = {}
    if arguments.data:
        try:
            with open(arguments.data, "rb") as file:
                data = json.load(file)
        except OSError as error:
            raise SettingsError(f"{arguments.data}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{arguments.data}: is no JSON: {error}") from None
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise SettingsError(f"{arguments.data}: a JSON object of strings is wanted")
    keys = {("/" + key.lstrip("/")): value.encode() for key, value in data.items()}
    try:
        source = read_template(os.path.realpath(arguments.template))
    except ConfigServiceError as error:
        raise SettingsError(str(error)) from None

    async def once() -> dict[str, Any]:
        child = Child("configagent.render_worker")
        try:
            await child.start()
            return await child.call(
                {
                    "op": "render", "source": source, "keys": keys, "scope": [], "set": "render",
                    "revision": 0, "env": {}, "node": {"name": "render", "labels": {}},
                    "bytes_max": limits.AGENT_OUTPUT_BYTES_MAX, "format": "",
                },
                limits.AGENT_RENDER_SECONDS_MAX,
            )  # fmt: skip
        finally:
            await child.close()

    try:
        answer = asyncio.run(once())
    except ChildLostError as error:
        print(f"{arguments.template}: the render worker {error}", file=sys.stderr)
        return Exit.RENDER
    if "error" in answer:
        print(f"{arguments.template} line {answer['line']}: {answer['error']}", file=sys.stderr)
        return Exit.RENDER
    sys.stdout.write(answer["text"])
    return Exit.CONVERGED


# --- requests -------------------------------------------------------------------------------------


def run_request(arguments: Arguments) -> int:
    """``retry``, ``approve``, ``reload``."""
    settings = load(arguments.config)
    if arguments.set:
        _known(settings, [arguments.set])
    try:
        answer = ask(settings.socket, {"command": arguments.request, "set": arguments.set})
    except (OSError, ValueError):
        raise SettingsError(f"no agent answers on {settings.socket}") from None
    if arguments.request == "reload" and answer.get("done"):
        raise SettingsError(str(answer["done"]))
    if answer.get("error") or answer.get("done") is False:
        raise SettingsError(str(answer.get("error") or "there is nothing to do"))
    return Exit.CONVERGED


def run_rollback(arguments: Arguments) -> int:
    """``rollback``: through the daemon, or by itself when none runs (E11)."""
    settings = load(arguments.config)
    _known(settings, [arguments.set])
    request = {"command": "rollback", "set": arguments.set, "to": arguments.to}
    try:
        answer = ask(settings.socket, request)
    except (OSError, ValueError):
        return asyncio.run(_rollback_alone(settings, arguments.set, arguments.to))
    if not answer.get("done"):
        raise SettingsError("there is no such generation, or the set is busy")
    return Exit.CHANGED


async def _rollback_alone(settings: Settings, name: str, to: int) -> int:
    agent = Agent(settings, Log("warning"))
    try:
        await agent.start(store=False, report=False)
        runner = agent.runners[name]
        if not runner.roll_back(to):
            raise SettingsError("there is no such generation")
        async with asyncio.timeout(120):
            while runner.plan.wake_at() is not None:
                await runner.turn()
    finally:
        await agent.stop()
    print(f"{name}: generation {runner.pipeline.record.generation} {runner.plan.reason}")
    done = runner.plan.outcome == "rolled_back"
    return Exit.CHANGED if done else Exit.ROLLBACK_FAILED


def _known(settings: Settings, names: list[str]) -> None:
    for name in names:
        questions.known_set(settings, name)


if __name__ == "__main__":
    sys.exit(main())
