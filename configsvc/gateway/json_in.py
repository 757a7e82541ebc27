"""JSON into messages: lenient in what clients differ in, strict in what has two readings.

Names in proto or lowerCamel form, integers as numbers or strings, enums by name or number, base64
in either alphabet with or without padding, ``null`` for unset; unknown members are ignored, as
etcd does. Refused: duplicate members, two members of a oneof, NaN and infinities, depth and size
beyond the bounds (GW-5). Texts name the field and never quote a value.

Source: compat.md 5.2.
"""

from __future__ import annotations

import json
import math
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from configsvc.errors import InvalidArgumentError
from configsvc.limits import JSON_CONTAINERS_MAX, JSON_DEPTH_MAX

_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[{}\[\]]")
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_URL_ALPHABET: Final = str.maketrans("-_", "+/")
_INTEGERS: Final = frozenset(
    (
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    )
)
_FLOATS: Final = frozenset((FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT))


class _Field(NamedTuple):
    name: str
    repeated: bool
    oneof: str  # "" outside of one
    message: Descriptor | None
    read: Callable[[Any], Any]  # of a scalar; raises ValueError


_known: dict[Descriptor, dict[str, _Field]] = {}  # as many entries as there are message types


def messages(body: bytes, cls: Any) -> list[bytes]:
    """The encoded messages of a body that holds any number of documents.

    Raises:
        InvalidArgumentError: not JSON, or not that message.
    """
    return [_encoded(document, cls) for document in _documents(body)]


def only_message(body: bytes, cls: Any) -> bytes:
    """The one encoded message of a body; an empty body is an empty message.

    Raises:
        InvalidArgumentError: as ``messages``, or several documents.
    """
    found = messages(body, cls)
    if len(found) > 1:
        raise InvalidArgumentError("body: one JSON document is expected")
    return found[0] if found else b""


# --- text -----------------------------------------------------------------------------------------


def _documents(body: bytes) -> list[dict[str, Any]]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidArgumentError("body: not UTF-8") from None
    _check_shape(text)
    found: list[dict[str, Any]] = []
    at = _skip(text, 0)
    while at < len(text):
        if text[at] != "{":
            raise InvalidArgumentError("body: a JSON object is expected")
        try:
            document, at = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise InvalidArgumentError("body: not JSON, or a member is there twice") from None
        found.append(document)
        at = _skip(text, at)
    return found


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank is not None else at


def _check_shape(text: str) -> None:
    """Judge depth and number of objects and arrays before anything is built from them."""
    count = text.count("{") + text.count("[")
    if count <= JSON_DEPTH_MAX:
        return
    if count > JSON_CONTAINERS_MAX:
        raise InvalidArgumentError(f"body: more than {JSON_CONTAINERS_MAX} objects and arrays")
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "{[" else -1
        if depth > JSON_DEPTH_MAX:
            raise InvalidArgumentError(f"body: nested deeper than {JSON_DEPTH_MAX}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError("not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("out of range")
    return value


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite
)


# --- values ---------------------------------------------------------------------------------------


def _encoded(document: dict[str, Any], cls: Any) -> bytes:
    message = cls()
    _fill(message, document)
    encoded: bytes = message.SerializeToString()
    return encoded


def _fill(message: Any, members: Any) -> None:
    fields = _known.get(message.DESCRIPTOR) or _fields(message.DESCRIPTOR)
    seen: set[str] = set()
    for name, value in members.items():
        field = fields.get(name)
        if field is None or value is None:
            continue
        mark = field.oneof or field.name
        if mark in seen:
            raise InvalidArgumentError(f"{field.name}: given twice, or beside another choice")
        seen.add(mark)
        try:
            _set(message, field, value)
        except (ValueError, TypeError, OverflowError):
            raise InvalidArgumentError(f"{field.name}: value cannot be used") from None


def _set(message: Any, field: _Field, value: Any) -> None:
    if field.repeated:
        if not isinstance(value, list):
            raise TypeError
        into = getattr(message, field.name)
        for item in value:
            if field.message is None:
                into.append(field.read(item))
            else:
                _fill(into.add(), _mapping(item))
    elif field.message is None:
        setattr(message, field.name, field.read(value))
    else:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(inner, _mapping(value))


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    found = _known[descriptor] = {}
    for field in descriptor.fields:
        known = _Field(
            field.name,
            field.is_repeated,
            field.containing_oneof.name if field.containing_oneof is not None else "",
            field.message_type,
            _reader(field),
        )
        found[field.name] = found[field.json_name] = known
    return found


def _reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    kind = field.cpp_type
    if kind in _INTEGERS:
        return _integer
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _bool
    if field.enum_type is not None:
        numbers = {name: v.number for name, v in field.enum_type.values_by_name.items()}
        return lambda value: numbers[value] if value in numbers else _integer(value)
    if kind in _FLOATS:
        return _float
    return _base64 if field.type == FieldDescriptor.TYPE_BYTES else _text


def _integer(value: Any) -> int:
    if isinstance(value, str):
        if _INTEGER.fullmatch(value) is None:
            raise ValueError
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _base64(value: Any) -> bytes:
    text = _text(value).translate(_URL_ALPHABET)
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    if len(text) % 4:
        raise ValueError
    try:
        return a2b_base64(text, strict_mode=True) if text else b""
    except Base64Error:
        raise ValueError from None
