"""The two clusters of a migration, and the connection to the one that is not ours.

Always true: the other end is spoken to under the client's own rules (verified TLS, or plaintext
on this machine's loopback only); copying a cluster onto itself is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from configsvc import limits
from configsvc.cli import secrets
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape
from configsvc.client import Client, ClientSettings, Login, TlsFiles, operations, parse_endpoints
from configsvc.errors import UserEmptyError

if TYPE_CHECKING:
    from configsvc.cli.session import Session

Span = tuple[bytes, bytes]
EVERYTHING: Span = (b"\0", b"\0")


class End(NamedTuple):
    """One cluster."""

    name: str  # for people: "etcd" or "configsvc"
    client: Client
    cluster: int
    revision: int  # when this started


class Ends(NamedTuple):
    """From where to where."""

    source: End
    target: End


def _etcd_settings(session: Session) -> ClientSettings:
    args = session.args
    login = None
    if args.etcd_user:

        @cache
        def password() -> str:
            if args.etcd_password_file:
                return secrets.read_secret(args.etcd_password_file, "password file")
            return secrets.ask_password(f"Password of {escape(args.etcd_user)} in etcd")

        login = Login(args.etcd_user, password)
    return ClientSettings(
        endpoints=parse_endpoints(args.etcd_endpoints),
        tls=TlsFiles(
            args.etcd_cacert or "", args.etcd_cert or "", args.etcd_key or "", foreign=True
        ),
        timeout_s=session.settings.timeout_s or limits.CLIENT_TIMEOUT_S,
        login=login,
    )


def _identify(name: str, client: Client) -> End:
    answer = client.do(operations.range_(b"\0", keys_only=True))
    return End(name, client, answer.header.cluster_id, answer.header.revision)


@contextmanager
def open_ends(session: Session, *, from_etcd: bool) -> Iterator[Ends]:
    """Connect to both.

    Raises:
        CliError: both are the same cluster.
        ConfigServiceError: one of them does not answer, or refuses.
    """
    with Client(_etcd_settings(session)) as client:
        try:
            etcd = _identify("etcd", client)
        except UserEmptyError:
            raise CliError(
                Exit.DENIED, "etcd wants a user: --etcd-user, or --etcd-cert of one with role root"
            ) from None
        own = _identify("configsvc", session.client)
        if etcd.cluster == own.cluster:
            raise CliError(Exit.USAGE, "both ends are the same cluster: see --etcd-endpoints")
        yield Ends(etcd, own) if from_etcd else Ends(own, etcd)


def spans_of(prefixes: list[str]) -> list[Span]:
    """Disjoint spans in key order; no prefix is everything."""
    from configsvc.cli.arguments import key_bytes

    wanted = sorted({key_bytes(text) for text in prefixes})
    if not wanted or not wanted[0]:
        return [EVERYTHING]
    apart: list[bytes] = []
    for prefix in wanted:
        if not apart or not prefix.startswith(apart[-1]):
            apart.append(prefix)
    return [operations.prefix_span(prefix) for prefix in apart]


def in_spans(key: bytes, spans: list[Span]) -> bool:
    """Whether a key is among those that are carried."""
    return any(start <= key and (end == b"\0" or key < end) for start, end in spans)
