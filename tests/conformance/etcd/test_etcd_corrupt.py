"""Everything that can be asked while a member is known to be corrupt, against etcd (N4)."""

from __future__ import annotations

import time

import pytest
from test_etcd_json import REASON, ask

from tests.support.etcd_cases import Client, Note, Outcome, Step, call, compare, note, stream, watch

KEY, VALUE = "YQ==", "Mg=="
SOON = 2  # seconds, the shortest lease
OVER = "a lease whose time is over has 0 seconds left, and on 3.4 ever fewer than that"


def _wait(seconds: float) -> Step:
    def run(_: Client) -> Outcome:
        time.sleep(seconds)
        return None

    return Step(f"wait {seconds} s", run)


def _alarm(action: int) -> Step:
    fields = {"action": action, "memberID": 5, "alarm": 2}

    def run(client: Client) -> Outcome:
        found = client.unary("Maintenance.Alarm", fields)
        if isinstance(found, dict):
            found.pop("header", None)  # 3.4 sends none
        return found

    return Step(f"Maintenance.Alarm(action {action})", run)


def before() -> list[Step]:
    return [
        call("Lease.LeaseGrant", ID=11, TTL=SOON),
        call("KV.Put", "of a short lease", key=b"short", value=b"1", lease=11),
        call("Lease.LeaseGrant", ID=12, TTL=600),
        call("KV.Put", "of a long lease", key=b"long", value=b"1", lease=12),
        call("KV.Put", key=b"a", value=b"1"),
        call("Lock.Lock", name=b"held", lease=12),
        note("lock", "key"),
        call("Auth.RoleAdd", name="present"),
    ]


def writes() -> list[Step]:
    put = {"request_put": {"key": b"a", "value": b"2"}}
    get = {"request_range": {"key": b"a"}}
    delete = {"request_delete_range": {"key": b"a"}}
    below = {"request_txn": {"success": [put]}}
    return [
        call("KV.Put", "refused", key=b"a", value=b"2"),
        call("KV.Put", "with a lease", key=b"a", lease=12),
        call("KV.Put", "of an unknown lease", key=b"a", lease=404),
        call("KV.Put", "without a key"),
        call("KV.DeleteRange", "refused", key=b"a"),
        call("KV.DeleteRange", "of nothing", key=b"nothing"),
        call("KV.Txn", "put", success=[put]),
        call("KV.Txn", "put on the other branch", success=[get], failure=[put]),
        call("KV.Txn", "delete", success=[delete]),
        call("KV.Txn", "put below", success=[below]),
        call("KV.Compact", "refused", revision=2),
        call("KV.Compact", "of the future", revision=10**6),
        call("Lease.LeaseGrant", "refused", ID=13, TTL=60),
        call("Lease.LeaseGrant", "in use", ID=12, TTL=60),
        call("Lease.LeaseRevoke", "refused", ID=12),
        call("Lease.LeaseRevoke", "unknown", ID=404),
        call("Lock.Lock", "refused", name=b"free", lease=12),
        call("Lock.Unlock", "refused", key=Note("lock")),
        call("Election.Campaign", "refused", name=b"e", lease=12, value=b"me"),
        ask("/v3/kv/put", {"key": KEY, "value": VALUE}),
        ask("/v3/kv/deleterange", {"key": KEY}),
        ask("/v3/kv/compaction", {"revision": "2"}),
        ask("/v3/lease/grant", {"ID": "14", "TTL": "60"}),
        ask("/v3/lease/revoke", {"ID": "12"}),
    ]


def reads() -> list[Step]:
    get = {"request_range": {"key": b"a"}}
    return [
        call("KV.Range", "works", key=b"a"),
        call("KV.Range", "serializable", key=b"a", serializable=True),
        call("KV.Range", "of before", key=b"a", revision=2),
        call("KV.Txn", "reads only", success=[get], failure=[get]),
        call("Lease.LeaseTimeToLive", "long", ID=12),
        call("Lease.LeaseLeases", "works"),
        stream("Lease.LeaseKeepAlive", [{"ID": 12}, {"ID": 404}], "works"),
        call("Maintenance.HashKV", "works", revision=0),
        watch("of before", ("send", {"create_request": {"key": b"a", "start_revision": 1}}),
              ("recv", 2)),
        ask("/v3/kv/range", {"key": KEY}),
        ask("/v3/lease/timetolive", {"ID": "12"}),
        ask("/health", "", REASON, "GET"),
    ]  # fmt: skip


def administration() -> list[Step]:
    """Users, roles and members can be put in order under the alarm."""
    return [
        call("Auth.RoleAdd", "works", name="new"),
        call("Auth.RoleGet", role="new"),
        call("Auth.RoleGrantPermission", name="new", perm={"key": b"a", "permType": 2}),
        call("Auth.RoleDelete", "works", role="present"),
        call("Auth.UserAdd", "works", name="ada", password="x"),
        call("Auth.UserGrantRole", user="ada", role="new"),
        call("Auth.UserChangePassword", name="ada", password="y"),
        call("Auth.UserDelete", name="ada"),
        call("Auth.UserList"),
        call("Maintenance.Defragment"),
    ]


def expiry() -> list[Step]:
    """A lease whose time is over stays, with its key, until the alarm is disarmed."""
    return [
        _wait(SOON + 3),
        call("KV.Range", "the short lease's key is still there", key=b"short"),
        call("Lease.LeaseTimeToLive", "short, over", ID=11, differs=OVER),
        call("Lease.LeaseLeases", "both"),
        _alarm(2),
        _wait(6),
        call("KV.Range", "the short lease's key is gone", key=b"short"),
        call("Lease.LeaseTimeToLive", "short, gone", ID=11),
        call("KV.Put", "works again", key=b"a", value=b"3"),
        call("Lease.LeaseRevoke", "works again", ID=12),
        call("KV.Range", "all", key=b"\0", range_end=b"\0"),
        call("KV.Compact", "works again", revision=3),
    ]


SCRIPT = [*before(), _alarm(1), *writes(), *reads(), *administration(), *expiry()]


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_under_corrupt_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
