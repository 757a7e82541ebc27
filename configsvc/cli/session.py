"""What a command is run with: arguments, output, and a client made on first use."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configsvc.cli import secrets
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import Out, escape
from configsvc.cli.settings import Settings, resolve
from configsvc.cli.times import When, parse_when, show_time
from configsvc.errors import ConfigServiceError

if TYPE_CHECKING:
    from configsvc.client import Client, ClientSettings, Why


class Session:
    """One run of ``configctl``."""

    def __init__(
        self,
        args: argparse.Namespace,
        *,
        environment: Mapping[str, str] = os.environ,
        out: Out | None = None,
    ) -> None:
        self.args = args
        self.environment = environment
        self.out = out or Out(as_json=args.json, raw=args.raw)
        self._client: Client | None = None
        self._password = ""

    @property
    def settings(self) -> Settings:
        """Flags, environment and context file, merged."""
        return resolve(self.args, self.environment)

    @property
    def client(self) -> Client:
        """The cluster; connects on the first call."""
        if self._client is None:
            from configsvc.client import Client

            self._client = Client(self._client_settings())
        return self._client

    def _client_settings(self) -> ClientSettings:
        from configsvc import limits
        from configsvc.client import ClientSettings, Login, TlsFiles, parse_endpoints

        own = self.settings
        token = secrets.read_token(own.token_file) if own.token_file else ""
        login = None
        if own.user and not token:
            token = self.cached_token(own)
            login = Login(own.user, self.password)
        return ClientSettings(
            endpoints=parse_endpoints(own.endpoints),
            tls=TlsFiles(own.cacert, own.cert, own.key),
            timeout_s=own.timeout_s or limits.CLIENT_TIMEOUT_S,
            token=token,
            login=login,
        )

    def password(self) -> str:
        """The password of ``--user``: from its file, or asked for.

        Asked once: a token that runs out later must not stop a lease's renewal at a prompt.
        """
        if not self._password:
            source = getattr(self.args, "login_password_file", None)
            self._password = (
                secrets.read_secret(source, "password file")
                if source
                else secrets.ask_password(f"Password of {escape(self.settings.user)}")
            )
        return self._password

    def cached_token(self, settings: Settings) -> str:
        """A token that ``login`` left for this user, certificate and cluster."""
        cache = secrets.TokenCache(self.environment)
        return cache.load(settings.user, self.certificate(settings), settings.endpoints)

    @staticmethod
    def certificate(settings: Settings) -> bytes:
        """The client certificate's bytes, for binding; empty when there is none to read."""
        try:
            return Path(settings.cert).read_bytes() if settings.cert else b""
        except OSError:
            return b""

    def about_certificate(self, error: ConfigServiceError) -> str:
        """What is wrong with our certificate when a member did not take it, as far as we see."""
        if self._client is None:
            return ""
        from configsvc.cli.commands_pki import read_leaf
        from configsvc.client.errors import CERTIFICATE_REFUSED

        if CERTIFICATE_REFUSED not in str(error):
            return ""
        path = self.settings.cert
        if not path:
            return " (none was given: --cert, --key)"
        try:
            ended = read_leaf(Path(path)).not_after_ns
        except (CliError, ValueError):
            return ""
        return f" ({path} ended at {show_time(ended)})" if ended < time.time_ns() else f" ({path})"

    @property
    def why(self) -> Why:
        """Reason and ticket from the command line."""
        from configsvc.client import Why

        return Why(getattr(self.args, "reason", None) or "", getattr(self.args, "ticket", "") or "")

    def when(self, text: str) -> When:
        """A point in the past, counted from now."""
        return parse_when(text, time.time_ns())

    @staticmethod
    def monotonic() -> float:
        """Seconds on the clock that leases are kept by."""
        return time.monotonic()

    def warn(self, line: str) -> None:
        """One line on standard error."""
        print(f"configctl: {escape(line)}", file=sys.stderr, flush=True)

    def confirm(self, plan: Sequence[str]) -> None:
        """Show what a destructive command will do and go on only with ``--yes`` or a yes.

        Raises:
            CliError: not confirmed; nothing was changed.
        """
        if self.args.yes:
            return
        for line in plan:
            print(escape(line), file=sys.stderr)
        if not sys.stdin.isatty():
            raise CliError(Exit.USAGE, "nothing was changed: add --yes to do this")
        print("Do this? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CliError(Exit.NO, "nothing was changed")

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
