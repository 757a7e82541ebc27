"""configsvc.v1.DenyList: certificates, identities and tokens that count no more (PKI-13, JWT-9).

What is malformed is refused before anything is proposed, and so is what would shut its author or a
member out, unless that is asked for. The list itself is replicated state and acts at apply.

Not here: who is refused by it (``api.callers``, ``auth.standing``), what ends open connections
(``server``).
"""

from __future__ import annotations

import re
from heapq import nsmallest
from typing import Any, Final

from configsvc.api.contract import Caller
from configsvc.api.service import Service
from configsvc.auth.actions import revoking
from configsvc.auth.state import DENIED_KINDS
from configsvc.codec import command as codec
from configsvc.codec import requests
from configsvc.errors import InvalidArgumentError
from configsvc.identity.member_ids import member_of_text
from configsvc.identity.names import parse_uri
from configsvc.identity.tokens import is_key_id, is_token_id
from configsvc.limits import DENIALS_PER_PAGE_MAX
from configsvc.proto import command_pb2, v1_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.types import KIND_MEMBER

ENDED_AT_ONCE: Final = ("user", "all")  # tokens of before end; nothing stays on the list
_SERIAL: Final = re.compile(r"[1-9a-f][0-9a-f]{0,39}", re.ASCII)
_ANYWAY: Final = "; --allow-lockout does it anyway"


class DenyListService(Service):
    """Handlers of DenyList."""

    def add(self, caller: Caller, raw: bytes) -> Waiting:
        """Deny something from the applying entry on; an entry is prolonged, never shortened."""
        m = requests.parse(v1_pb2.DenyAddRequest, raw)
        if m.what not in DENIED_KINDS + ENDED_AT_ONCE:
            raise InvalidArgumentError("what: serial, identity, jti, kid, user or all")
        self.need(caller, revoking(m.what))
        what, value = m.what, self._value(m.what, m.value)
        self._check_until(what, m.until_ns)
        if not m.allow_lockout:
            self._check_lockout(caller, what, value)
        op = command_pb2.Revoke(what=what, value=value, until_ns=m.until_ns)

        def answer(effects: Any) -> bytes:
            header = self.done(effects)
            until = self.member.state.auth.denied.get((what, value), 0)
            entry = v1_pb2.Denial(what=what, value=value, until_ns=until)
            return header + v1_pb2.DenyAddResponse(entry=entry).SerializeToString()

        return self.propose(caller, codec.OP_REVOKE, op.SerializeToString(), answer)

    def remove(self, caller: Caller, raw: bytes) -> Waiting:
        """Let in again what an entry denied."""
        m = requests.parse(v1_pb2.DenyRemoveRequest, raw)
        if m.what not in DENIED_KINDS:
            raise InvalidArgumentError("what: serial, identity, jti or kid")
        self.need(caller, revoking(m.what))
        entry = v1_pb2.Denial(what=m.what, value=self._value(m.what, m.value))
        op = command_pb2.Unrevoke(what=entry.what, value=entry.value)

        def answer(effects: Any) -> bytes:
            header = self.done(effects)
            return header + v1_pb2.DenyRemoveResponse(entry=entry).SerializeToString()

        return self.propose(caller, codec.OP_UNREVOKE, op.SerializeToString(), answer)

    def list(self, caller: Caller, raw: bytes) -> Waiting:
        """A page of what is denied now, by kind and value."""
        m = requests.parse(v1_pb2.DenyListRequest, raw)
        if m.limit < 0:
            raise InvalidArgumentError("limit: 0 or more")
        most = min(m.limit or DENIALS_PER_PAGE_MAX, DENIALS_PER_PAGE_MAX)
        after = (m.after.what, m.after.value)

        def answer() -> bytes:
            self.need(caller, "pki.revoke")
            now = self.member.time_ns()
            denied = self.member.state.auth.denied
            rest = (
                (entry, until)
                for entry, until in denied.items()
                if entry > after and (not until or now < until)
            )
            found = nsmallest(most + 1, rest)  # no page sorts all that is there
            out = v1_pb2.DenyListResponse(more=len(found) > most)
            for (what, value), until in found[:most]:
                out.entries.add(what=what, value=value, until_ns=until)
            return self.header() + out.SerializeToString()

        return self.linearizable(caller, answer)

    # --- inside ----------------------------------------------------------------------------------

    def _value(self, what: str, value: str) -> str:
        """``value`` in its one spelling, for a typing error would deny nobody.

        Raises:
            InvalidArgumentError: it cannot be what it is said to be.
        """
        if what == "serial" and not _SERIAL.fullmatch(value):
            raise InvalidArgumentError("value: a serial is hex in lower case, no leading zeros")
        if what == "identity":
            return self._identity(value)
        if what == "jti" and not is_token_id(value):
            raise InvalidArgumentError("value: a token's jti is 32 hex digits in lower case")
        if what == "kid" and not is_key_id(value):
            raise InvalidArgumentError("value: a kid is 8 to 64 letters, digits, _ and -")
        if what == "user" and not value:
            raise InvalidArgumentError("value: the name of a user")
        if what == "all" and value:
            raise InvalidArgumentError("value: none goes with all")
        return value

    def _identity(self, value: str) -> str:
        domain = self.member.trust_domain
        uri = value if "://" in value else f"spiffe://{domain}/{value}"
        name = parse_uri(uri)
        if name is None or name.trust_domain != domain:
            raise InvalidArgumentError("value: KIND/NAME, or a URI of this trust domain")
        return uri

    def _check_until(self, what: str, until_ns: int) -> None:
        if what in ENDED_AT_ONCE and until_ns:
            raise InvalidArgumentError("until_ns: what ends at once has no end")
        if until_ns and until_ns <= self.member.time_ns():
            raise InvalidArgumentError("until_ns: must lie ahead; 0 is for ever")

    def _check_lockout(self, caller: Caller, what: str, value: str) -> None:
        """An entry that bars its author can only be taken back by somebody else."""
        principal = caller.principal
        own = {"serial": principal.cert_serial, "identity": principal.cert_uri}.get(what)
        if own and value == own:
            raise InvalidArgumentError(f"value: your own certificate{_ANYWAY}")
        name = parse_uri(value) if what == "identity" else None
        if name is not None and name.kind == KIND_MEMBER:
            member = member_of_text(name.name)
            if member in self.member.state.members.by_id:
                raise InvalidArgumentError(f"value: a member of this cluster, remove it{_ANYWAY}")
