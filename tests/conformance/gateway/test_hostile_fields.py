"""Requests of every served method with fields that do not decode, over gRPC and as JSON.

What cannot be read is refused as an invalid argument before anything happens, and never as a
failure of ours; the cases are made from the descriptors, so a new field is asked without a change.
Values that decode but should not be sent are compared with etcd (``etcd/test_etcd_bad_input.py``);
those of our own services are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from configsvc.gateway.routes import ROUTES
from configsvc.proto import health_pb2, rpc_pb2, v1_pb2, v3election_pb2, v3lock_pb2
from tests.support.gateway_client import JsonClient

Connect = Callable[[str], grpc.Channel]
BAD = grpc.StatusCode.INVALID_ARGUMENT
FILES = (rpc_pb2, v3lock_pb2, v3election_pb2, v1_pb2, health_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if (service.full_name, method.name) != ("grpc.health.v1.Health", "List")
}
CUT = {
    "cut short": b"\x0a\x7f",
    "no tag": b"\xff" * 12,
    "open group": b"\x0b",
    "long number": b"\x08" + b"\xff" * 11,
}


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def wrapped(path: tuple[int, ...], payload: bytes) -> bytes:
    """``payload`` as field ``path[-1]`` of the message in ``path[-2]`` and so on."""
    for number in reversed(path):
        payload = varint(number << 3 | 2) + varint(len(payload)) + payload
    return payload


def spots(message: Any, path: tuple[int, ...] = (), depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """(path, field) of every field, inner messages included."""
    for field in message.fields:
        here = (*path, field.number)
        yield here, field
        if field.message_type is not None and depth:
            yield from spots(field.message_type, here, depth - 1)


def raw_cases() -> Iterator[tuple[str, str, bytes]]:
    for path, method in METHODS.items():
        for label, raw in CUT.items():
            yield path, label, raw
        for where, field in spots(method.input_type):
            if field.type == field.TYPE_STRING:
                yield path, f"{field.full_name} is no UTF-8", wrapped(where, b"\xff\xfe")
            if field.type == field.TYPE_MESSAGE:
                yield path, f"{field.full_name} is cut", wrapped(where, b"\x0a\x7f")


def ask(channel: grpc.Channel, path: str, raw: bytes) -> tuple[grpc.StatusCode, str]:
    """What a call of one message ends with; a stream is read to its end."""
    method = METHODS[path]
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }
    call = kinds[method.client_streaming, method.server_streaming](path)
    request = iter([raw]) if method.client_streaming else raw
    try:
        answer = call(request, timeout=10)
        for _ in answer if method.server_streaming else ():
            pass
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


RAW = list(raw_cases())


def test_there_are_cases_of_every_method() -> None:
    assert {path for path, _, _ in RAW} == set(METHODS)
    assert len(RAW) > 300


@pytest.mark.parametrize("path", METHODS)
def test_what_does_not_decode_is_an_invalid_argument(path: str, channel_of: Connect) -> None:
    channel = channel_of("root")
    found = {label: ask(channel, path, raw) for asked, label, raw in RAW if asked == path}
    assert {label: told for label, told in found.items() if told[0] is not BAD} == {}


def own_cases() -> Iterator[tuple[str, str, bytes]]:
    """Odd values of our own services: numbers at their ends, long and empty texts and bytes."""
    for path, method in METHODS.items():
        if not path.startswith("/configsvc.v1."):
            continue
        for where, field in spots(method.input_type):
            inner, number = where[:-1], where[-1]
            if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
                for size in (0, 1, 100_000, 1_900_000):
                    yield path, f"{field.full_name} of {size}", wrapped(where, b"x" * size)
            elif field.type != field.TYPE_MESSAGE:
                for value in (0, 1, 99, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
                    raw = varint(number << 3) + varint(value)
                    yield path, f"{field.full_name} = {value}", wrapped(inner, raw)


OWN = list(own_cases())
FAILURES = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("path", sorted({path for path, _, _ in OWN}))
def test_odd_values_are_answered_or_refused(path: str, channel_of: Connect) -> None:
    channel = channel_of("root")
    found = {label: ask(channel, path, raw) for asked, label, raw in OWN if asked == path}
    assert {label: told for label, told in found.items() if told[0] in FAILURES} == {}


def wrong_json(field: Any) -> tuple[str, ...]:
    """JSON texts that are no value of a field."""
    if field.is_repeated:
        return ("5", '"x"', "{}", "[[]]")
    if field.type == field.TYPE_MESSAGE:
        return ("5", '"x"', "[]", "true")
    if field.type == field.TYPE_ENUM:
        return ('"NOPE"', "{}", "1.5", "[]")
    if field.type == field.TYPE_BYTES:
        return ('"*"', "5", "{}", '"a"')
    if field.type == field.TYPE_STRING:
        return ("5", "{}", "true", "[]")
    if field.type == field.TYPE_BOOL:
        return ('"x"', "1", "{}", "[]")
    texts = ('"x"', "{}", "[]", "1.5", "true", "36893488147419103232", '""', '"1 "', '"0x1"')
    return (*texts, "-1") if field.type == field.TYPE_UINT64 else texts


def json_cases(message: Any, depth: int = 2) -> Iterator[str]:
    """Bodies, each with one field that is wrong, at the top or further in."""
    for field in message.fields:
        for text in wrong_json(field):
            yield f'{{"{field.name}":{text}}}'
        if field.message_type is not None and depth:
            for body in json_cases(field.message_type, depth - 1):
                yield f'{{"{field.name}":{f"[{body}]" if field.is_repeated else body}}}'


@pytest.mark.parametrize("route", ROUTES)
def test_json_that_is_no_request_is_a_bad_request(route: str, root: JsonClient) -> None:
    bodies = [
        "{",
        "[]",
        "5",
        '"x"',
        "null{",
        "\x00",
        *json_cases(METHODS[ROUTES[route]].input_type),
    ]
    found = {}
    for body in bodies:
        answer = root.call(route, body)
        if (answer.status, answer.json.get("code")) != (400, 3):
            found[body] = (answer.status, answer.text[:200])
    assert found == {}
