"""Passwords and tokens on their way in and out of ``configctl``.

Always true: a secret comes from a prompt, a file or standard input; the token cache is a 0600
file in a 0700 directory of the user's own; a cached token is found again only by the same user
name, certificate and endpoints (CLI-4).
"""

from __future__ import annotations

import getpass
import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from configsvc import limits
from configsvc.cli.exits import CliError, Exit


def read_secret(source: str, what: str) -> str:
    """Read a secret from a file, or from standard input for ``-``; one line end is dropped.

    Raises:
        CliError: unreadable, empty, too long, or not UTF-8.
    """
    try:
        if source == "-":
            data = sys.stdin.buffer.read(limits.CLIENT_SECRET_BYTES_MAX + 2)
        else:
            with Path(source).open("rb") as file:
                data = file.read(limits.CLIENT_SECRET_BYTES_MAX + 2)
    except OSError as error:
        raise CliError(Exit.CONFIG, f"{what} {source}: {error.strerror}") from None
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data or len(data) > limits.CLIENT_SECRET_BYTES_MAX:
        raise CliError(Exit.CONFIG, f"{what} {source}: empty or too long")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CliError(Exit.CONFIG, f"{what} {source}: is not UTF-8") from None


def read_token(source: str) -> str:
    """The same for a token, which no call could carry with other characters.

    Raises:
        CliError: as ``read_secret``, or no token.
    """
    token = read_secret(source, "token file")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CliError(Exit.CONFIG, f"token file {source}: holds something else than a token")
    return token


def ask_password(prompt: str, *, twice: bool = False) -> str:
    """Ask on the terminal.

    Raises:
        CliError: there is no terminal, or the two answers differ.
    """
    if not sys.stdin.isatty():
        raise CliError(Exit.USAGE, "no terminal to ask for a password: use --password-file")
    password = getpass.getpass(f"{prompt}: ")
    if twice and getpass.getpass(f"{prompt}, again: ") != password:
        raise CliError(Exit.USAGE, "the two passwords differ: nothing was changed")
    return password


class TokenCache:
    """Where ``login`` leaves a token for the commands that follow."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        runtime = environment.get("XDG_RUNTIME_DIR")
        self._directory = (
            Path(runtime) / "configctl" if runtime else Path("~/.cache/configctl").expanduser()
        )

    def _path(self, user: str, certificate: bytes, endpoints: str) -> Path:
        digest = hashlib.sha256()
        for part in (user.encode(), certificate, endpoints.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
        return self._directory / f"token-{digest.hexdigest()[:32]}"

    def store(self, user: str, certificate: bytes, endpoints: str, token: str) -> Path:
        """Keep a token until the next login; returns where.

        Raises:
            CliError: the directory is not ours alone.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._directory.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.getuid()
            or status.st_mode & 0o077
        ):
            raise CliError(
                Exit.CONFIG, f"{self._directory}: must be yours alone: chmod 700 {self._directory}"
            )
        path = self._path(user, certificate, endpoints)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token)
        fresh.replace(path)
        return path

    def load(self, user: str, certificate: bytes, endpoints: str) -> str:
        """The kept token, or nothing; a file that others could have touched counts as nothing."""
        try:
            descriptor = os.open(
                self._path(user, certificate, endpoints), os.O_RDONLY | os.O_NOFOLLOW
            )
        except OSError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                return ""
            return file.read(limits.CLIENT_TOKEN_BYTES_MAX).decode("ascii", "replace")
