"""From a connection and a request's metadata to a caller. The order of the checks is normative.

A certificate names one identity; a token, if one is sent, must be good and be bound to that
certificate, or the call is refused: there is never a fall-back from a bad token to the
certificate's own rights (ID-6). No other metadata raises privilege (ID-7).

Not here: parsing leaves and tokens (``identity``), whether the identity still stands at the
moment of decision (``auth.standing``).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

from configsvc.api.contract import NEVER_NS, Ahead, Caller
from configsvc.auth.state import AuthState
from configsvc.codec.command import encode_actor
from configsvc.errors import (
    CertificateNotAcceptableError,
    InvalidArgumentError,
    InvalidAuthTokenError,
    InvalidClientAPIVersionError,
    UserEmptyError,
)
from configsvc.identity.certificate import (
    CertificateRejected,
    LeafIdentity,
    check_time,
    kind_and_name,
    parse_common_name,
    parse_leaf,
    principal_of,
)
from configsvc.identity.errors import InvalidToken
from configsvc.identity.etcd_tokens import EtcdTokens
from configsvc.identity.tokens import TokenClaims, TokenKeys, verify
from configsvc.limits import REASON_CHARS_MAX
from configsvc.types import (
    KIND_AGENT,
    KIND_NONE,
    KIND_SERVICE,
    KIND_USER,
    Principal,
    Source,
)

CLIENT_KINDS: Final = frozenset({KIND_USER, KIND_AGENT, KIND_SERVICE})
TOKEN_BYTES_MAX: Final = 4_096
FOREIGN_GATEWAY: Final = b"grpcgateway-"  # what etcd's gateway calls the fields it passes on
NS: Final = 1_000_000_000
ANONYMOUS: Final = Principal(KIND_NONE, "anonymous", "", "", "", "", "", "insecure-dev", "", "", 0)

# user-agent -> a closed list of names (AUD-3): what a client calls itself never reaches a record.
_CLIENTS: Final = (
    ("grpc-go", "grpc-go"),
    ("grpc-python-asyncio", "grpc-python"),
    ("grpc-python", "grpc-python"),
    ("grpc-node-js", "grpc-node"),
    ("grpc-java", "grpc-java"),
    ("tonic", "tonic"),
    ("curl", "curl"),
    ("configctl", "configctl"),
    ("configagent", "configagent"),
    ("patroni", "patroni"),
    ("python-requests", "python-requests"),
)
_VERSION = re.compile(r"^[0-9][0-9a-zA-Z.+-]{0,23}$")
Metadata = tuple[tuple[bytes, bytes], ...]


class Cluster(Protocol):
    """What identity depends on in a running member."""

    @property
    def auth(self) -> AuthState: ...

    @property
    def token_keys(self) -> TokenKeys:
        """Public token keys by kid; replaced as a whole when one changes."""

    @property
    def applied(self) -> int:
        """Index of the last applied entry, which ``auth`` is the state of."""

    @property
    def trust_domain(self) -> str: ...

    @property
    def issuer(self) -> str: ...

    @property
    def audience(self) -> str: ...

    def time_ns(self) -> int: ...


class Asked(NamedTuple):
    """What a request's metadata says, besides who asks."""

    token: str
    reason: str
    ticket: str
    has_leader: bool
    via_gateway: bool
    client: tuple[str, str]


