"""The grammar of identities: trust domains, kinds, names, URIs. Byte for byte, one spelling each.

Always true: what one function here builds another takes apart to the same parts, and nothing else
is accepted: no percent-encoding, dot segments, upper case, control bytes (ID-3, N51).

Not here: RBAC user names (``auth.names``), certificates (``identity.certificate``).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from configsvc.limits import IDENTITY_URI_CHARS_MAX
from configsvc.types import KIND_AGENT, KIND_MEMBER, KIND_SERVER, KIND_SERVICE, KIND_USER

IDENTITY_KINDS: Final = frozenset({KIND_USER, KIND_AGENT, KIND_SERVICE, KIND_MEMBER, KIND_SERVER})
CLIENT_KINDS: Final = frozenset({KIND_USER, KIND_AGENT, KIND_SERVICE})

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_HOST_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SCHEME: Final = "spiffe://"
_HOST_CHARS_MAX: Final = 253


class IdentityName(NamedTuple):
    """The parts of ``spiffe://<trust_domain>/<kind>/<name>``."""

    trust_domain: str
    kind: str
    name: str

    @property
    def uri(self) -> str:
        """The one spelling of this identity."""
        return f"{_SCHEME}{self.trust_domain}/{self.kind}/{self.name}"


def is_name(text: str) -> bool:
    """Whether ``text`` is a name part: ``[a-z0-9][a-z0-9._-]{0,62}``."""
    return _NAME.fullmatch(text) is not None


def is_trust_domain(text: str) -> bool:
    """Whether ``text`` can be a trust domain: a host name in lower case, at most 63 characters."""
    return _TRUST_DOMAIN.fullmatch(text) is not None and ".." not in text


def is_host_name(text: str) -> bool:
    """Whether ``text`` is a plain DNS name: lower case, no wildcard, no trailing dot (PKI-6).

    A name whose last label is all digits would be read as an address by some clients: refused.
    """
    labels = text.split(".")
    return (
        len(text) <= _HOST_CHARS_MAX
        and all(_HOST_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )


def parse_uri(text: str) -> IdentityName | None:
    """The identity that ``text`` spells, or None when it spells none."""
    if len(text) > IDENTITY_URI_CHARS_MAX or not text.startswith(_SCHEME):
        return None
    parts = text[len(_SCHEME) :].split("/")
    if len(parts) != 3:
        return None
    trust_domain, kind, name = parts
    if kind not in IDENTITY_KINDS or not is_name(name) or not is_trust_domain(trust_domain):
        return None
    return IdentityName(trust_domain, kind, name)
