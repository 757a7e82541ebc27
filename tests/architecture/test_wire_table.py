"""The .proto files against the table of etcd's fields: every message, number, type and RPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from configsvc.proto import auth_pb2, kv_pb2, rpc_pb2, v3election_pb2, v3lock_pb2

TABLE = json.loads((Path(__file__).resolve().parents[1] / "wire" / "etcd-v3.json").read_text())[
    "packages"
]
MODULES = {
    "etcdserverpb": rpc_pb2,
    "mvccpb": kv_pb2,
    "authpb": auth_pb2,
    "v3lockpb": v3lock_pb2,
    "v3electionpb": v3election_pb2,
}
SCALARS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_") and name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


def messages(package: str) -> list[tuple[str, dict[str, Any]]]:
    out = []
    for name, message in TABLE[package]["messages"].items():
        out.append((name, message))
        out += [(f"{name}.{n}", m) for n, m in message.get("messages", {}).items()]
    return out


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(MODULES)
    assert sum(len(p["messages"]) for p in TABLE.values()) == 117


@pytest.mark.parametrize("package", sorted(MODULES))
def test_messages_and_fields(package: str) -> None:
    module = MODULES[package]
    found = set(module.DESCRIPTOR.message_types_by_name)
    assert found == {name for name, _ in messages(package) if "." not in name}
    for name, message in messages(package):
        descriptor: Any = module.DESCRIPTOR.message_types_by_name[name.split(".")[0]]
        for part in name.split(".")[1:]:
            descriptor = descriptor.nested_types_by_name[part]
        fields = {f["name"]: f for f in message.get("fields", [])}
        assert set(descriptor.fields_by_name) == set(fields), name
        for field in descriptor.fields:
            row = fields[field.name]
            where = f"{name}.{field.name}"
            assert field.number == row["number"], where
            assert field.is_repeated == (row["label"] == "repeated"), where
            oneof = field.containing_oneof.name if field.containing_oneof else None
            assert oneof == row.get("oneof"), where
            if field.message_type is not None:
                assert field.message_type.full_name == row["type"], where
            elif field.enum_type is not None:
                assert field.enum_type.full_name == row["type"], where
            else:
                assert SCALARS[field.type] == row["type"], where


@pytest.mark.parametrize("package", sorted(MODULES))
def test_services(package: str) -> None:
    services = MODULES[package].DESCRIPTOR.services_by_name
    assert set(services) == set(TABLE[package]["services"])
    for name, rpcs in TABLE[package]["services"].items():
        methods = services[name].methods_by_name
        assert set(methods) == set(rpcs)
        for rpc, row in rpcs.items():
            method = methods[rpc]
            assert method.input_type.full_name == row["request"]
            assert method.output_type.full_name == row["response"]
            assert method.client_streaming == row["client_stream"]
            assert method.server_streaming == row["server_stream"]


@pytest.mark.parametrize("package", sorted(MODULES))
def test_enums(package: str) -> None:
    module = MODULES[package]
    for name, row in TABLE[package]["enums"].items():
        values = module.DESCRIPTOR.enum_types_by_name[name].values_by_name
        assert {k: v.number for k, v in values.items()} == row["values"]
