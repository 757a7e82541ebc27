"""The JSON gateway against etcd's: status and body, with what newer gateways do otherwise."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.support.etcd_cases import TIMEOUT_S, Client, Outcome, Step, compare, masked

CODE_9 = "code 9 is HTTP 400 as on newer servers, 412 on 3.4"
LOOSE_BASE64 = "base64 of the URL alphabet or without padding is taken, as by newer gateways"
OWN_WORDS = "what cannot be parsed is named in our own words"
NOT_THERE = "newer than 3.4"
JSON_ERRORS = "unknown paths and wrong methods get a JSON error too"
REASON = "newer servers tell a reason"


def _exchange(
    client: Client, method: str, path: str, body: str, headers: dict[str, str]
) -> Outcome:
    host, _, port = client.notes["target"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body.encode(), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    try:
        found = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return answer.status, text
    for document in found:
        document.pop("details", None)  # clients of all ages are served: ours has the fields of all
    return answer.status, masked(found)


def ask(path: str, body: Any = "", differs: str = "", method: str = "POST", **headers: str) -> Step:
    """One request; a body that is no text is sent as JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    label = f"{method} {path} {text[:70]} {sorted(named.items()) if named else ''}".strip()
    return Step(label, lambda c: _exchange(c, method, path, text, named), differs)


