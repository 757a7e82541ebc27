"""``pki init|issue|renew|show``: the cluster's own certificate authority, offline.

Everything happens in files; no server is asked. ``init`` makes root and issuing CAs and the first
administrator, and with ``--initial-cluster`` the members' certificates as well (BOOT-1).
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from configsvc import limits
from configsvc.cli.arguments import Commands, Parser
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.times import parse_seconds, show_time

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.identity.pki import LeafFiles
    from configsvc.storage.seal.keyfile import KeyFile

_KINDS: Final = ("user", "agent", "service", "member", "server")
_ADMINISTRATOR: Final = "root"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # also a directory's name
_URI: Final = re.compile(r"spiffe://[^/]+/(?P<kind>[a-z]+)/(?P<name>[^/]+)")


class Leaf(NamedTuple):
    """What a certificate says, for display and renewal; nothing here is trusted."""

    kind: str
    name: str
    uri: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    serial: str
    issuer: str
    not_before_ns: int
    not_after_ns: int


def register(commands: Commands) -> None:
    """Add the commands."""
    pki = commands.group("pki", "certificates, offline")
    init = pki.add("init", "a new authority and its first administrator", run_init)
    init.add_argument("directory", metavar="DIR")
    _kek_option(init)
    init.add_argument("--trust-domain", required=True, metavar="NAME", help="as prod.example")
    init.add_argument("--initial-cluster", default="", metavar="NAME=URL,…", help="peer URLs")
    init.add_argument("--initial-cluster-token", default="etcd-cluster", metavar="TEXT")
    init.add_argument(
        "--development", action="store_true", help="leaves live as long as their kind may"
    )
    _host_options(init)

    issue = pki.add("issue", "a certificate with a new key", run_issue)
    issue.add_argument("directory", metavar="DIR")
    _kek_option(issue)
    issue.add_argument("kind", choices=_KINDS)
    issue.add_argument("name", metavar="NAME", help="of a member: its id (pki member-id)")
    issue.add_argument("--out", metavar="DIR", help="where to (default: the authority's directory)")
    issue.add_argument("--csr", metavar="FILE", help="only sign the key in this request")
    _host_options(issue)
    _life_options(issue)

    renew = pki.add("renew", "issue again what is past half its life", run_renew)
    renew.add_argument("directory", metavar="DIR")
    _kek_option(renew)
    renew.add_argument("certs", metavar="CERT", nargs="+")
    renew.add_argument("--force", action="store_true", help="also what is still young")
    _life_options(renew)

    show = pki.add("show", "what a certificate says", run_show)
    show.add_argument("certs", metavar="CERT", nargs="+")

    keyfile = pki.add("keyfile", "the key that encrypts what a member stores", run_keyfile)
    keyfile.add_argument("path", metavar="FILE", help="new file, outside the data directory")

    rewrap = pki.add("rewrap", "put a stopped member under another key file", run_rewrap)
    rewrap.add_argument("data_dir", metavar="DATA_DIR")
    rewrap.add_argument("--encryption-key-file", required=True, metavar="FILE", help="the old one")
    rewrap.add_argument("--new-encryption-key-file", required=True, metavar="FILE")

    member = pki.add("member-id", "the id of a member of a new cluster", run_member_id)
    member.add_argument("peer_urls", metavar="PEER_URL", nargs="+")
    member.add_argument("--initial-cluster-token", default="etcd-cluster", metavar="TEXT")


def run_keyfile(session: Session) -> int:
    """Make a key file; an existing one is never replaced."""
    from configsvc.storage.seal.keyfile import KeyFile

    made = KeyFile.create(session.args.path)
    if session.out.as_json:
        session.out.json({"path": session.args.path, "key_id": made.key_id})
    else:
        session.out.line(f"{session.args.path}  key {made.key_id}")
    return Exit.OK


def run_rewrap(session: Session) -> int:
    """Offline; interrupted, it is run again with the same two files."""
    from configsvc.server.rekeying import rekey
    from configsvc.storage.seal.keyfile import KeyFile

    args = session.args
    data = Path(args.data_dir).absolute()
    new = KeyFile.load(args.new_encryption_key_file, data_dir=data)
    done = rekey(data, KeyFile.load(args.encryption_key_file, data_dir=data), new)
    session.out.done(
        f"{data}: {done.segments} log segments, {done.seeds} seeds and {done.signing_keys} signing "
        f"keys are under key {new.key_id}; start the member with {args.new_encryption_key_file}",
        key_id=new.key_id,
        segments=done.segments,
        seeds=done.seeds,
        signing_keys=done.signing_keys,
    )
    return Exit.OK


def _kek_option(parser: Parser) -> None:
    parser.add_argument(
        "--kek", metavar="FILE", help="key file that seals the authority's keys (DIR/ca.kek)"
    )


def _host_options(parser: Parser) -> None:
    parser.add_argument(
        "--host", action="append", default=[], metavar="HOST", help="a DNS name or address"
    )


def _life_options(parser: Parser) -> None:
    life = parser.add_mutually_exclusive_group()
    life.add_argument("--lifetime", metavar="TIME", help="as 12h or 7d (default: by kind)")
    life.add_argument("--longest", action="store_true", help="as long as the kind may live")


def _lifetime_s(session: Session, kind: str) -> int | None:
    from configsvc.identity.profiles import PROFILES

    if session.args.longest:
        return PROFILES[kind].lifetime_max
    return int(parse_seconds(session.args.lifetime)) if session.args.lifetime else None


def _sealer(session: Session) -> KeyFile | None:
    """The key file that seals the authority's keys; None: the one beside them."""
    from configsvc.storage.seal.keyfile import KeyFile

    return KeyFile.load(session.args.kek) if session.args.kek else None


