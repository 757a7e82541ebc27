"""Which refusal leaves which record in stream L (security.md 3.13), and the wait for it (FC-2).

One table, beside the one table of statuses. A refusal that apply made has its leaf in stream M
already and is not recorded again; one that was recorded where it was decided likewise. Accepted
calls never come here: they pay nothing.

A record names who asked (as far as that is known), what was asked for and why not; never a value,
a password, a token or a text of the client's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from configsvc import errors
from configsvc.api.callers import Connection, Metadata
from configsvc.api.contract import (
    Caller,
    ConnectionIdentity,
    Method,
    StreamFactory,
    StreamHandler,
    StreamSink,
    UnaryHandler,
)
from configsvc.api.status import Code, code_name, status_of
from configsvc.audit.record import NOTHING, Resource
from configsvc.errors import ConfigServiceError, ElectionError, RequestError
from configsvc.runtime.member import Member
from configsvc.runtime.waiting import Waiting
from configsvc.types import Principal, Source

Tell = Callable[[int, str], None]
Then = Callable[[BaseException], None]


class Row(NamedTuple):
    """The record of a kind of refusal."""

    event: str
    waits: bool = True  # False: counted in floods, so that an overloaded member answers at once


RECORDS: Final[dict[type[RequestError], Row]] = {
    errors.CertificateNotAcceptableError: Row("auth.denied"),
    errors.UserEmptyError: Row("auth.denied"),
    errors.InvalidAuthTokenError: Row("auth.denied"),
    errors.AuthOldRevisionError: Row("auth.denied"),
    errors.InvalidAuthMgmtError: Row("auth.denied"),
    errors.AuthFailedError: Row("auth.denied"),
    errors.PermissionDeniedError: Row("authz.denied"),
    errors.AuthDisableRefusedError: Row("authz.denied"),
    errors.PolicyInvalidError: Row("policy.load"),
    errors.InvalidArgumentError: Row("request.malformed"),
    errors.InvalidClientAPIVersionError: Row("request.malformed"),
    errors.CorruptError: Row("internal"),
    errors.RequestTooLargeError: Row("limit.hit", waits=False),
    errors.RequestTooManyRequestsError: Row("limit.hit", waits=False),
    errors.OverloadedError: Row("limit.hit", waits=False),
    errors.UnimplementedError: Row("unknown.method", waits=False),
}


def meant(error: RequestError) -> RequestError:
    """What the record of ``error`` is about: a step's refusal is told in other clothes."""
    cause = error.__cause__
    return cause if isinstance(error, ElectionError) and isinstance(cause, RequestError) else error


def row_of(error: BaseException) -> Row | None:
    """The record that an error asks for; None: none of its own."""
    if isinstance(error, RequestError):
        error = meant(error)
    for kind in type(error).__mro__:
        row = RECORDS.get(kind)
        if row is not None:
            return row
    return None


