"""Peers that were cut off: counted by kind, told to the audit stream, logged at a bounded rate.

The kinds are a closed set, for they become labels; reasons are constants of ours or of OpenSSL
and never quote what a peer sent. An attack costs one line per kind and interval, which says how
many it stands for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from configsvc.frontend.shared import log
from configsvc.limits import REFUSAL_LOG_SECONDS

Refused = Callable[[str, str], None]  # peer address, constant reason

TLS: Final = "tls"  # no handshake, or a certificate that TLS does not take
CERTIFICATE: Final = "certificate"  # TLS took it, our rules did not (ID-3)
MALFORMED: Final = "malformed"  # broke a rule of HTTP
FLOOD: Final = "flood"  # made work that no request pays for, or too large a header
SLOW: Final = "slow"  # did not get on, or does not read
CROWDED: Final = "crowded"  # more than a bound on connections or memory allows
KINDS: Final = (TLS, CERTIFICATE, MALFORMED, FLOOD, SLOW, CROWDED)


class Refusals:
    """What all listeners of a member refused.

    Always true: every refusal is in ``counts``; each is in exactly one log line, at the latest
    in the next one of its kind.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        on_refused: Refused | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        """``clock`` gives seconds; ``on_refused`` hears of each; ``counts`` may be shared."""
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._clock = clock
        self._on_refused = on_refused
        self._untold: Counter[str] = Counter()
        self._quiet_until: dict[str, float] = {}

    def refused(self, kind: str, peer_ip: str, reason: str) -> None:
        """A peer was cut off."""
        self.counts[kind] += 1
        self._untold[kind] += 1
        now = self._clock()
        if now >= self._quiet_until.get(kind, now):
            self._quiet_until[kind] = now + REFUSAL_LOG_SECONDS
            count = self._untold.pop(kind)
            log.warning(
                "peers refused: %s, %d since the last such line, now %s: %s",
                kind, count, peer_ip or "-", reason,
            )  # fmt: skip
        if self._on_refused is not None:
            self._on_refused(peer_ip, reason)
