"""What each kind of leaf looks like: one table behind issuing and checking (PKI-3, PKI-4, PKI-8).

Not here: building certificates (``identity.authority``), reading them (``identity.certificate``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from configsvc.types import KIND_AGENT, KIND_MEMBER, KIND_SERVER, KIND_SERVICE, KIND_USER

HOUR: Final = 3_600
DAY: Final = 24 * HOUR
BACKDATED_S: Final = 120  # notBefore lies this far back, for clocks that lag

CA_PEER: Final = "peer"
CA_SERVER: Final = "server"
CA_CLIENT: Final = "client"
ISSUING_CAS: Final = (CA_PEER, CA_SERVER, CA_CLIENT)

_CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVER = ExtendedKeyUsageOID.SERVER_AUTH


class Profile(NamedTuple):
    """One kind of leaf; lifetimes in seconds."""

    authority: str  # one of ISSUING_CAS
    usages: frozenset[ObjectIdentifier]  # exactly these
    lifetime_default: int
    lifetime_max: int
    hosts: bool  # whether DNS and IP names are issued


PROFILES: Final[dict[str, Profile]] = {
    KIND_MEMBER: Profile(CA_PEER, frozenset({_CLIENT, _SERVER}), 30 * DAY, 30 * DAY, True),
    KIND_SERVER: Profile(CA_SERVER, frozenset({_SERVER}), 30 * DAY, 30 * DAY, True),
    KIND_AGENT: Profile(CA_CLIENT, frozenset({_CLIENT}), 24 * HOUR, 7 * DAY, False),
    KIND_USER: Profile(CA_CLIENT, frozenset({_CLIENT}), 12 * HOUR, 24 * HOUR, False),
    KIND_SERVICE: Profile(CA_CLIENT, frozenset({_CLIENT}), 7 * DAY, 30 * DAY, False),
}
LIFETIME_MAX: Final = {kind: profile.lifetime_max for kind, profile in PROFILES.items()}
