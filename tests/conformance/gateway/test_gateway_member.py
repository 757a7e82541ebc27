"""The JSON gateway of a real member, as curl, etcd3gw, Patroni and shell scripts use it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from configsvc.gateway.routes import ROUTES
from tests.support.gateway_client import JsonClient, b64, unb64

STREAMS = {"Watch", "LeaseKeepAlive", "Snapshot", "Observe"}


# --- every path -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(p for p, rpc in ROUTES.items() if rpc.split("/")[2] not in STREAMS)
)
def test_every_path_is_served(root: JsonClient, path: str) -> None:
    queue = "/lock/" in path or "/election/" in path  # candidates under one name would wait
    answer = root.call(path, {"name": b64(path)} if queue else {})
    assert answer.headers["content-type"] == "application/json"
    assert answer.status in (200, 400, 404, 409, 500), answer
    if answer.status != 200:
        assert list(answer.json) == ["error", "code", "message", "details"]
        assert answer.json["message"] not in ("Not Found", "unknown method")
    wrong = root.get(path)
    assert (wrong.status, wrong.json["code"]) == (501, 12)


def test_unknown_paths(root: JsonClient) -> None:
    for path in ("/v3/kv/rangestream", "/v3/kv/put/", "/v3//kv/put", "/v2/keys", "/", "/V3/kv/put"):
        answer = root.call(path, "{}")
        assert (answer.status, answer.text) == (
            404,
            '{"error":"Not Found","code":5,"message":"Not Found","details":[]}',
        )


# --- KV -------------------------------------------------------------------------------------------


def test_keys_as_scripts_use_them(root: JsonClient) -> None:
    put = root.call("/v3/kv/put", '{"key": "Zm9v", "value": "YmFy"}')
    assert put.status == 200
    revision = put.json["header"]["revision"]
    assert isinstance(revision, str)
    found = root.call("/v3beta/kv/range", '{"key": "Zm9v"}')
    assert f'"kvs":[{{"key":"Zm9v","create_revision":"{revision}",' in found.text
    assert found.text.endswith('"version":"1","value":"YmFy"}],"count":"1"}')
    gone = root.call("/v3/kv/deleterange", '{"key":"Zm9v","prev_kv":true}')
    assert '"deleted":"1","prev_kvs":[{"key":"Zm9v"' in gone.text
    again = root.call("/v3/kv/deleterange", '{"key":"Zm9v"}')
    assert "deleted" not in again.json


def test_a_transaction_with_camel_case_and_nesting(root: JsonClient) -> None:
    body = {
        "compare": [{"target": "CREATE", "key": b64("t/x"), "createRevision": "0"}],
        "success": [
            {"requestPut": {"key": b64("t/x"), "value": b64("1")}},
            {"request_txn": {"failure": [{"request_range": {"key": b64("t/x")}}]}},
        ],
        "failure": [{"request_delete_range": {"key": b64("t/x")}}],
    }
    first = root.call("/v3/kv/txn", body).json
    assert first["succeeded"] is True
    assert list(first["responses"][0]) == ["response_put"]
    assert first["responses"][1]["response_txn"]["succeeded"] is True
    second = root.call("/v3/kv/txn", body).json
    assert "succeeded" not in second
    assert second["responses"][0]["response_delete_range"]["deleted"] == "1"


ERRORS: list[tuple[str, str, int, int, str]] = [
    ("kv/range", "{}", 400, 3, "etcdserver: key is not provided"),
    ("kv/range", '{"key":"Zm9v","revision":"99999"}', 400, 11,
     "etcdserver: mvcc: required revision is a future revision"),
    ("kv/put", '{"key":"Zm9v","lease":"12345"}', 404, 5, "etcdserver: requested lease not found"),
    ("lease/revoke", '{"ID":"12345"}', 404, 5, "etcdserver: requested lease not found"),
    ("lease/grant", '{"TTL":9000000001}', 400, 11, "etcdserver: too large lease TTL"),
    ("auth/user/get", '{"user":"nobody"}', 400, 9, "etcdserver: user name not found"),
    ("auth/disable", "{}", 400, 9, "configsvc: authentication cannot be switched off"),
    ("cluster/member/remove", '{"ID":"1"}', 404, 5, "etcdserver: member not found"),
    ("kv/range", '{"key":"Zm9v', 400, 3, "body: not JSON, or a member is there twice"),
    ("kv/range", '{"key":"Zm9"v}', 400, 3, "body: not JSON, or a member is there twice"),
    ("kv/range", '{"key":"***"}', 400, 3, "key: value cannot be used"),
    ("kv/range", "{}{}", 400, 3, "body: one JSON document is expected"),
    ("watch", '{"create_request":{},"cancel_request":{}}', 400, 3,
     "cancel_request: given twice, or beside another choice"),
    ("watch", '{"create_request":{"key":"a"}', 400, 3,
     "body: not JSON, or a member is there twice"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code", "text"), ERRORS)
def test_errors(root: JsonClient, path: str, body: str, status: int, code: int, text: str) -> None:
    answer = root.call(f"/v3/{path}", body)
    expected = {"error": text, "code": code, "message": text, "details": []}
    assert (answer.status, answer.text) == (status, json.dumps(expected, separators=(",", ":")))


# --- streams --------------------------------------------------------------------------------------


def test_watch_sends_each_message_in_a_chunk_of_its_own(root: JsonClient) -> None:
    body = '{"create_request":{"key":"%s"}}{"create_request":{"key":"%s","filters":["NODELETE"]}}'
    with root.stream("/v3/watch", body % (b64("w/a"), b64("w/b"))) as watch:
        created = watch.chunk()
        assert created.startswith('{"result":{"header":{')
        assert created.endswith('"created":true}}\n')
        assert watch.result()["watch_id"] == "1"
        for key, value in (("w/a", "1"), ("w/b", "2"), ("w/a", "3")):
            root.call("/v3/kv/put", {"key": b64(key), "value": b64(value)})
            chunk = watch.chunk()
            assert chunk.count("\n") == 1
            (event,) = json.loads(chunk)["result"]["events"]
            assert "type" not in event
            assert unb64(event["kv"]["value"]) == value.encode()
        root.call("/v3/kv/deleterange", {"key": b64("w/b")})
        root.call("/v3/kv/deleterange", {"key": b64("w/a")})
        assert watch.result()["events"][0]["type"] == "DELETE"
        assert watch.quiet(0.1)  # it stays open although the request's body ended


def test_requests_of_a_watch_are_taken_in_order(root: JsonClient) -> None:
    body = '{"create_request":{"key":"Zg==","watch_id":7}}\n{"cancel_request":{"watch_id":"7"}}'
    with root.stream("/v3/watch", body) as watch:
        assert watch.result()["watch_id"] == "7"
        assert watch.result()["canceled"] is True


def test_keepalive_answers_each_request_then_ends(root: JsonClient) -> None:
    lease = root.call("/v3/lease/grant", '{"TTL":60}').json["ID"]
    with root.stream("/v3/lease/keepalive", f'{{"ID":"{lease}"}}{{"ID":1}}') as stream:
        first, second = stream.chunks()
        assert json.loads(first)["result"]["TTL"] == "60"
        assert "TTL" not in json.loads(second)["result"]
    answer = root.call("/v3/lease/keepalive", f'{{"ID":"{lease}"}}')
    assert answer.json["result"]["ID"] == lease


def test_snapshot_comes_in_blobs(root: JsonClient) -> None:
    with root.stream("/v3/maintenance/snapshot", "") as stream:
        chunks = list(stream.chunks())
    assert all('"blob":"' in chunk for chunk in chunks)
    assert len(unb64(json.loads(chunks[-1])["result"]["blob"])) == 32


def test_an_error_before_the_first_message_of_a_stream(bob: JsonClient) -> None:
    answer = bob.call("/v3/maintenance/snapshot", "")
    assert (answer.status, answer.text[-1]) == (403, "\n")
    assert answer.json["error"] == {
        "code": 7,
        "grpc_code": 7,
        "http_code": 403,
        "http_status": "Forbidden",
        "message": "etcdserver: permission denied",
        "details": [],
    }
    badly = bob.call("/v3/lease/keepalive", '{"ID":1}', headers={"Authorization": "bad"})
    assert (badly.status, badly.json["error"]["code"]) == (401, 16)


def test_deadlines(root: JsonClient) -> None:
    with root.stream("/v3/watch", '{"create_request":{}}', **{"Grpc-Timeout": "200m"}) as watch:
        assert watch.result()["created"] is True
        last = list(watch.chunks())[-1]
        assert json.loads(last)["error"]["grpc_code"] == 4
    refused = root.call("/v3/kv/range", '{"key":"Zg=="}', headers={"Grpc-Timeout": "soon"})
    assert (refused.status, refused.json["code"]) == (400, 3)


def test_a_watcher_that_leaves_is_forgotten(root: JsonClient) -> None:
    def streams() -> float:
        text = root.get("/metrics").text
        (line,) = [x for x in text.splitlines() if x.startswith("etcd_debugging_mvcc_watch_stream")]
        return float(line.split()[1])

    before = streams()
    watch = root.stream("/v3/watch", '{"create_request":{"key":"Zg=="}}')
    assert watch.result()["created"] is True
    assert streams() == before + 1
    watch.close()
    assert eventually(lambda: streams() == before)


def test_a_reader_that_pauses_misses_nothing(root: JsonClient) -> None:
    """Beyond the bound nothing is kept for it: the rest comes from history, in order."""
    with root.stream("/v3/watch", json.dumps({"create_request": {"key": b64("w/big")}})) as watch:
        assert watch.result()["created"] is True
        versions = range(1, 41)
        for _ in versions:
            root.call("/v3/kv/put", {"key": b64("w/big"), "value": b64("v" * 262_144)})
        seen: list[int] = []
        while len(seen) < len(versions):
            seen += [int(e["kv"]["version"]) for e in watch.result()["events"]]
    assert seen == list(versions)


def eventually(check: Any, seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- Patroni --------------------------------------------------------------------------------------


def test_the_calls_of_patroni(root: JsonClient) -> None:
    version = root.get("/version").json
    assert tuple(int(x) for x in version["etcdserver"].split(".")) >= (3, 4, 0)
    assert tuple(int(x) for x in version["etcdcluster"].split(".")) >= (3, 4)
    (member,) = root.call("/v3/cluster/member/list", "{}").json["members"]
    assert member["clientURLs"] == [f"https://127.0.0.1:{root.port}"]
    lease = root.call("/v3/lease/grant", '{"TTL":30}').json["ID"]
    prefix = {"key": b64("/service/pg/"), "range_end": b64("/service/pg0"), "serializable": True}
    listing = root.call("/v3/kv/range", prefix).json
    start = listing["header"]["revision"]
    leader = b64("/service/pg/leader")
    create = {
        "compare": [{"key": leader, "target": "CREATE", "create_revision": "0"}],
        "success": [{"request_put": {"key": leader, "value": b64("n1"), "lease": lease}}],
        "failure": [],
    }
    with root.stream(
        "/v3/watch",
        json.dumps({"create_request": prefix | {"start_revision": start, "filters": []}}),
    ) as watch:
        assert watch.result()["created"] is True
        won = root.call("/v3/kv/txn", create).json
        assert won["succeeded"] is True
        event = watch.result()["events"][0]
        assert event["kv"]["mod_revision"] == won["header"]["revision"]
        assert event["kv"]["lease"] == lease
        assert "succeeded" not in root.call("/v3/kv/txn", create).json
        update = {
            "compare": [{"key": leader, "target": "VALUE", "value": b64("n1")}],
            "success": [{"request_put": {"key": leader, "value": b64("n2")}}],
            "failure": [{"request_txn": {"compare": [], "success": [], "failure": []}}],
        }
        assert root.call("/v3/kv/txn", update).json["succeeded"] is True
        nested = root.call("/v3/kv/txn", update).json["responses"][0]["response_txn"]
        assert nested["succeeded"] is True
    renewed = root.call("/v3/lease/keepalive", json.dumps({"ID": lease})).json
    assert renewed["result"]["TTL"] == "30"
    root.call("/v3/lease/revoke", json.dumps({"ID": lease}))


# --- identity -------------------------------------------------------------------------------------


def test_the_certificate_is_the_identity(
    root: JsonClient, alice: JsonClient, bob: JsonClient
) -> None:
    body = {"key": b64("app/x"), "value": b64("1")}
    assert alice.call("/v3/kv/put", body).status == 200
    for client, key in ((alice, "other"), (bob, "app/x")):
        for path in ("put", "range", "deleterange"):
            answer = client.call(f"/v3/kv/{path}", {"key": b64(key)})
            assert (answer.status, answer.json["message"]) == (
                403,
                "etcdserver: permission denied",
            )
    with bob.stream("/v3/watch", json.dumps({"create_request": {"key": b64("app/x")}})) as watch:
        refused = watch.result()
        assert (refused["canceled"], refused["watch_id"]) == (True, "-1")


@pytest.mark.parametrize("token", ["nonsense", "Bearer nonsense"])
def test_a_watch_with_a_bad_token_is_refused_in_its_stream(root: JsonClient, token: str) -> None:
    body = "".join(json.dumps({"create_request": {"key": b64(k)}}) for k in ("a", "b"))
    with root.stream("/v3/watch", body, Authorization=token) as watch:
        assert watch.status == 200
        for _ in range(2):
            refused = watch.result()
            assert (refused["watch_id"], refused["created"], refused["canceled"]) == (
                "-1", True, True,
            )  # fmt: skip
            assert refused["cancel_reason"] == (
                "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
            )
        assert watch.quiet(0.3)
    other = root.call("/v3/maintenance/snapshot", {}, headers={"Authorization": token})
    assert (other.status, json.loads(other.text)["error"]["code"]) == (401, 16)


@pytest.mark.parametrize("field", ["key", "range_end"])
def test_a_watch_keeps_no_key_that_no_key_can_be(root: JsonClient, field: str) -> None:
    create = {"key": b64("a"), "range_end": b64("b")}
    body = "".join(
        json.dumps({"create_request": create | {field: b64("k" * size)}}) for size in (2049, 2048)
    )
    with root.stream("/v3/watch", body) as watch:
        refused, taken = watch.result(), watch.result()
    assert (refused["watch_id"], refused["created"], refused["canceled"]) == ("-1", True, True)
    assert refused["cancel_reason"] == "key or range_end is longer than 2048 bytes"
    if field == "range_end":
        assert (taken["created"], taken.get("canceled")) == (True, None)


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ({"version": "3.6"}, 0, "3.7"),
        ({"version": "3.6.0"}, 0, "3.7"),
        ({"action": "CANCEL"}, 0, "3.7"),
        ({}, 3, "etcdserver: wrong downgrade target version format"),
        ({"version": "3"}, 3, "etcdserver: wrong downgrade target version format"),
        ({"version": "3.x"}, 3, "etcdserver: wrong downgrade target version format"),
        ({"version": "3.5"}, 3, "etcdserver: invalid downgrade target version"),
        ({"version": "3.7"}, 3, "etcdserver: invalid downgrade target version"),
        ({"action": 99, "version": "3.6"}, 12, "etcdserver: unknown method"),
    ],
)
def test_downgrades_are_judged_and_never_begun(
    root: JsonClient, body: dict[str, Any], code: int, told: str
) -> None:
    answer = root.call("/v3/maintenance/downgrade", body).json
    assert (answer.get("code", 0), answer.get("message") or answer.get("version")) == (code, told)


def test_a_client_api_version_that_is_no_text_is_refused(root: JsonClient) -> None:
    bad = {"Grpc-Metadata-Client-Api-Version": "\xff"}
    answer = root.call("/v3/kv/range", {"key": b64("a")}, headers=bad)
    assert (answer.status, answer.json["code"]) == (400, 3)
    assert answer.json["message"] == "etcdserver: invalid client api version"


def test_tokens(root: JsonClient, bob: JsonClient) -> None:
    login = {"name": "bob", "password": "a long enough one"}
    token = bob.call("/v3/auth/authenticate", login).json["token"]
    for value in (token, f"Bearer {token}"):
        answer = bob.call("/v3/auth/user/get", {"name": "bob"}, headers={"Authorization": value})
        assert answer.status == 200, answer
    for headers in (
        {"Authorization": "nonsense"},
        {"Authorization": "Bearer nonsense"},
        {"Grpc-Metadata-Token": token},
        {"Grpc-Metadata-Authorization": token},
        {"Authorization": token, "Grpc-Metadata-Token": "other"},
    ):
        answer = bob.call("/v3/auth/user/get", {"name": "bob"}, headers=headers)
        assert (answer.status, answer.json["code"]) == (401, 16)
        assert answer.headers["www-authenticate"] == "etcdserver: invalid auth token"
    stolen = root.call("/v3/kv/range", {"key": b64("x")}, headers={"Authorization": token})
    assert stolen.status == 401  # bound to bob's certificate
    wrong = bob.call("/v3/auth/authenticate", login | {"password": "not that one!"})
    assert (wrong.status, wrong.json["code"]) == (400, 3)
    assert "invalid user ID or password" in wrong.json["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Grpc-Metadata-X-Forwarded-User": "root"}, 403),
        ({"Grpcgateway-Accept": "*/*"}, 400),
        ({"X-Forwarded-Client-Cert": "URI=spiffe://dev.configsvc.local/user/root"}, 403),
    ],
)  # fmt: skip
def test_no_header_raises_privilege(bob: JsonClient, headers: dict[str, str], status: int) -> None:
    assert bob.call("/v3/kv/range", {"key": b64("x")}, headers=headers).status == status


@pytest.mark.parametrize("path", ["/health", "/v3/kv/range", "/metrics"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "rebound.example:2379"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_browser_cannot_be_used(
    root: JsonClient, path: str, headers: dict[str, str], status: int
) -> None:
    answer = root.call(path, '{"key":"Zg=="}', headers=headers)
    assert answer.status == status
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert "set-cookie" not in answer.headers


# --- probes ---------------------------------------------------------------------------------------


def test_probes_need_no_rights(bob: JsonClient) -> None:
    assert bob.get("/health").text == '{"health":"true","reason":""}'
    assert bob.get("/livez").text == "ok\n"
    assert bob.get("/readyz/linearizable_read").text == "ok\n"
    assert bob.get("/readyz/nonsense").status == 404
    assert bob.get("/readyz?verbose").text.count("[+]") >= 4
    assert isinstance(bob.get("/debug/vars").json, dict)
    wrong = bob.call("/health", "")
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")


def test_metrics_have_etcds_names_and_no_values(root: JsonClient, bob: JsonClient) -> None:
    root.call("/v3/kv/put", {"key": b64("metrics-secret"), "value": b64("metrics-value")})
    bob.get("/readyz")
    answer = bob.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    names = {line.split("{")[0].split()[0] for line in answer.text.splitlines() if line[0] != "#"}
    assert {
        "etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_id", "etcd_server_version",
        "etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total",
        "etcd_server_proposals_failed_total", "etcd_server_proposals_pending",
        "etcd_server_quota_backend_bytes", "etcd_server_health_success",
        "configsvc_peers_refused_total", "configsvc_loop_silent_total",
        "configsvc_loop_stalled_total", "configsvc_scrub_passes_total",
        "configsvc_scrub_damaged_total",
        "etcd_server_health_failures", "etcd_server_healthcheck", "etcd_server_healthchecks_total",
        "etcd_server_slow_read_indexes_total", "etcd_server_read_indexes_failed_total",
        "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision",
        "etcd_debugging_mvcc_compact_revision", "etcd_debugging_mvcc_watcher_total",
        "etcd_debugging_mvcc_slow_watcher_total", "etcd_debugging_mvcc_watch_stream_total",
        "etcd_debugging_mvcc_events_total", "etcd_debugging_lease_renewed_total",
        "etcd_debugging_server_lease_expired_total", "etcd_debugging_auth_revision",
        "etcd_disk_wal_fsync_duration_seconds_count", "grpc_server_started_total",
        "etcd_server_client_requests_total", "process_resident_memory_bytes", "process_open_fds",
        "process_cpu_seconds_total", "process_start_time_seconds", "process_max_fds",
    } <= names  # fmt: skip
    types = re.findall("^# TYPE ([a-z_]+) ", answer.text, re.MULTILINE)  # of all, sampled or not
    foreign = {name for name in types if name.startswith(("etcd_", "grpc_"))}
    text = Path(__file__).parents[3].joinpath("docs/etcd-users.md").read_text()
    table = text.partition("## Metrics\n")[2].partition("\nBesides")[0]
    assert set(re.findall("`((?:etcd|grpc)_[a-z_]+)`", table)) == foreign
    assert "metrics-secret" not in answer.text
    assert b64("metrics-secret") not in answer.text
    refused = bob.call("/v3/kv/range", {"key": b64("x")})
    assert refused.status == 403
    labels = '{{{}grpc_method="{}",grpc_service="etcdserverpb.KV",grpc_type="unary"}}'
    lines = dict(line.rsplit(" ", 1) for line in bob.get("/metrics").text.splitlines())
    for name, code, method in (
        ("started", "", "Put"), ("msg_received", "", "Put"), ("msg_sent", "", "Put"),
        ("handled", 'grpc_code="OK",', "Put"),
        ("handled", 'grpc_code="PermissionDenied",', "Range"),
    ):  # fmt: skip
        assert float(lines[f"grpc_server_{name}_total" + labels.format(code, method)]) >= 1
    refused_puts = labels.format('grpc_code="DataLoss",', "Put")
    assert "grpc_server_handled_total" + refused_puts not in lines


def test_operations_are_counted_where_they_run(root: JsonClient) -> None:
    """As etcd counts: each operation of a transaction, and transactions of several."""
    names = ("put", "delete", "range", "txn")

    def counted() -> tuple[int, ...]:
        text = root.get("/metrics").text
        found = {name: re.search(f"^etcd_mvcc_{name}_total (.*)$", text, re.M) for name in names}
        return tuple(int(float(found[name][1])) for name in names)  # type: ignore[index]

    before = counted()
    put = {"key": b64("counted"), "value": b64("1")}
    root.call("/v3/kv/put", put)
    root.call("/v3/kv/range", {"key": b64("counted")})
    operations = [{"request_put": put}, {"request_range": {"key": b64("counted")}}]
    root.call("/v3/kv/txn", {"success": operations})
    root.call("/v3/kv/deleterange", {"key": b64("counted")})
    assert tuple(a - b for a, b in zip(counted(), before, strict=True)) == (2, 1, 2, 1)
