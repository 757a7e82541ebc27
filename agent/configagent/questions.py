"""Commands that only look at this node: check, doctor, status, verify, explain, generations, diff.

They print for people, or JSON with ``--json``, and return the exit code. None of them changes
anything, and none needs the store.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, Final

from configagent import local
from configagent.checkup import check_node
from configagent.config import load
from configagent.control import ask
from configagent.doctor import examine
from configagent.errors import Exit, SettingsError, exit_of, worst
from configagent.seal import NodeKey, load_key
from configagent.settings import SetSpec, Settings

Arguments = argparse.Namespace
WATCH_S: Final = 0.5  # between two looks of ``status --watch``


def run_check(arguments: Arguments) -> int:
    """``check``."""
    settings = load(arguments.config)
    findings = check_node(settings)
    if arguments.json:
        print_json([one._asdict() for one in findings])
    else:
        for one in findings:
            print(f"{'ok' if one.code is Exit.CONVERGED else 'PROBLEM':<8} {one.what}: {one.text}")
    return worst(one.code for one in findings)


def run_doctor(arguments: Arguments) -> int:
    """``doctor``: 0 when nothing is weaker than it could be, else 3."""
    found = examine(load(arguments.config))
    if arguments.json:
        print_json([one._asdict() for one in found])
    else:
        for one in found:
            print(f"{'weaker' if one.weaker else 'ok':<8} {one.what}: {one.text}")
    return Exit.WOULD_CHANGE if any(one.weaker for one in found) else Exit.CONVERGED


def run_status(arguments: Arguments) -> int:
    """``status``: 0, or with ``--strict`` the code of the worst set."""
    settings = load(arguments.config)
    found = _status(settings)
    _show_status(found, as_json=arguments.json)
    while arguments.watch:
        try:
            time.sleep(WATCH_S)
        except KeyboardInterrupt:
            break
        before, found = found, _status(settings)
        if _settled(found) != _settled(before):
            _show_status(found, as_json=arguments.json)
    codes = (exit_of(one["outcome"]) for one in found["sets"])
    return worst(codes) if arguments.strict else Exit.CONVERGED


def _status(settings: Settings) -> dict[str, Any]:
    try:
        return ask(settings.socket, {"command": "status"})
    except PermissionError:
        who = "as the agent's user, as root or as one of its socket_group"
        raise SettingsError(f"{settings.socket}: not for this account: ask {who}") from None
    except (OSError, ValueError):
        return {"node": settings.node, "link": "stopped", "sets": local.statuses(settings)}


def _settled(found: dict[str, Any]) -> list[Any]:
    """What ``--watch`` shows again when it changes; no clocks and counters."""
    seen = ("set", "outcome", "generation", "content_revision", "reason")
    return [found["link"], *([one[name] for name in seen] for one in found["sets"])]


def _show_status(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print(f"{found['node']}: {found['link']}")
        for one in found["sets"]:
            line = f"{one['set']:<16} {one['outcome']:<16} generation {one['generation']}"
            print(f"{line} revision {one['content_revision']} {one['reason']}".rstrip())
            if one.get("cache"):
                print(f"{'':<16} inputs: {one['cache']}")
    sys.stdout.flush()


def run_verify(arguments: Arguments) -> int:
    """``verify``."""
    settings = load(arguments.config)
    key = _key(settings)
    verdicts = [local.verify(settings, key, spec) for spec in settings.sets]
    if arguments.json:
        print_json([one._asdict() for one in verdicts])
    else:
        for one in verdicts:
            print(f"{one.name}: {'; '.join(one.problems) or 'as committed'}")
    return worst(one.code for one in verdicts)


def run_explain(arguments: Arguments) -> int:
    """``explain PATH`` or ``explain --key KEY``."""
    if (arguments.path is None) == (arguments.key is None):
        raise SettingsError("explain: a PATH or --key KEY is wanted")
    settings = load(arguments.config)
    if arguments.key is not None:
        return _explain_key(settings, arguments.key, as_json=arguments.json)
    found = local.explain(settings, arguments.path)
    if found is None:
        raise SettingsError(f"{arguments.path}: no set manages it")
    if arguments.json:
        print_json(found)
        return Exit.CONVERGED
    keys = found.pop("keys", [])
    for name, value in found.items():
        print(f"{name:<18} {value['src'] if isinstance(value, dict) else value}")
    for one in keys:
        print(f"  {one['key']:<32} {_who(one)}".rstrip())
    return Exit.CONVERGED


def _explain_key(settings: Settings, key: str, *, as_json: bool) -> int:
    found = local.explain_key(settings, key)
    if found is None:
        raise SettingsError(f"{key}: lies in the scope of no set")
    if as_json:
        print_json(found)
        return Exit.CONVERGED
    print(f"{'key':<18} {key}")
    print(f"{'in scope of':<18} {' '.join(found['sets'])}")
    for one in found["files"]:
        place = f"{one['set']} generation {one['generation']} {one['outcome']}"
        print(f"  {one['path']:<32} {place}: {_who(one)}".rstrip())
    if not found["files"]:
        print("  no file of a present generation read it")
    return Exit.CONVERGED


def _who(one: dict[str, Any]) -> str:
    if "changed_by" not in one:
        return "author not known here"
    return f"{one['changed_by']} {one['changed_at']} leaf {one['audit_leaf']} {one['reason']}"


def run_generations(arguments: Arguments) -> int:
    """``generations``."""
    settings = load(arguments.config)
    chosen = [known_set(settings, arguments.set)] if arguments.set else list(settings.sets)
    found = {spec.name: list(local.generations(settings, spec)) for spec in chosen}
    if arguments.json:
        print_json(found)
        return Exit.CONVERGED
    for name, rows in found.items():
        for row in rows:
            marks = " ".join(m for m in ("current", "good", "damaged") if row.get(m))
            text = f"revision {row.get('content_revision', '?')} {row.get('cause', '')}"
            print(f"{name} {row['generation']:>5} {text} {marks}".rstrip())
    return Exit.CONVERGED


def run_diff(arguments: Arguments) -> int:
    """``diff``."""
    settings = load(arguments.config)
    spec = known_set(settings, arguments.set)
    try:
        text = local.diff(settings, _key(settings), spec, arguments.first, arguments.second)
    except FileNotFoundError as error:
        number = os.path.basename(error.filename).removesuffix(".gen")
        raise SettingsError(
            f"{arguments.set}: generation {number} is not stored here: see `generations`"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{arguments.set}: {error}") from None
    sys.stdout.write(text)
    return Exit.WOULD_CHANGE if text else Exit.CONVERGED


# --- helpers --------------------------------------------------------------------------------------


def known_set(settings: Settings, name: str) -> SetSpec:
    """The set of that name.

    Raises:
        SettingsError: there is none.
    """
    spec = settings.set_named(name)
    if spec is None:
        raise SettingsError(f"there is no set {name}")
    return spec


def _key(settings: Settings) -> NodeKey:
    path = settings.cache_key or os.path.join(settings.state_dir, "node.key")
    return load_key(path, settings.node, create=False)


def print_json(value: Any) -> None:
    """For scripts."""
    print(json.dumps(value, indent=2, sort_keys=True))