def split_hosts(hosts: Sequence[str]) -> tuple[list[str], list[str]]:
    """DNS names and addresses."""
    dns: dict[str, None] = {}
    ips: dict[str, None] = {}
    for host in hosts:
        try:
            ips[str(ipaddress.ip_address(host.strip("[]")))] = None
        except ValueError:
            dns[host.lower()] = None
    return list(dns), list(ips)


def _show_files(session: Session, made: Sequence[LeafFiles]) -> int:
    if session.out.as_json:
        session.out.json([{"cert": str(one.cert_path), "key": str(one.key_path)} for one in made])
        return Exit.OK
    for one in made:
        session.out.line(f"{one.cert_path}  (key {one.key_path})")
    return Exit.OK


# --- init -----------------------------------------------------------------------------------------


def parse_cluster(text: str) -> dict[str, list[str]]:
    """``name=url,name=url`` as the server takes it.

    Raises:
        CliError: usage; malformed.
    """
    found: dict[str, list[str]] = {}
    for part in text.split(",") if text else ():
        name, equals, url = part.strip().partition("=")
        if not equals or not _NAME.fullmatch(name) or not _is_peer_url(url):
            raise CliError(Exit.USAGE, f"--initial-cluster: {part!r}: write NAME=https://host:port")
        found.setdefault(name, []).append(url)
    return found


def _is_peer_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname and parts.port)
    except ValueError:
        return False


def run_init(session: Session) -> int:
    from configsvc.identity.pki import init_pki, issue

    args = session.args
    cluster = parse_cluster(args.initial_cluster)
    directory = Path(args.directory)
    sealer = _sealer(session)
    init_pki(directory, args.trust_domain, development=args.development, key_file=sealer)
    made = [issue(directory, "user", _ADMINISTRATOR, key_file=sealer)]
    for name, urls in cluster.items():
        made += _issue_member(session, directory, name, urls)
    return _show_files(session, made)


def _issue_member(
    session: Session, directory: Path, name: str, urls: Sequence[str]
) -> list[LeafFiles]:
    """Both leaves of a member: towards its peers and towards clients."""
    from configsvc.identity.member_ids import member_id
    from configsvc.identity.pki import issue_member

    args = session.args
    hosts = [host for host in (urlsplit(url).hostname for url in urls) if host]
    dns, ips = split_hosts([*hosts, *args.host])
    identity = member_id(urls, args.initial_cluster_token)
    sealer = _sealer(session)
    files = issue_member(directory, name, identity, dns=dns, ips=ips, key_file=sealer)
    return [files.peer, files.server]


# --- issue, renew ---------------------------------------------------------------------------------


def run_issue(session: Session) -> int:
    from configsvc.identity.pki import issue

    args = session.args
    dns, ips = split_hosts(args.host)
    if args.csr:
        return _sign_request(session, dns, ips)
    files = issue(
        args.directory,
        args.kind,
        args.name,
        out=args.out,
        dns=dns,
        ips=ips,
        lifetime_s=_lifetime_s(session, args.kind),
        key_file=_sealer(session),
    )
    return _show_files(session, [files])


