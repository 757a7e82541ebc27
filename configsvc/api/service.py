"""What every handler needs: the member behind it, rights of reads, answers with headers.

Handlers are plain functions (``api.contract``). Writes are decided in apply; reads, watches and
capabilities of calls that do not pass the log are decided here, with the rights at the applied
index that answers (AZ-2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from configsvc.api.callers import expired
from configsvc.api.contract import Caller
from configsvc.apply.commands import Effects, Refused
from configsvc.audit.record import Resource
from configsvc.auth.actions import KV_RANGE
from configsvc.auth.messages import READ, Request
from configsvc.auth.standing import check_principal, check_revision
from configsvc.errors import (
    AuthOldRevisionError,
    CorruptError,
    InvalidAuthTokenError,
    NoLeaderError,
    NoSpaceError,
    PermissionDeniedError,
    RequestError,
    UserEmptyError,
)
from configsvc.identity.etcd_tokens import SIMPLE_KEY_ID
from configsvc.runtime.member import Member
from configsvc.runtime.waiting import Waiting
from configsvc.types import KIND_NONE, KeySpan

ALARM_NO_SPACE: Final = 1
ALARM_CORRUPT: Final = 2
OVERTAKEN: Final = "token ended while the call was on its way"


class Service:
    """Base of the handlers of one gRPC service."""

    def __init__(self, member: Member) -> None:
        self.member = member

    # --- answers ---------------------------------------------------------------------------------

    def header(self) -> bytes:
        """Header field with the current revision."""
        member = self.member
        return member.headers.field(member.store.revision, member.term)

    def header_at(self, revision: int) -> bytes:
        """Header field with ``revision``; 0 leaves it out (H6)."""
        return self.member.headers.field(revision, self.member.term)

    def done(self, effects: Effects) -> bytes:
        """Answer of an operation that returns a header alone."""
        raise_refused(effects)
        return self.header_at(effects.revision)

    def linearizable(self, caller: Caller, answer: Callable[[], bytes | Waiting]) -> Waiting:
        """Answer once everything acknowledged before this call is applied here."""
        if caller.has_leader and not self.member.lead:
            raise NoLeaderError
        return self.member.reads.submit(answer)

    def propose(
        self,
        caller: Caller,
        op_field: int,
        op: bytes,
        encode: Callable[[Effects], bytes | Waiting] | None = None,
        *,
        new_uid: str = "",
        needs_id: bool = False,
        facts: tuple[tuple[str, str], ...] = (),
    ) -> Waiting:
        """Send one operation through the log in the caller's name."""
        member = self.member
        if caller.has_leader and not member.lead:
            raise NoLeaderError
        answer = encode or self.done
        if caller.principal.key_id == SIMPLE_KEY_ID:
            answer = _judged_again(answer)
        return member.proposals.submit(
            caller.envelope,
            op_field,
            op,
            answer,
            reason=caller.reason,
            ticket=caller.ticket,
            facts=facts,
            new_uid=new_uid,
            needs_id=needs_id,
        )

    def recorded(
        self,
        caller: Caller,
        event: str,
        about: Resource,
        answer: Callable[[], bytes | Waiting],
        *,
        still: Callable[[], None],
    ) -> Waiting:
        """Answer once the read's own record is on disk (AUD-1, FC-2).

        ``still`` judges the read once more then: the answer is of that moment, and so are its
        rights (AZ-2).
        """

        def put() -> bytes | Waiting:
            still()
            return answer()

        out, done = self.member.audit.before(put)
        self.member.audit.note(
            event,
            caller.principal,
            caller.source,
            done,
            resource=about,
            reason=caller.reason,
            ticket=caller.ticket,
        )
        return out

    # --- rights ----------------------------------------------------------------------------------

    def standing(self, caller: Caller) -> None:
        """Whoever calls must be somebody, and still be it."""
        state = self.member.state.auth
        principal = caller.principal
        if principal.kind == KIND_NONE and state.enabled:
            raise UserEmptyError
        now_ns = self.member.time_ns()
        if now_ns >= caller.expires_ns:
            raise expired()
        check_principal(state, principal, now_ns)

    def may_read(self, caller: Caller, span: KeySpan, *, again: bool = False) -> None:
        """READ on the whole span, now. ``again``: a stream of before asks, which one of etcd's
        JWTs opened while its auth revision counted.

        Raises:
            PermissionDeniedError: never says whether a key exists.
        """
        try:
            self.standing(caller)
            if not again:
                check_revision(self.member.state.auth, caller.principal)
        except RequestError as error:
            error.about = about_span(span, KV_RANGE)
            raise
        view = self.member.decider.view(caller.principal, caller.source)
        if view.granted(KV_RANGE, span) is not None:
            return
        judged = view.judge(self._request(caller, KV_RANGE, span))
        if not judged.allowed:
            raise denied(judged.rule, KV_RANGE, span)

    def holds(self, caller: Caller, action: str) -> bool:
        """Whether the caller has a capability."""
        view = self.member.decider.view(caller.principal, caller.source)
        return view.judge(self._request(caller, action, None)).allowed

    def need(self, caller: Caller, action: str) -> None:
        """The caller must have a capability."""
        self.standing(caller)
        view = self.member.decider.view(caller.principal, caller.source)
        judged = view.judge(self._request(caller, action, None))
        if not judged.allowed:
            raise denied(judged.rule, action, None)

    def _request(self, caller: Caller, action: str, span: KeySpan | None) -> Request:
        return Request(
            caller.principal,
            caller.source,
            action,
            span,
            READ,
            reason=caller.reason,
            ticket=caller.ticket,
            time_ns=self.member.time_ns(),
        )

    def within_quota(self, cost: int) -> None:
        """Growing writes stop at the quota, and the first refusal raises NOSPACE (N2, N3).

        Raises:
            NoSpaceError: nothing was proposed.
        """
        if self.member.state.over_quota(cost):
            self.member.raise_alarm(ALARM_NO_SPACE)
            raise NoSpaceError

    def not_corrupt(self) -> None:
        """Writes stop while any member is known to be corrupt (N4)."""
        if self.member.has_alarm(ALARM_CORRUPT):
            raise CorruptError


def _judged_again(
    answer: Callable[[Effects], bytes | Waiting],
) -> Callable[[Effects], bytes | Waiting]:
    """For a caller with a simple token, that a member let in which had yet to apply its end.

    etcd tries such a write again, now that the change is applied there, and then the token is bad
    (A13); with a new revision it would be as bad here, so nothing needs to be proposed twice.
    """

    def judged(effects: Effects) -> bytes | Waiting:
        try:
            return answer(effects)
        except AuthOldRevisionError as overtaken:
            error = InvalidAuthTokenError()
            error.recorded = overtaken.recorded
            error.detail = OVERTAKEN
            raise error from None

    return judged


def raise_refused(effects: Effects) -> None:
    """Turn a refusal of apply into the caller's error; its leaf is in stream M."""
    result = effects.result
    if type(result) is Refused:
        result.error.recorded = True
        raise result.error


def denied(rule: str, action: str, span: KeySpan | None) -> PermissionDeniedError:
    """A refusal that knows for its record what was asked for and which rule decided."""
    error = PermissionDeniedError()
    error.rule = rule
    error.about = about_span(span, action) if span is not None else Resource(object=action)
    return error


def about_span(span: KeySpan, action: str) -> Resource:
    """The keys a record is about, and the action that was asked for."""
    key, end = span
    if end == key + b"\0":
        return Resource(key=key, object=action)
    return Resource(key=key, range_end=b"\0" if end is None else end, object=action)
