"""/v3/watch of good, bad and no tokens against etcd's gateway: what comes in the open stream."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.support.etcd_cases import (
    QUIET_S,
    TIMEOUT_S,
    Client,
    Outcome,
    Step,
    call,
    compare,
    masked,
    note,
)

KEY, OTHER, END = "Yg==", "Yw==", "YQ=="


def _lines(client: Client, body: str, token: str) -> Outcome:
    """Status and every line until nothing comes for a while; the stream stays open all the time."""
    host, _, port = client.notes["target"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    headers = {"Authorization": client.notes.get(token, token)} if token else {}
    try:
        connection.request("POST", "/v3/watch", body.encode(), headers)
        answer = connection.getresponse()
        out = [masked(json.loads(answer.readline()))]
        connection.sock.settimeout(QUIET_S)
        try:
            while line := answer.readline():
                out.append(masked(json.loads(line)))
        except TimeoutError:
            out.append("open")
        return answer.status, out
    finally:
        connection.close()


def watch(label: str, *requests: dict[str, Any], who: str = "") -> Step:
    body = "".join(map(json.dumps, requests))
    return Step(f"/v3/watch {label}", lambda client: _lines(client, body, who))


def create(key: str, **more: Any) -> dict[str, Any]:
    return {"create_request": {"key": key, **more}}


SCRIPT = [
    call("KV.Put", "before", key=b"b", value=b"1"),
    call("Auth.UserAdd", "root", name="root", password="root"),
    call("Auth.UserAdd", "u", name="u", password="u"),
    call("Auth.UserGrantRole", "root", user="root", role="root"),
    watch("off", create(KEY, start_revision=1)),
    call("Auth.AuthEnable"),
    call("Auth.Authenticate", "root", name="root", password="root"),
    note("root", "token"),
    call("Auth.Authenticate", "u", name="u", password="u"),
    note("u", "token"),
    watch("as root", create(KEY, start_revision=1), who="root"),
    watch("as u", create(KEY), who="u"),
    watch("nobody", create(KEY)),
    watch("bad token", create(KEY), who="bad"),
    watch("a token of nobody", create(KEY), who="A" * 16 + ".1"),
    watch("bad token, twice", create(KEY), create(OTHER, watch_id=7), who="bad"),
    watch(
        "bad token, cancel",
        create(KEY),
        {"cancel_request": {"watch_id": 0}},
        create(KEY),
        who="bad",
    ),
    watch("bad token, no range", create(KEY, range_end=END), who="bad"),
]


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_json_watch_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