def _sign_request(session: Session, dns: Sequence[str], ips: Sequence[str]) -> int:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from configsvc.identity.pki import Enrolment, issue_from_csr, load_authority
    from configsvc.identity.profiles import PROFILES

    args = session.args
    try:
        with Path(args.csr).open("rb") as file:
            data = file.read(2 * limits.CSR_BYTES_MAX)  # base64 takes a third more
        if data.startswith(b"-----"):
            data = x509.load_pem_x509_csr(data).public_bytes(Encoding.DER)
    except OSError as error:
        raise CliError(Exit.USAGE, f"{args.csr}: {error.strerror}") from None
    except ValueError:
        raise CliError(Exit.USAGE, f"{args.csr}: not a certificate request") from None
    authority = load_authority(args.directory, PROFILES[args.kind].authority, _sealer(session))
    lifetime = _lifetime_s(session, args.kind)
    record = Enrolment(args.kind, args.name, tuple(dns), tuple(ips), lifetime)
    leaf = issue_from_csr(authority, data, record, int(time.time()))
    session.out.line(leaf.public_bytes(Encoding.PEM).decode("ascii").rstrip("\n"))
    return Exit.OK


def run_renew(session: Session) -> int:
    """A new key each time; files keep their names, so whoever reads them needs a reload only."""
    from configsvc.identity.pki import issue, needs_reissue

    args = session.args
    made, old = [], 0
    for path in map(Path, args.certs):
        leaf = read_leaf(path)
        if not leaf.kind or path.suffix != ".pem":
            raise CliError(Exit.USAGE, f"{path}: not a certificate that `pki issue` wrote")
        if not (args.force or needs_reissue(path, int(time.time()))):
            old += 1
            continue
        files = issue(
            args.directory,
            leaf.kind,
            leaf.name,
            out=path.parent,
            stem=path.stem,
            dns=leaf.dns,
            ips=leaf.ips,
            lifetime_s=_lifetime_s(session, leaf.kind),
            key_file=_sealer(session),
        )
        made.append(files)
    _show_files(session, made)
    if old:
        session.warn(f"{old} left as they are: not past half their life (--force renews them)")
    return Exit.OK


# --- show -----------------------------------------------------------------------------------------


def read_leaf(path: Path) -> Leaf:
    """Parse a certificate file.

    Raises:
        CliError: usage; unreadable, or no certificate.
    """
    from cryptography import x509

    try:
        cert = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
    except ValueError:
        raise CliError(Exit.USAGE, f"{path}: not a certificate") from None
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    return Leaf(
        match["kind"] if match else "",
        match["name"] if match else "",
        ", ".join(uris),
        tuple(names.get_values_for_type(x509.DNSName)),
        tuple(str(one) for one in names.get_values_for_type(x509.IPAddress)),
        f"{cert.serial_number:x}",
        cert.issuer.rfc4514_string(),
        int(cert.not_valid_before_utc.timestamp()) * 1_000_000_000,
        int(cert.not_valid_after_utc.timestamp()) * 1_000_000_000,
    )


def _leaf_json(path: Path, leaf: Leaf) -> dict[str, Any]:
    return {
        "file": str(path),
        "kind": leaf.kind,
        "name": leaf.name,
        "uri": leaf.uri,
        "dns": list(leaf.dns),
        "ips": list(leaf.ips),
        "serial": leaf.serial,
        "issuer": leaf.issuer,
        "not_before": show_time(leaf.not_before_ns),
        "not_after": show_time(leaf.not_after_ns),
    }


def run_show(session: Session) -> int:
    """0 when all are in time, 1 when one is not."""
    leaves = [(path, read_leaf(path)) for path in map(Path, session.args.certs)]
    now = time.time_ns()
    if session.out.as_json:
        session.out.json([_leaf_json(*one) for one in leaves])
    else:
        rows = [
            (
                path.name,
                leaf.uri or "-",
                ",".join((*leaf.dns, *leaf.ips)) or "-",
                show_time(leaf.not_after_ns),
                "ok" if leaf.not_before_ns <= now < leaf.not_after_ns else "NOT VALID NOW",
                leaf.serial,
            )
            for path, leaf in leaves
        ]
        session.out.table(("FILE", "IDENTITY", "HOSTS", "UNTIL", "STATE", "SERIAL"), rows)
    in_time = all(leaf.not_before_ns <= now < leaf.not_after_ns for _, leaf in leaves)
    return Exit.OK if in_time else Exit.NO


def run_member_id(session: Session) -> int:
    from configsvc.identity.member_ids import member_id, member_name

    for url in session.args.peer_urls:
        if not _is_peer_url(url):
            raise CliError(Exit.USAGE, f"{url!r}: write https://host:port")
    identity = member_id(session.args.peer_urls, session.args.initial_cluster_token)
    if session.out.as_json:
        session.out.json({"id": f"{identity:x}", "certificate_name": member_name(identity)})
    else:
        session.out.line(member_name(identity))
    return Exit.OK