FORM = {"Content_Type": "application/x-www-form-urlencoded"}  # as curl sends
KEY, VALUE, END = "Zm9v", "YmFy", "Zm9w"
SCRIPT = [
    *(ask("/v3/kv/range", b) for b in ("", "{}", {"key": KEY}, {"key": KEY, "range_end": END})),
    ask("/v3/kv/put", {"key": KEY, "value": VALUE}),
    ask("/v3/kv/put", {"key": KEY, "value": VALUE, "prev_kv": True}),
    ask("/v3beta/kv/put", {"key": KEY, "value": VALUE}),
    ask("/v3/kv/put", {"key": KEY, "value": VALUE, "prevKv": True}),
    ask("/v3/kv/put", {"key": KEY, "value": VALUE, "unknown": [1]}),
    ask("/v3/kv/put", {"key": "", "value": VALUE}),
    ask("/v3/kv/put", {"key": KEY, "lease": "404"}),
    ask("/v3/kv/put", {"key": KEY, "lease": 404}),
    ask("/v3/kv/put", {"key": KEY, "value": None}),
    ask("/v3/kv/put", {"key": KEY, "value": VALUE}, **FORM),
    ask("/v3/kv/range", {"key": KEY, "range_end": END, "limit": "1"}),
    ask("/v3/kv/range", {"key": KEY, "range_end": END, "limit": 1}),
    ask("/v3/kv/range", {"key": KEY, "revision": 999}),
    ask("/v3/kv/range", {"key": KEY, "sort_order": "DESCEND", "sort_target": "MOD"}),
    ask("/v3/kv/range", {"key": KEY, "sort_order": 2, "sort_target": 3}),
    ask("/v3/kv/range", {"key": KEY, "count_only": True}),
    ask("/v3/kv/range", {"key": "AA==", "range_end": "AA==", "keys_only": True}),
    ask("/v3/kv/range", {"key": "Zm8"}, LOOSE_BASE64),
    ask("/v3/kv/range", {"key": "_-8="}, LOOSE_BASE64),
    ask("/v3/kv/range", {"key": "*"}, OWN_WORDS),
    ask("/v3/kv/range", "{", OWN_WORDS),
    ask("/v3/kv/range", {"key": 5}, OWN_WORDS),
    ask("/v3/kv/range", {"key": KEY, "limit": "x"}, OWN_WORDS),
    ask("/v3/kv/txn", {"compare": [{"key": KEY, "target": "CREATE", "create_revision": "0"}],
                       "success": [{"request_put": {"key": KEY, "value": VALUE}}],
                       "failure": [{"request_range": {"key": KEY}}]}),
    ask("/v3/kv/txn", {"compare": [{"key": KEY, "target": "VALUE", "value": VALUE}],
                       "success": [{"request_delete_range": {"key": KEY, "prev_kv": True}}]}),
    ask("/v3/kv/txn", {"success": [{"request_txn": {"success": [{"request_put": {"key": KEY}}]}}]}),
    ask("/v3/kv/txn", {"success": [{"requestPut": {"key": KEY}}]}),
    ask("/v3/kv/txn", {"success": [{}]}),
    ask("/v3/kv/txn", {}),
    ask("/v3/kv/deleterange", {"key": KEY, "prev_kv": True}),
    ask("/v3/kv/deleterange", {"key": KEY}),
    ask("/v3/kv/compaction", {"revision": "3"}),
    ask("/v3/kv/compaction", {"revision": "3"}),
    ask("/v3/kv/range", {"key": KEY, "revision": 2}),
    ask("/v3/lease/grant", {"ID": "7", "TTL": "600"}),
    ask("/v3/lease/grant", {"ID": "7", "TTL": "600"}, CODE_9),
    ask("/v3/lease/grant", {"ID": "8", "TTL": "9000000001"}),
    ask("/v3/lease/keepalive", {"ID": "7"}),
    ask("/v3/lease/keepalive", {"ID": "404"}),
    ask("/v3/lease/keepalive", '{"ID":"7"}{"ID":404}'),
    ask("/v3/lease/timetolive", {"ID": "7", "keys": True}),
    ask("/v3/lease/timetolive", {"ID": "404"}),
    ask("/v3/kv/lease/timetolive", {"ID": 404}),
    ask("/v3/lease/leases", {}),
    ask("/v3/kv/lease/leases"),
    ask("/v3/lease/revoke", {"ID": 404}),
    ask("/v3/kv/lease/revoke", {"ID": "7"}),
    ask("/v3/auth/enable", {}, CODE_9),
    ask("/v3/auth/authenticate", {"name": "x", "password": "y"}, CODE_9),
    ask("/v3/auth/status", {}, NOT_THERE),
    ask("/v3/auth/user/add", {"name": "u", "password": "u"}),
    ask("/v3/auth/user/add", {"name": ""}),
    ask("/v3/auth/user/list", {}),
    ask("/v3/auth/user/get", {"name": "u"}),
    ask("/v3/auth/role/add", {"name": "r"}),
    ask("/v3/auth/role/grant",
        {"name": "r", "perm": {"permType": "READWRITE", "key": KEY, "range_end": END}}),
    ask("/v3/auth/role/get", {"role": "r"}),
    ask("/v3/auth/user/grant", {"user": "u", "role": "r"}),
    ask("/v3/auth/user/revoke", {"name": "u", "role": "r"}),
    ask("/v3/auth/role/revoke", {"role": "r", "key": KEY, "range_end": END}),
    ask("/v3/auth/role/list"),
    ask("/v3/auth/role/delete", {"role": "r"}),
    ask("/v3/auth/user/changepw", {"name": "u", "password": "w"}),
    ask("/v3/auth/user/delete", {"name": "u"}),
    ask("/v3/auth/disable"),
    ask("/v3/election/leader", {"name": KEY}),
    ask("/v3/election/proclaim", {}),
    ask("/v3/election/resign", {}),
    ask("/v3/lock/unlock", {"key": ""}),
    ask("/v3/lock/unlock", {"key": KEY}),
    ask("/v3/maintenance/defragment", {}),
    ask("/v3/maintenance/transfer-leadership", {"targetID": "5"}, CODE_9),
    ask("/v3/nothing", {}, JSON_ERRORS),
    ask("/v3/kv/range", "", JSON_ERRORS, "GET"),
    ask("/v3/kv/range", {}, JSON_ERRORS, "PUT"),
    ask("/health", "", REASON, "GET"),
    ask("/version", "", NOT_THERE, "GET"),
    ask("/livez", "", NOT_THERE, "GET"),
    ask("/readyz", "", NOT_THERE, "GET"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_json_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
