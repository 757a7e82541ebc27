"""What goes back over HTTP besides messages: errors, their status, common header fields."""

from __future__ import annotations

import json
from http.client import responses
from typing import Final

from configsvc.api.contract import HttpSink
from configsvc.api.status import HTTP_OF, Code
from configsvc.errors import OverloadedError
from configsvc.limits import OVERLOAD_PAUSE_S

Fields = tuple[tuple[bytes, bytes], ...]

NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
JSON_FIELDS: Final[Fields] = ((b"content-type", b"application/json"), NO_SNIFF)
TEXT_FIELDS: Final[Fields] = ((b"content-type", b"text/plain; charset=utf-8"), NO_SNIFF)
_UNAUTHENTICATED: Final = int(Code.UNAUTHENTICATED)


def compact(value: object) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def error_body(code: int, text: str) -> bytes:
    """Newer clients read ``message``, older ones ``error`` (compat.md 5.4)."""
    return compact({"error": text, "code": code, "message": text, "details": []})


def stream_error(code: int, text: str) -> bytes:
    """The line that ends a stream, with the members of all ages of clients (compat.md 5.3)."""
    status = HTTP_OF[code]
    error = {
        "grpc_code": code,
        "http_code": status,
        "message": text,
        "http_status": reason_of(status),
        "code": code,
        "details": [],
    }
    return compact({"error": error}) + b"\n"


def reason_of(status: int) -> str:
    """Reason phrase of a status, 499 included."""
    return responses.get(status) or ("Client Closed Request" if status == 499 else "")


def fields_of(code: int, text: str) -> Fields:
    """Header of an error; 401 names what was wrong once more (G8), load a time to wait (O1)."""
    if text == OverloadedError.text:
        return (*JSON_FIELDS, (b"retry-after", b"%d" % OVERLOAD_PAUSE_S))
    if code != _UNAUTHENTICATED:
        return JSON_FIELDS
    return (*JSON_FIELDS, (b"www-authenticate", text.encode("ascii", "replace")))


def send_error(sink: HttpSink, code: int, text: str, status: int = 0) -> None:
    """A whole answer; ``status`` 0: the one that belongs to ``code``."""
    sink.respond(status or HTTP_OF[code], fields_of(code, text), error_body(code, text))


def send_stream_error(sink: HttpSink, code: int, text: str) -> None:
    """A stream that ends before its first message: the error sets the status, too."""
    sink.respond(HTTP_OF[code], fields_of(code, text), stream_error(code, text))
