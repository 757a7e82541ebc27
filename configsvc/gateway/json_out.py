"""Messages into JSON, byte for byte as existing clients expect it (compat.md 5.2).

One compact document, fields in the order of their numbers under their proto names, what is zero
left out, 64-bit integers as strings, bytes as padded standard base64, enums by name.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

_LONG: Final = frozenset(
    (
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT64,
    )
)
_INT: Final = frozenset((FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32))


class _Plan(NamedTuple):
    """How one field is written."""

    label: str  # its name, quoted, with the colon
    write: Callable[[Any, list[str]], None]
    one: Callable[[Any, list[str]], None] | None  # of a list: one of its values


_plans: dict[FieldDescriptor, _Plan] = {}  # as many entries as the served messages have fields


def to_json(message: Any) -> str:
    """The document of one message."""
    out: list[str] = []
    _message(message, out)
    return "".join(out)


class JsonPieces:
    """The document of a message that comes in parts (``runtime.waiting.Pieces``), piece by piece.

    The pieces together are what ``to_json`` says of the whole message.
    """

    def __init__(self) -> None:
        self._mark = "{"  # before the next field
        self._list: FieldDescriptor | None = None  # not closed yet: the next part may go on with it

    def add(self, part: Any, values_max: int) -> Iterator[str]:
        """The text of one part; each piece of ``values_max`` values of a list at most."""
        out: list[str] = []
        for field, value in part.ListFields():
            plan = _plans.get(field) or _plan(field)
            if plan.one is None:
                self._begin(plan.label, out)
                plan.write(value, out)
                continue
            mark = ","
            if field != self._list:
                self._begin(plan.label, out)
                self._list = field
                mark = "["
            for number, each in enumerate(value, 1):
                out.append(mark)
                plan.one(each, out)
                mark = ","
                if number % values_max == 0:
                    yield "".join(out)
                    out.clear()
        yield "".join(out)

    def end(self) -> str:
        """What closes the document."""
        if self._mark == "{":
            return "{}"
        return "]}" if self._list is not None else "}"

    def _begin(self, label: str, out: list[str]) -> None:
        if self._list is not None:
            out.append("]")
            self._list = None
        out.append(self._mark)
        out.append(label)
        self._mark = ","


def _message(message: Any, out: list[str]) -> None:
    mark = "{"
    for field, value in message.ListFields():
        plan = _plans.get(field) or _plan(field)
        out.append(mark)
        out.append(plan.label)
        plan.write(value, out)
        mark = ","
    out.append("}" if mark == "," else "{}")


def _plan(field: FieldDescriptor) -> _Plan:
    write = _writer(field)
    one = write if field.is_repeated else None
    if one is not None:
        write = _list_of(one)
    plan = _plans[field] = _Plan(f'"{field.name}":', write, one)
    return plan


def _list_of(write: Callable[[Any, list[str]], None]) -> Callable[[Any, list[str]], None]:
    def write_all(values: Any, out: list[str]) -> None:
        mark = "["
        for value in values:
            out.append(mark)
            write(value, out)
            mark = ","
        out.append("]" if mark == "," else "[]")

    return write_all


def _writer(field: FieldDescriptor) -> Callable[[Any, list[str]], None]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return _message
    if kind in _LONG:
        return lambda value, out: out.append(f'"{value}"')
    if kind in _INT:
        return lambda value, out: out.append(str(value))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return lambda value, out: out.append("true" if value else "false")
    if field.enum_type is not None:
        names = {n: f'"{v.name}"' for n, v in field.enum_type.values_by_number.items()}
        return lambda value, out: out.append(names.get(value) or str(value))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return lambda value, out: out.append(encode_basestring(value))
    return lambda value, out: out.append(repr(value))  # floating point


def _bytes(value: bytes, out: list[str]) -> None:
    out.append('"')
    out.append(b2a_base64(value, newline=False).decode("ascii"))
    out.append('"')
