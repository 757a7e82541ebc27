"""No field of a request goes unasked: each is set in at least one case of this folder or the next.

What counts is the name as a keyword, as a key of a dict or as a text by itself in a case's source;
that the case fails when the field is not understood is the case's own business.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor

from configsvc.proto import rpc_pb2, v3election_pb2, v3lock_pb2

FOLDER = Path(__file__).resolve().parents[1]
FILES = (rpc_pb2.DESCRIPTOR, v3lock_pb2.DESCRIPTOR, v3election_pb2.DESCRIPTOR)


def asked() -> frozenset[str]:
    """Every name that a case could set."""
    names: set[str] = set()
    for path in FOLDER.rglob("*.py"):
        if path.name == Path(__file__).name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg:
                names.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return frozenset(names)


def requests(descriptor: Descriptor, seen: set[str]) -> Iterator[tuple[str, str]]:
    """(message, field) of a request and of what it is made of."""
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        yield descriptor.name, field.name
        if field.message_type is not None:
            yield from requests(field.message_type, seen)


def fields() -> list[tuple[str, str]]:
    seen: set[str] = set()
    inputs = [m.input_type for f in FILES for s in f.services_by_name.values() for m in s.methods]
    return [pair for found in inputs for pair in requests(found, seen)]


FIELDS = fields()
ASKED = asked()


def test_there_are_fields_to_look_for() -> None:
    assert ("RangeRequest", "min_mod_revision") in FIELDS
    assert ("WatchCreateRequest", "progress_notify") in FIELDS
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=lambda part: part)
def test_a_case_sets(name: str, field: str) -> None:
    assert field in ASKED, f"{name}.{field} is in no case"
