"""Questions that only need this node: explain, generations, diff, verify, status without a daemon.

Nothing here talks to the store or changes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from configagent.commits import deviation
from configagent.disk import digest
from configagent.errors import Exit, SettingsError
from configagent.inputs import InputsError, load_inputs, stored_number
from configagent.once import unified
from configagent.paths import Roots
from configagent.records import (
    Record,
    generation_numbers,
    load_record,
    read_generation,
    set_folder,
)
from configagent.seal import NodeKey
from configagent.settings import SetSpec, Settings


def path_of(spec: SetSpec, name: str) -> str:
    """Where a file is seen by services."""
    return f"{spec.dir}/current/{name}" if spec.commit == "dir" else name


def statuses(settings: Settings) -> list[dict[str, Any]]:
    """Sets as the records have them."""
    found = []
    for spec in settings.sets:
        record = load_record(settings.state_dir, spec.name)
        found.append(
            {
                "set": spec.name,
                "outcome": record.outcome,
                "reason": record.reason,
                "generation": record.generation,
                "good": record.good,
                "content_revision": record.content_revision,
                "target_revision": record.target_revision,
                "attempts": record.attempts,
                "changed_ns": record.changed_ns,
                "to_notify": record.to_notify,
                "cause": record.cause,
                "deviations": [],
            }
        )
    return found


def authors(settings: Settings, set_name: str, number: int) -> dict[str, dict[str, Any]]:
    """Who changed each key of a generation, as far as it is known here."""
    path = os.path.join(set_folder(settings.state_dir, set_name), "authors", f"{number}.json")
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sidecar(settings: Settings, record: Record) -> dict[str, Any]:
    """The present generation's sidecar.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return read_generation(settings.state_dir, record.set, record.generation)[0]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "damaged"
        raise SettingsError(
            f"generation {record.generation} of {record.set}: {why}: see `configagent verify`"
        ) from None


def explain(settings: Settings, path: str) -> dict[str, Any] | None:
    """Where a managed file comes from: generation, template, keys and their authors."""
    path = os.path.abspath(path)
    for spec in settings.sets:
        record = load_record(settings.state_dir, spec.name)
        for file in spec.files:
            if path not in (path_of(spec, file.name), file.link or None):
                continue
            if not record.generation:
                return {"set": spec.name, "path": path, "outcome": record.outcome, "generation": 0}
            sidecar = _sidecar(settings, record)
            facts: dict[str, Any] = next(
                (f for f in sidecar["files"] if f["name"] == file.name), {}
            )
            known = authors(settings, spec.name, record.generation)
            keys = [{"key": key} | known.get(key, {}) for key in facts.get("keys", [])]
            return {
                "set": spec.name, "path": path, "outcome": record.outcome,
                "generation": record.generation, "cause": sidecar["cause"],
                "content_revision": sidecar["content_revision"],
                "target_revision": sidecar["target_revision"],
                "template": facts.get("template"), "sha256": facts.get("sha256"),
                "mode": facts.get("mode"), "owner": facts.get("owner"), "keys": keys,
            }  # fmt: skip
    return None


def explain_key(settings: Settings, key: str) -> dict[str, Any] | None:
    """Which files of present generations come from a key, and who set it; None: out of all scopes.

    A key that no template has read yet, or that is read only through a glob without a match, has
    no files.
    """
    scopes = [spec for spec in settings.sets if key.startswith(spec.prefix + "/")]
    if not scopes:
        return None
    files = []
    for spec in scopes:
        record = load_record(settings.state_dir, spec.name)
        if not record.generation:
            continue
        sidecar = _sidecar(settings, record)
        known = authors(settings, spec.name, record.generation)
        files += [
            {
                "set": spec.name, "path": path_of(spec, facts["name"]), "outcome": record.outcome,
                "generation": record.generation,
                "content_revision": sidecar["content_revision"],
            } | known.get(key, {})
            for facts in sidecar["files"] if key in facts["keys"]
        ]  # fmt: skip
    return {"key": key, "sets": [spec.name for spec in scopes], "files": files}


def generations(settings: Settings, spec: SetSpec) -> Iterator[dict[str, Any]]:
    """Stored generations, newest first."""
    record = load_record(settings.state_dir, spec.name)
    for number in reversed(generation_numbers(settings.state_dir, spec.name)):
        try:
            sidecar, _ = read_generation(settings.state_dir, spec.name, number)
        except (OSError, ValueError):
            yield {"generation": number, "damaged": True}
            continue
        yield {
            "generation": number,
            "current": number == record.generation,
            "good": number == record.good,
            "content_revision": sidecar["content_revision"],
            "cause": sidecar["cause"],
            "files": len(sidecar["files"]),
        }


def diff(settings: Settings, key: NodeKey, spec: SetSpec, first: int, second: int) -> str:
    """What changed between two stored generations; secrets masked.

    Raises:
        OSError: one of them is not there.
        ValueError: one of them is damaged.
    """
    sides = []
    secret: set[str] = set()
    for number in (first, second):
        sidecar, sealed = read_generation(settings.state_dir, spec.name, number)
        secret |= {facts["name"] for facts in sidecar["files"] if facts["secret"]}
        sides.append(key.open(spec.name, number, sealed))
    old, new = sides
    return "".join(
        unified(name, old.get(name), new.get(name), hidden=name in secret)
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


class Verdict(NamedTuple):
    """Whether a set's files are what was committed."""

    name: str
    code: Exit
    problems: list[str]


def verify(settings: Settings, key: NodeKey, spec: SetSpec) -> Verdict:
    """Files against record and sidecar, offline (J5)."""
    record = load_record(settings.state_dir, spec.name)
    if not record.generation:
        return Verdict(spec.name, Exit.CONVERGED, [])
    problems = _sidecar_problems(settings, key, record)
    if stored_number(settings.state_dir, spec.name):
        try:
            load_inputs(settings.state_dir, key, spec, record)
        except InputsError as error:
            problems.append(str(error))
    if problems:
        return Verdict(spec.name, Exit.REFUSED, problems)
    roots = Roots(settings.allow_roots)
    for facts in record.files:
        path = facts["name"]
        if record.where[0] == "dir":
            path = f"{record.where[1]}/generations/{record.generation}/{path}"
        differs = deviation(roots, path, facts, key.digest_key)
        if differs is not None:
            problems.append(f"{path}: {differs[0]}")
    return Verdict(spec.name, Exit.DRIFT if problems else Exit.CONVERGED, problems)


def _sidecar_problems(settings: Settings, key: NodeKey, record: Record) -> list[str]:
    number = record.generation
    try:
        sidecar, sealed = read_generation(settings.state_dir, record.set, number)
        contents = key.open(record.set, number, sealed)
        facts: dict[str, dict[str, Any]] = {one["name"]: one for one in sidecar["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"generation {number} of {record.set}: damaged ({type(error).__name__})"]
    expected = {one["name"]: one["digest"] for one in record.files}
    found = []
    for name, content in contents.items():
        published = hashlib.sha256(content).hexdigest()
        keyed = digest(key.digest_key, content)
        said = facts.get(name, {}).get("sha256")
        if keyed != expected.get(name) or said not in (published, "hmac:" + keyed):
            found.append(f"generation {number} of {record.set}: {name} does not match its sidecar")
    if contents.keys() != expected.keys():
        found.append(f"generation {number} of {record.set}: other files than recorded")
    return found
