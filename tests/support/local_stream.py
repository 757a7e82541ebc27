"""Calls that are refused, and what a member's own stream says of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from configsvc.audit.actors import decode_actor
from configsvc.audit.events import CODES, EVENT_NAMES
from configsvc.audit.leaf import decode_leaf
from configsvc.storage.local.messages import LocalIdentity
from configsvc.storage.local.store import LocalStore
from configsvc.storage.seal.keyfile import KeyFile
from tests.support.members import MemberCluster, MemberProcess


@contextlib.contextmanager
def channel(cluster: MemberCluster, user: str, member: MemberProcess) -> Iterator[grpc.Channel]:
    pair = cluster.user(user)
    creds = grpc.ssl_channel_credentials(
        (cluster.pki / "ca-server.pem").read_bytes(),
        Path(f"{pair}.key").read_bytes(),
        Path(f"{pair}.pem").read_bytes(),
    )
    target = member.client_url.removeprefix("https://")
    with grpc.secure_channel(target, creds, options=[("grpc.enable_http_proxy", 0)]) as made:
        yield made


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code().name, error.details()


def stream(member: MemberProcess) -> list[dict[str, Any]]:
    """All records of a member's file, with the actor's fields in "who"."""
    path = member.data / "local" / "audit.db"
    identity = LocalIdentity(*_ids(member))
    store = LocalStore(path, identity, KeyFile.load(member.key), sync=True)
    with store.reading() as reader:
        actors = {a.hash: dict(decode_actor(a.record)) for a in reader.actors(0, 1 << 60)}
        out = []
        for record in reader.records(0, 1 << 60):
            fields: dict[str, Any] = dict(decode_leaf(record.leaf))
            fields["event"] = EVENT_NAMES[fields["event"]]
            fields["code"] = CODES[fields["code"]]
            fields["who"] = actors[fields["actor"]]
            out.append(fields)
    return out


def _ids(member: MemberProcess) -> tuple[int, int, bytes]:
    with contextlib.closing(sqlite3.connect(member.data / "local" / "audit.db")) as db:
        cluster, who, store = db.execute(
            "SELECT cluster_id, member_id, store_id FROM store"
        ).fetchone()
    return int.from_bytes(cluster, "big"), int.from_bytes(who, "big"), store


def events(records: list[dict[str, Any]]) -> list[str]:
    return [record["event"] for record in records]


def refused(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the harness' own questions before there were any rights."""
    return [record for record in records if record.get("key") != b"health"]