class Callers:
    """Makes connection identities; one per member."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        insecure: bool,
        common_names: bool = False,
        etcd_tokens: EtcdTokens | None = None,
        on_rejected: Callable[[Source, str], None] = lambda _source, _reason: None,
    ) -> None:
        """``on_rejected`` hears why a leaf that TLS took is no acceptable identity.

        ``common_names``: in a store of the insecure mode, and only there, a leaf of etcd's kind
        is the user of its common name (A18); without it such a leaf says nothing.
        ``etcd_tokens``: in such a store the only tokens that are good.
        """
        self._cluster = cluster
        self._insecure = insecure
        self._common_names = insecure and common_names
        self._etcd_tokens = etcd_tokens if insecure else None
        self._on_rejected = on_rejected

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> Connection:
        """Judge a new connection (ID-1..5, ID-9).

        Raises:
            CertificateNotAcceptableError: no leaf, or one that names no acceptable identity.
        """
        source = Source(fold_address(peer_ip), tls_version, "other", "")
        if der is None:
            if not self._insecure:
                raise CertificateNotAcceptableError
            return self._connection(None, source)
        try:
            leaf = self._leaf(der)
            check_time(leaf, self._cluster.time_ns() // NS)
        except CertificateRejected as rejected:
            self._on_rejected(source, rejected.reason)
            raise CertificateNotAcceptableError from None
        if not leaf.uri and not self._common_names:
            return self._connection(None, source)
        return self._connection(leaf, source)

    def _connection(self, leaf: LeafIdentity | None, source: Source) -> Connection:
        return Connection(self._cluster, leaf, source, self._etcd_tokens)

    def _leaf(self, der: bytes) -> LeafIdentity:
        """The identity in a leaf; without a URI it is one in the insecure mode only."""
        try:
            return parse_leaf(der, trust_domain=self._cluster.trust_domain, kinds=CLIENT_KINDS)
        except CertificateRejected as rejected:
            if not self._insecure:
                raise
            try:
                return parse_common_name(der)
            except CertificateRejected:
                raise rejected from None


class Connection:
    """Identity of one connection. Builds a caller per distinct metadata, not per request."""

    __slots__ = (
        "_caller",
        "_cluster",
        "_etcd_tokens",
        "_expires_ns",
        "_leaf",
        "_metadata",
        "_source",
        "_version",
        "key",
    )

    def __init__(
        self,
        cluster: Cluster,
        leaf: LeafIdentity | None,
        source: Source,
        etcd_tokens: EtcdTokens | None = None,
    ) -> None:
        self._cluster = cluster
        self._etcd_tokens = etcd_tokens
        self._leaf = leaf
        self._source = source
        self._expires_ns = leaf.not_after * NS if leaf is not None else NEVER_NS
        self.key = leaf.uri if leaf is not None else ""
        # The last caller, as long as metadata and the state of rights stay the same.
        self._metadata: Metadata | None = None
        self._version = -1
        self._caller: Caller | None = None

    def caller(self, metadata: Metadata) -> Caller:
        """The caller of one request; with ``ahead`` set it is to be asked for again later.

        Raises:
            CertificateNotAcceptableError: the leaf ran out, or was denied, while the connection
                was open.
            InvalidAuthTokenError: a token that is not good, doubled or contradicting.
            UserEmptyError: a foreign gateway without a token.
            InvalidArgumentError: a reason or ticket that cannot be used.
        """
        now_ns = self._cluster.time_ns()
        if now_ns >= self._expires_ns:
            raise expired()
        version = self._cluster.auth.version
        known = self._caller
        if (
            known is not None
            and version == self._version
            and (metadata is self._metadata or metadata == self._metadata)
        ):
            return known
        self._check_denied(now_ns)
        asked = read_metadata(metadata)
        ahead = self._ahead(asked.token)
        if ahead:
            caller = self._made(self.suspect()[0], asked)
            caller.ahead = Ahead(ahead, self, metadata)
            return caller
        caller = self._made(self._principal(asked, now_ns), asked)
        if not asked.token:  # a token's lifetime is judged on every request
            self._metadata, self._version, self._caller = metadata, version, caller
        return caller

    def suspect(self) -> tuple[Principal, Source]:
        """Who a refused request came from, as far as the certificate says."""
        principal = principal_of(self._leaf) if self._leaf is not None else ANONYMOUS
        return principal, self._source

    def _check_denied(self, now_ns: int) -> None:
        """PKI-13 for every request, also for those to which a certificate is enough."""
        leaf, auth = self._leaf, self._cluster.auth
        if leaf is None or not auth.denied:
            return
        if auth.is_denied("serial", leaf.serial_hex, now_ns) or (
            leaf.uri and auth.is_denied("identity", leaf.uri, now_ns)
        ):
            raise CertificateNotAcceptableError

    def _ahead(self, token: str) -> int:
        """The index in a token that this member has not applied yet; 0 if there is none."""
        if not token or self._etcd_tokens is None:
            return 0
        index = self._etcd_tokens.index_of(token)
        return index if index > self._cluster.applied else 0

    def _made(self, principal: Principal, asked: Asked) -> Caller:
        name, client_version = asked.client
        source = self._source._replace(client_name=name, client_version=client_version)
        caller = Caller(principal, source, encode_actor(principal, source))
        caller.expires_ns = self._expires_ns
        caller.reason = asked.reason
        caller.ticket = asked.ticket
        caller.has_leader = asked.has_leader
        caller.via_gateway = asked.via_gateway
        return caller

    def _principal(self, asked: Asked, now_ns: int) -> Principal:
        leaf = self._leaf
        if asked.token:
            if self._etcd_tokens is None:
                return self._by_token(asked.token, now_ns)
            return self._by_etcd_token(self._etcd_tokens, asked.token, now_ns)
        if leaf is None:
            return ANONYMOUS
        if asked.via_gateway:
            raise UserEmptyError  # a foreign gateway's certificate is nobody (ID-7)
        principal = principal_of(leaf)
        user = self._cluster.auth.users.get(principal.user)
        return principal._replace(uid=user.uid) if user is not None else principal

    def _by_token(self, token: str, now_ns: int) -> Principal:
        leaf = self._leaf
        cid = leaf.uri if leaf is not None else ""
        cluster = self._cluster
        try:
            claims: TokenClaims = verify(
                token,
                cluster.token_keys,
                iss=cluster.issuer,
                aud=cluster.audience,
                cid=cid,
                now=now_ns // NS,
            )
        except InvalidToken as reason:
            raise _bad_token(reason) from None
        base = principal_of(leaf) if leaf is not None else ANONYMOUS
        kind, name = kind_and_name(claims.sub)
        return base._replace(
            kind=kind,
            name=name,
            user=claims.sub,
            uid=claims.uid,
            method="token",
            jti=claims.jti,
            key_id=claims.kid,
            auth_revision=claims.arev,
        )

    def _by_etcd_token(self, tokens: EtcdTokens, token: str, now_ns: int) -> Principal:
        try:
            bearer = tokens.bearer(self._cluster.auth, token, now_ns)
        except InvalidToken as reason:
            raise _bad_token(reason) from None
        base = principal_of(self._leaf) if self._leaf is not None else ANONYMOUS
        return base._replace(
            kind=KIND_USER,
            name=bearer.user,
            method="token",
            **bearer._asdict(),
        )


def expired() -> CertificateNotAcceptableError:
    """A certificate ran out while its connection was open."""
    error = CertificateNotAcceptableError()
    error.detail = "expired while connected"
    return error


def _bad_token(reason: InvalidToken) -> InvalidAuthTokenError:
    error = InvalidAuthTokenError()
    error.detail = str(reason)
    return error


def read_metadata(metadata: Metadata) -> Asked:
    """Everything of a request's metadata that means something here; the rest is ignored."""
    tokens: list[bytes] = []
    texts: dict[str, list[str]] = {"reason": [], "ticket": []}
    has_leader = via_gateway = False
    client = ("other", "")
    for name, value in metadata:
        if name in (b"token", b"authorization"):
            tokens.append(value.removeprefix(b"Bearer ") if name != b"token" else value)
        elif name == b"user-agent":
            client = client_of(value)
        elif name == b"hasleader":
            has_leader = value == b"true"
        elif name.startswith(FOREIGN_GATEWAY):  # which of them come is up to the gateway's client
            via_gateway = True
        elif name == b"client-api-version":
            _check_utf8(value)
        elif name.startswith(b"x-change-"):
            _read_change(name, value, texts)
    if len(set(tokens)) > 1 or len(tokens) > 2:
        raise InvalidAuthTokenError
    token = ""
    if tokens:
        if not tokens[0] or len(tokens[0]) > TOKEN_BYTES_MAX or not tokens[0].isascii():
            raise InvalidAuthTokenError
        token = tokens[0].decode("ascii")
    return Asked(
        token, _one(texts, "reason"), _one(texts, "ticket"), has_leader, via_gateway, client
    )


