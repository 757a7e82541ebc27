"""Finding the cluster of a member that was added to it and starts for the first time (P9).

The member's id is the one in its own peer certificate; in plaintext the asked member finds it by
the URLs. Cluster id and epoch come from any member named in ``--initial-cluster``; everything
else comes with the install.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.identity.certificate import CertificateRejected, LeafIdentity, check_time, parse_leaf
from configsvc.identity.member_ids import member_of_text
from configsvc.limits import JOIN_RETRY_S, JOIN_SECONDS_MAX
from configsvc.server.logs import Log
from configsvc.server.tls import peer_tls
from configsvc.transport.hello import Refusal
from configsvc.transport.joining import JoinAnswer, JoinFailed, JoinQuestion, ask
from configsvc.transport.link import PeerTls
from configsvc.types import KIND_MEMBER, NodeId


class Joined(NamedTuple):
    """Where this member belongs."""

    self_id: NodeId
    cluster_id: int
    epoch: int


async def find_cluster(config: ServerConfig, log: Log) -> Joined:
    """Ask the members named in ``--initial-cluster`` until one knows this member.

    Raises:
        ConfigError: 78, nobody named, nobody knows us in time, or no member certificate.
        FatalError: 85 our data was lost, 88 we were removed: the cluster says so.
    """
    urls = [url for name, peers in config.genesis if name != config.name for url in peers]
    if not urls:
        raise ConfigError(
            "--initial-cluster-state=existing: --initial-cluster names no other member",
            "give the line that `configctl member add` printed",
        )
    own = certificate_id(config)
    question = JoinQuestion(own, config.insecure_dev, tuple(config.advertised_peers))
    return await _ask_all(config, log, urls, question, peer_tls(config, own))


def certificate_id(config: ServerConfig) -> NodeId:
    """The id in this member's peer certificate; 0 without one (--insecure-dev).

    Raises:
        ConfigError: the certificate cannot be read or names no member.
    """
    if not config.peer_tls.cert_file:
        return NodeId(0)
    remedy = "issue one: configctl pki issue member"
    try:
        with open(config.peer_tls.cert_file, "rb") as file:
            leaf = x509.load_pem_x509_certificates(file.read())[0]
        identity = _member_leaf(leaf.public_bytes(Encoding.DER), config.trust_domain)
    except (OSError, ValueError, CertificateRejected) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"--peer-cert-file: {reason}", remedy) from None
    found = member_of_text(identity.name)
    if found is None:
        raise ConfigError("--peer-cert-file: names no member", remedy)
    return found


def _member_leaf(der: bytes, trust_domain: str) -> LeafIdentity:
    return parse_leaf(der, trust_domain=trust_domain, kinds=frozenset({KIND_MEMBER}))


async def _ask_all(
    config: ServerConfig,
    log: Log,
    urls: Sequence[str],
    question: JoinQuestion,
    tls: PeerTls | None,
) -> Joined:
    def judge(der: bytes | None) -> str:
        if tls is None:
            return ""
        try:
            if der is None:
                return "no certificate"
            check_time(_member_leaf(der, tls.trust_domain), int(time.time()))
        except CertificateRejected as error:
            return f"certificate: {error.reason}"
        return ""

    ends = time.monotonic() + JOIN_SECONDS_MAX
    told = ""
    while time.monotonic() < ends:
        for url in urls:
            try:
                answer = await ask(url, question, context=tls.client if tls else None, judge=judge)
            except JoinFailed as error:
                told = _tell(log, told, f"{url}: {error}")
                continue
            if isinstance(answer, JoinAnswer):
                return _joined(config, question, answer)
            _obey(answer)
            told = _tell(log, told, f"{url}: {answer.text}")
        await asyncio.sleep(JOIN_RETRY_S)
    raise ConfigError(
        f"no member of the cluster lets this one join ({told})",
        "add it first: configctl member add; then give its certificate the id that was printed",
    )


def _joined(config: ServerConfig, question: JoinQuestion, answer: JoinAnswer) -> Joined:
    if answer.insecure != config.insecure_dev:
        raise ConfigError("one side is --insecure-dev, the other is not", "start it as the others")
    if question.member_id and question.member_id != answer.member_id:
        raise ConfigError(
            "the cluster knows this member under another id", "check --peer-cert-file"
        )
    return Joined(NodeId(answer.member_id), answer.cluster_id, answer.epoch)


def _obey(refusal: Refusal) -> None:
    """A refusal that names us as the side at fault ends this start."""
    if refusal.code == ExitCode.REMOVED:
        raise FatalError(
            ExitCode.REMOVED,
            "this member was removed from the cluster",
            "add it again under a new id: configctl member add",
        )
    if refusal.code == ExitCode.WRONG_IDENTITY:
        raise FatalError(
            ExitCode.WRONG_IDENTITY,
            f"the cluster refuses this member: {refusal.text}",
            "its data was lost: configctl member replace",
        )


def _tell(log: Log, before: str, text: str) -> str:
    """Log a reason once, not at every attempt."""
    if text != before:
        log.warn("server", "no cluster to join yet", reason=text)
    return text
