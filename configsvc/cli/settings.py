"""Where ``configctl`` gets its settings from: flags, then environment, then the context file.

Always true: unknown settings are refused by name; a relative path in a context file counts from
that file; a context file that others may write is not trusted; no secret is ever taken from the
command line or the environment (CLI-1).
"""

from __future__ import annotations

import argparse
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from configsvc.cli.exits import CliError, Exit
from configsvc.cli.times import parse_seconds

DEFAULT_ENDPOINTS: Final = "https://127.0.0.1:2379"
_SETTINGS: Final = ("endpoints", "cacert", "cert", "key", "timeout", "user", "token_file")
_PATHS: Final = frozenset({"cacert", "cert", "key", "token_file"})
_ENVIRONMENT: Final = {f"CONFIGCTL_{name.upper()}": name for name in _SETTINGS}
# What `lock` and `elect` hand to the command they run; it may call configctl in turn.
_PASSED_ON: Final = frozenset(
    {"CONFIGCTL_CONTEXT", "CONFIGCTL_FENCING_TOKEN", "CONFIGCTL_LOCK_KEY", "CONFIGCTL_LEASE"}
)
_SECRET_FLAGS: Final = ("--password", "--token", "--jwt", "--secret")
_SECRET_VARIABLES: Final = ("CONFIGCTL_PASSWORD", "CONFIGCTL_TOKEN")
_HINT: Final = "give a file (--password-file, --token-file; - is standard input) or be asked"


class Settings(NamedTuple):
    """Resolved settings; empty is "not given"."""

    endpoints: str
    cacert: str
    cert: str
    key: str
    timeout_s: float | None
    user: str
    token_file: str


def refuse_secrets(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Stop before a secret on the command line or in the environment is used.

    Raises:
        CliError: usage, with the way out; the secret is not repeated.
    """
    for word in argv:
        if word == "--":
            break
        if word.split("=", 1)[0] in _SECRET_FLAGS:
            flag = word.split("=", 1)[0]
            raise CliError(Exit.USAGE, f"{flag}: no secrets on the command line: {_HINT}")
    for name in _SECRET_VARIABLES:
        if name in environment:
            raise CliError(Exit.CONFIG, f"{name}: no secrets in the environment: {_HINT}")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith("CONFIGCTL_") or name in _PASSED_ON:
            continue
        if name not in _ENVIRONMENT:
            known = ", ".join([*_ENVIRONMENT, "CONFIGCTL_CONTEXT"])
            raise CliError(Exit.CONFIG, f"{name} is no variable of configctl: known are {known}")
        if text:
            found[_ENVIRONMENT[name]] = text
    return found


def _context_path(flag: str, environment: Mapping[str, str]) -> tuple[Path, bool]:
    """The context file, and whether it was asked for."""
    named = flag or environment.get("CONFIGCTL_CONTEXT", "")
    if named:
        return Path(named), True
    home = environment.get("XDG_CONFIG_HOME") or str(Path("~/.config").expanduser())
    return Path(home) / "configctl" / "context.toml", False


def _from_context(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise CliError(Exit.CONFIG, f"{path}: others may write it: chmod go-w {path}")
            found = tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise CliError(Exit.CONFIG, f"context file {path}: no such file") from None
        return {}
    except OSError as error:
        raise CliError(Exit.CONFIG, f"context file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CliError(Exit.CONFIG, f"context file {path}: {error}") from None
    for name, setting in found.items():
        if name not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise CliError(Exit.CONFIG, f"{path}: {name}: unknown; known are {known}")
        if name == "endpoints" and isinstance(setting, list):
            found[name] = ",".join(str(part) for part in setting)
        elif name == "timeout" and isinstance(setting, (int, float)):
            found[name] = str(setting)
        elif not isinstance(setting, str):
            raise CliError(Exit.CONFIG, f"{path}: {name}: must be a string")
        elif name in _PATHS and setting:
            found[name] = str(path.parent / Path(setting).expanduser())
    return found


def resolve(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Merge the sources.

    Raises:
        CliError: an unknown or unusable setting, by name.
    """
    path, required = _context_path(args.context or "", environment)
    merged = _from_context(path, required=required)
    merged.update(_from_environment(environment))
    given = {name: getattr(args, name, None) for name in _SETTINGS}
    merged.update({name: setting for name, setting in given.items() if setting})
    if ":" in merged.get("user", ""):
        raise CliError(Exit.USAGE, f"--user takes a name only: {_HINT}")
    timeout = merged.get("timeout")
    return Settings(
        endpoints=merged.get("endpoints", DEFAULT_ENDPOINTS),
        cacert=merged.get("cacert", ""),
        cert=merged.get("cert", ""),
        key=merged.get("key", ""),
        timeout_s=parse_seconds(timeout) if timeout else None,
        user=merged.get("user", ""),
        token_file=merged.get("token_file", ""),
    )
