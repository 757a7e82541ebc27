"""What a request's header block says, and whether it may say so (RFC 9113, section 8; N71).

One strict check for names and values, used for HTTP/1.1 by the frontend as well. What is
ambiguous is refused, and the connection with it: such blocks come from attacks and broken
proxies, not from clients that deserve a second chance.
"""

from __future__ import annotations

import re
from typing import Any, Final

from configsvc.http2.protocol import PROTOCOL_ERROR, ConnectionFault
from configsvc.limits import CHECKED_FIELDS_MAX, CHECKED_VALUE_BYTES_MAX

Field = tuple[bytes, bytes]

NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
BAD_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]\Z")
CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")

_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_THE_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_ONCE: Final = frozenset((b"content-length", b"host", b"content-type", b"grpc-timeout"))


class RequestHead:
    """A request's header block, checked. Never changed after it was made, but for ``context``.

    Equal blocks of one connection share one object; ``context`` is where the consumer keeps what
    it derived (route, deadline), so that this too is done once.
    """

    __slots__ = (
        "authority",
        "content_length",
        "content_type",
        "context",
        "fields",
        "host",
        "method",
        "path",
        "scheme",
    )

    def __init__(self, pseudo: dict[bytes, bytes], fields: tuple[Field, ...]) -> None:
        self.method = pseudo[b":method"]
        self.scheme = pseudo.get(b":scheme", b"")
        self.path = pseudo.get(b":path", b"")
        self.authority = pseudo.get(b":authority", b"")
        self.fields = fields  # without pseudo-fields, in their order
        self.content_type = b""
        self.content_length = -1  # -1: not announced
        self.host: bytes | None = None
        self.context: Any = None
        for name, value in fields:
            if name == b"content-type":
                self.content_type = value
            elif name == b"content-length":
                self.content_length = int(value)
            elif name == b"host":
                self.host = value

    @property
    def is_grpc(self) -> bool:
        """Whether this is a gRPC call by its content type (``+proto`` and parameters allowed)."""
        kind = self.content_type
        return kind.startswith(b"application/grpc") and kind[16:17] in (b"", b"+", b";")


def _malformed(reason: str) -> ConnectionFault:
    return ConnectionFault(PROTOCOL_ERROR, reason)


def check_field(name: bytes, value: bytes) -> None:
    """Refuse a field that does not have exactly one reading.

    Raises:
        ConnectionFault: bad name or value; the reason quotes neither.
    """
    if name not in _PSEUDO and NAME.fullmatch(name) is None:
        raise _malformed("bad field name")
    if BAD_IN_VALUE.search(value) is not None:
        raise _malformed("bad field value")
    if name in _OF_THE_CONNECTION:
        raise _malformed("field of the connection in a request")
    if name == b"te" and value.lower() != b"trailers":
        raise _malformed("te other than trailers")
    if name == b"content-length" and CONTENT_LENGTH.fullmatch(value) is None:
        raise _malformed("bad content-length")


def request_head(block: list[Field], checked: set[Field] | None = None) -> RequestHead:
    """Check a decoded block and give it its meaning.

    ``checked`` remembers fields that passed, for the next block of the same connection.

    Raises:
        ConnectionFault: PROTOCOL_ERROR for every breach of section 8.
    """
    if checked is None:
        checked = set()
    pseudo: dict[bytes, bytes] = {}
    once: set[bytes] = set()
    fields: list[Field] = []
    for field in block:
        name, value = field
        if name[:1] == b":":
            if fields:
                raise _malformed("pseudo-field after a field")
            if name not in _PSEUDO:
                raise _malformed("unknown pseudo-field")
            if name in pseudo:
                raise _malformed("doubled pseudo-field")
            pseudo[name] = value
        else:
            fields.append((name, value))
            if name in _ONCE:
                if name in once:
                    raise _malformed("doubled field")
                once.add(name)
        if field not in checked:
            check_field(name, value)
            if len(value) <= CHECKED_VALUE_BYTES_MAX:
                if len(checked) >= CHECKED_FIELDS_MAX:
                    checked.clear()
                checked.add((name, value))
    if not pseudo.get(b":method"):
        raise _malformed("no :method")
    if pseudo[b":method"] == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
            raise _malformed("bad CONNECT")
    elif not pseudo.get(b":scheme") or not pseudo.get(b":path"):
        raise _malformed("no :scheme or :path")
    return RequestHead(pseudo, tuple(fields))


def check_trailers(block: list[Field]) -> None:
    """Trailers carry no pseudo-fields and nothing that frames the message.

    Raises:
        ConnectionFault: PROTOCOL_ERROR.
    """
    for name, value in block:
        if name[:1] == b":":
            raise _malformed("pseudo-field in trailers")
        check_field(name, value)
        if name == b"content-length":
            raise _malformed("content-length in trailers")