class Refusals:
    """The last step of every refused call of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def refuse(
        self,
        error: BaseException,
        identity: ConnectionIdentity,
        metadata: Metadata,
        path: str,
        tell: Tell,
    ) -> None:
        """Tell code and text of ``error`` once its record is on disk.

        Args:
            error: What the call ended with.
            identity: Of the connection.
            metadata: Of the request.
            path: Of the method if it exists, else "".
            tell: Called once, now or later, on the loop.
        """

        def then(outcome: BaseException) -> None:
            tell(*self.status_of(outcome))

        if isinstance(error, RequestError) and (meant(error).recorded or row_of(error) is None):
            then(error)
        elif isinstance(identity, Connection):
            self.record(error, *_who(identity, metadata), path, then)
        else:
            # A certificate that was refused at the door: recorded there, once per connection.
            self._member.audit.settled(lambda failed: then(failed or error))

    def record(
        self, error: BaseException, principal: Principal, source: Source, path: str, then: Then
    ) -> None:
        """Call ``then`` with ``error`` once its record is on disk, or with what prevented that."""
        audit = self._member.audit
        if not isinstance(error, RequestError):
            detail = type(error).__name__
            audit.note("internal", principal, source, code="INTERNAL", detail=detail)
            then(error)
            return
        row, why = row_of(error), meant(error)
        if row is None or why.recorded:
            then(error)
            return
        why.recorded = True
        about = why.about if isinstance(why.about, Resource) else NOTHING
        audit.note(
            row.event,
            principal,
            source,
            (lambda failed: then(failed or error)) if row.waits else None,
            code=code_name(status_of(why)[0]),
            rule=why.rule,
            detail=why.detail or type(why).text,
            resource=about._replace(method=path or None),
        )
        if not row.waits:
            then(error)

    def status_of(self, error: BaseException) -> tuple[int, str]:
        """Code and text of anything; an unexpected error is logged and named by an id (FC-6)."""
        if isinstance(error, RequestError):
            return status_of(error)
        return int(Code.INTERNAL), f"internal error, id={self._member.report_failure(error)}"

    # --- for callers that are not gRPC -----------------------------------------------------------

    def held(self, method: Method) -> Method:
        """``method``, whose refusals wait for their records by themselves."""
        unary, stream = method.unary, method.stream
        return method._replace(
            unary=self._held_unary(unary, method.path) if unary is not None else None,
            stream=self._held_stream(stream, method.path) if stream is not None else None,
        )

    def _held_unary(self, handler: UnaryHandler, path: str) -> UnaryHandler:
        def call(caller: Caller, raw: bytes) -> bytes | Waiting:
            out = _Held()

            def refused(error: ConfigServiceError) -> Waiting:
                self.record(error, caller.principal, caller.source, path, out.end)
                return out

            try:
                result = handler(caller, raw)
            except ConfigServiceError as error:
                return refused(error)
            if isinstance(result, bytes):
                return result
            out.inner = result
            result.bind_pieces(
                lambda r: (
                    _drop(refused(r)) if isinstance(r, ConfigServiceError) else out.complete(r)
                )
            )
            return out

        return call

    def _held_stream(self, factory: StreamFactory, path: str) -> StreamFactory:
        def call(caller: Caller, sink: StreamSink) -> StreamHandler:
            def refused(error: BaseException, then: Then) -> None:
                self.record(error, caller.principal, caller.source, path, then)

            held = _HeldSink(sink, refused)
            try:
                return _HeldHandler(factory(caller, held), held)
            except ConfigServiceError as error:
                held.finish(error)
                return _Ended()

        return call


def _drop(_: object) -> None:
    return None


def _who(identity: Connection, metadata: Metadata) -> tuple[Principal, Source]:
    try:
        caller = identity.caller(metadata)
    except RequestError:
        return identity.suspect()
    return caller.principal, caller.source


class _Held(Waiting):
    """An answer that passes through ``Refusals``; cancelling it cancels what it waits for."""

    __slots__ = ("inner",)

    def __init__(self) -> None:
        super().__init__()
        self.inner: Waiting | None = None

    def end(self, error: BaseException) -> None:
        """The refusal may be told now."""
        self.complete(error)  # type: ignore[arg-type]

    def cancel(self) -> None:
        super().cancel()
        if self.inner is not None:
            self.inner.cancel()


class _HeldSink:
    """A stream's sink whose end by an error waits for the record."""

    def __init__(self, sink: StreamSink, refused: Callable[[BaseException, Then], None]) -> None:
        self._sink = sink
        self._refused = refused
        self.ended = False

    def send(self, payload: bytes) -> bool:
        return not self.ended and self._sink.send(payload)

    def finish(self, error: ConfigServiceError | None) -> None:
        if self.ended:
            return
        self.ended = True
        if error is None:
            self._sink.finish(None)
        else:
            self._refused(error, self._finish)

    def _finish(self, error: BaseException) -> None:
        self._sink.finish(error)  # type: ignore[arg-type]


class _HeldHandler:
    """A stream's handler whose exceptions end it through its sink."""

    def __init__(self, handler: StreamHandler, sink: _HeldSink) -> None:
        self._handler = handler
        self._sink = sink

    def on_message(self, raw: bytes) -> None:
        self._guarded(lambda: self._handler.on_message(raw))

    def on_half_close(self) -> None:
        self._guarded(self._handler.on_half_close)

    def on_writable(self) -> None:
        self._guarded(self._handler.on_writable)

    def on_cancel(self) -> None:
        if not self._sink.ended:
            self._handler.on_cancel()

    def _guarded(self, call: Callable[[], None]) -> None:
        if self._sink.ended:
            return
        try:
            call()
        except ConfigServiceError as error:
            self._handler.on_cancel()
            self._sink.finish(error)


class _Ended:
    """Stands in for a stream that was refused before it began."""

    def on_message(self, raw: bytes) -> None:
        return

    def on_half_close(self) -> None:
        return

    def on_cancel(self) -> None:
        return

    def on_writable(self) -> None:
        return