def _check_utf8(value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError:
        raise InvalidClientAPIVersionError from None


def _read_change(name: bytes, value: bytes, texts: dict[str, list[str]]) -> None:
    what, _, binary = name.removeprefix(b"x-change-").decode("ascii", "replace").partition("-")
    if what not in texts or binary not in ("", "bin"):
        return
    try:
        # The framing has taken base64 off what is named -bin.
        text = value.decode() if binary else unquote(value.decode("ascii"), errors="strict")
    except ValueError:
        raise InvalidArgumentError(f"x-change-{what}: cannot be decoded") from None
    if len(text) > REASON_CHARS_MAX or not text.isprintable():
        raise InvalidArgumentError(
            f"x-change-{what}: at most {REASON_CHARS_MAX} characters, none of them control"
        )
    texts[what].append(text)


def _one(texts: dict[str, list[str]], what: str) -> str:
    found = texts[what]
    if len(found) > 1:
        raise InvalidArgumentError(f"x-change-{what}: given more than once")
    return found[0] if found else ""


def client_of(user_agent: bytes) -> tuple[str, str]:
    """Name from the closed list and a version, or ("other", "")."""
    text = user_agent[:200].decode("ascii", "replace").lower()
    for mark, name in _CLIENTS:
        at = text.find(mark + "/")
        if at >= 0:
            version = text[at + len(mark) + 1 :].split(" ")[0]
            return name, version if _VERSION.match(version) else ""
    return "other", ""


def fold_address(text: str) -> str:
    """Peer address without scope, IPv4-mapped IPv6 folded (ID-9); "" if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
