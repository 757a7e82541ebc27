"""Users, roles, tokens and rights: the steps that run over plaintext and over mutual TLS."""

from __future__ import annotations

from itertools import product
from typing import Any

from tests.support.etcd_cases import Step, call, note, watch

BAD_RANGE = "a permission on an empty range is refused, as newer servers do (A10)"
ROOT_SHOWN = "role root shows what it may, as newer servers do (A2)"
ALARM_GET = "a user may list alarms, as on newer servers; nobody may not"
NEEDS_READ = "asking for a lease's keys needs READ on them (CVE-2026-33413)"
NEEDS_WRITE = "revoking needs WRITE on every attached key (CVE-2026-33413)"
NEEDS_USER = "open to anyone on 3.4; a user is needed now (CVE-2026-33413)"
NEEDS_ADMIN = "open to anyone on 3.4; role root is needed now (CVE-2026-33413)"
SAME_TEXT = "a user without password is refused as a wrong password is (N25)"


def setup() -> list[Step]:
    """Auth is off: everything about users and roles, errors included."""
    return [
        call("Auth.Authenticate", "off", name="root", password="root"),
        call("Auth.AuthEnable", "no root"),
        call("Auth.AuthDisable", "off"),
        call("Auth.UserList", "none"),
        call("Auth.RoleList", "none"),
        call("Auth.UserAdd", name="", password="x"),
        call("Auth.UserAdd", name="root", password="root"),
        call("Auth.UserAdd", "again", name="root", password="root"),
        call("Auth.AuthEnable", "root without role"),
        call("Auth.UserAdd", "empty password", name="empty", password=""),
        call("Auth.UserAdd", name="none", options={"no_password": True}),
        call("Auth.UserAdd", name="Ünï Cödé/1", password="x"),
        call("Auth.UserAdd", name="u", password="u"),
        call("Auth.UserAdd", "own hash", name="w", password="w", hashedPassword="eA=="),
        call("Auth.UserGet", name="u"),
        call("Auth.UserGet", name="nobody"),
        call("Auth.UserGet", "empty", name=""),
        call("Auth.UserDelete", name="nobody"),
        call("Auth.UserDelete", name="Ünï Cödé/1"),
        call("Auth.UserChangePassword", name="nobody", password="x"),
        call("Auth.UserChangePassword", name="u", password="u"),
        call("Auth.RoleAdd", name=""),
        call("Auth.RoleAdd", name="r"),
        call("Auth.RoleAdd", "again", name="r"),
        call("Auth.RoleAdd", name="wr"),
        call("Auth.RoleGet", role="r"),
        call("Auth.RoleGet", role="nothing"),
        call("Auth.RoleGet", "root undefined", role="root"),
        call("Auth.RoleGet", "empty", role=""),
        call("Auth.RoleDelete", role="nothing"),
        *permissions(),
        call("Auth.UserGrantRole", user="nobody", role="r"),
        call("Auth.UserGrantRole", user="u", role="nothing"),
        call("Auth.UserGrantRole", user="u", role="r"),
        call("Auth.UserGrantRole", "again", user="u", role="r"),
        call("Auth.UserGrantRole", user="w", role="wr"),
        call("Auth.UserGrantRole", "undefined root", user="root", role="root"),
        call("Auth.UserGet", "with role", name="u"),
        call("Auth.UserRevokeRole", name="nobody", role="r"),
        call("Auth.UserRevokeRole", name="u", role="nothing"),
        call("Auth.UserRevokeRole", name="none", role="r"),
        call("Auth.UserList", "sorted"),
        call("Auth.RoleList", "sorted"),
    ]


def grant(role: str, kind: int, key: bytes, end: bytes = b"", **more: Any) -> Step:
    fields = {"permType": kind, "key": key, "range_end": end}
    return call("Auth.RoleGrantPermission", f"{role},{kind},{key!r},{end!r}", name=role,
                perm=fields, **more)  # fmt: skip


def permissions() -> list[Step]:
    """None without a permission in it: 3.4.23 panics, ours answers ``permission not given``."""
    return [
        grant("nothing", 2, b"a"),
        grant("r", 0, b"ro"),
        grant("r", 1, b"wo"),
        grant("r", 2, b"b", b"d"),
        grant("r", 2, b"d", b"f"),
        grant("r", 0, b"b", b"d"),
        grant("r", 2, b"b", b"d"),
        grant("r", 2, b"open", b"\0"),
        grant("wr", 1, b"b", b"f"),
        call("Auth.RoleAdd", name="odd"),
        grant("odd", 2, b"z", b"a", differs=BAD_RANGE),
        grant("odd", 2, b"z", b"z", differs=BAD_RANGE),
        grant("odd", 2, b"", differs=BAD_RANGE),
        call("Auth.RoleDelete", role="odd"),
        call("Auth.RoleGet", "sorted", role="r"),
        call("Auth.RoleRevokePermission", role="nothing", key=b"a"),
        call("Auth.RoleRevokePermission", role="r", key=b"b"),
        call("Auth.RoleRevokePermission", role="r", key=b"b", range_end=b"c"),
        call("Auth.RoleRevokePermission", role="r", key=b"open", range_end=b"\0"),
        grant("r", 2, b"open", b"\0"),
        call("Auth.RoleGet", "after revoke", role="r"),
    ]  # fmt: skip


def enable() -> list[Step]:
    tokens: list[Step] = []
    for user in ("root", "u", "w", "empty"):
        password = "" if user == "empty" else user
        tokens += [call("Auth.Authenticate", user, name=user, password=password),
                   note(user, "token")]  # fmt: skip
    return [
        call("KV.Put", "before", key=b"b", value=b"1"),
        call("KV.Put", "before", key=b"x", value=b"1"),
        call("Lease.LeaseGrant", "before", ID=50, TTL=900),
        call("KV.Put", "before, with lease", key=b"x", value=b"1", lease=50),
        call("Auth.AuthEnable"),
        *tokens,
        call("Auth.AuthEnable", "again", who="root"),
        call("Auth.Authenticate", "wrong", name="u", password="w"),
        call("Auth.Authenticate", "unknown", name="nobody", password="w"),
        call("Auth.Authenticate", "empty name", name="", password=""),
        call("Auth.Authenticate", "no password user", name="none", password="", differs=SAME_TEXT),
    ]


RIGHTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("KV.Range", "b", {"key": b"b"}),
    ("KV.Range", "read only", {"key": b"ro"}),
    ("KV.Range", "write only", {"key": b"wo"}),
    ("KV.Range", "[b, f) out of two", {"key": b"b", "range_end": b"f"}),
    ("KV.Range", "[b, g)", {"key": b"b", "range_end": b"g"}),
    ("KV.Range", "[a, c)", {"key": b"a", "range_end": b"c"}),
    ("KV.Range", "open-ended", {"key": b"open", "range_end": b"\0"}),
    ("KV.Range", "open-ended, later", {"key": b"p", "range_end": b"\0"}),
    ("KV.Range", "open-ended, outside", {"key": b"b", "range_end": b"\0"}),
    ("KV.Range", "everything", {"key": b"\0", "range_end": b"\0"}),
    ("KV.Range", "serializable", {"key": b"b", "serializable": True}),
    ("KV.Range", "empty key", {"key": b""}),
    ("KV.Range", "future", {"key": b"b", "revision": 10**9}),
    ("KV.Put", "b", {"key": b"b", "value": b"2"}),
    ("KV.Put", "write only", {"key": b"wo", "value": b"2"}),
    ("KV.Put", "write only, prev", {"key": b"wo", "value": b"2", "prev_kv": True}),
    ("KV.Put", "read only", {"key": b"ro", "value": b"2"}),
    ("KV.Put", "a", {"key": b"a", "value": b"2"}),
    ("KV.Put", "lease that holds another's key", {"key": b"b", "lease": 50}),
    ("KV.Put", "unknown lease", {"key": b"b", "lease": 404}),
    ("KV.Put", "ignore_value", {"key": b"b", "ignore_value": True}),
    ("KV.DeleteRange", "c", {"key": b"c"}),
    ("KV.DeleteRange", "[b, f)", {"key": b"b", "range_end": b"f"}),
    ("KV.DeleteRange", "[b, f) prev", {"key": b"b", "range_end": b"f", "prev_kv": True}),
    ("KV.DeleteRange", "[b, z)", {"key": b"b", "range_end": b"z"}),
    ("KV.DeleteRange", "read only", {"key": b"ro"}),
    ("KV.Txn", "empty", {}),
    ("KV.Txn", "compare b", {"compare": [{"key": b"b", "target": 0}]}),
    ("KV.Txn", "compare a", {"compare": [{"key": b"a", "target": 0}]}),
    ("KV.Txn", "get", {"success": [{"request_range": {"key": b"b"}}]}),
    ("KV.Txn", "get a", {"success": [{"request_range": {"key": b"a"}}]}),
    ("KV.Txn", "put", {"success": [{"request_put": {"key": b"b"}}]}),
    ("KV.Txn", "put, other branch", {"success": [{"request_put": {"key": b"b"}}],
                                     "failure": [{"request_put": {"key": b"a"}}]}),
    ("KV.Txn", "delete", {"failure": [{"request_delete_range": {"key": b"ro"}}]}),
    ("Lease.LeaseTimeToLive", "with keys", {"ID": 50, "keys": True}),
    ("Lease.LeaseRevoke", "another's key", {"ID": 50}),
    ("Lease.LeaseRevoke", "unknown", {"ID": 404}),
    ("Auth.UserGet", "u", {"name": "u"}),
    ("Auth.UserGet", "root", {"name": "root"}),
    ("Auth.UserList", "", {}),
    ("Auth.UserAdd", "x", {"name": "x", "password": "x"}),
    ("Auth.UserDelete", "x", {"name": "x"}),
    ("Auth.UserGrantRole", "root to u", {"user": "u", "role": "nothing"}),
    ("Auth.UserRevokeRole", "", {"name": "none", "role": "r"}),
    ("Auth.RoleGet", "r", {"role": "r"}),
    ("Auth.RoleGet", "wr", {"role": "wr"}),
    ("Auth.RoleList", "", {}),
    ("Auth.RoleAdd", "y", {"name": "y"}),
    ("Auth.RoleGrantPermission", "", {"name": "r", "perm": {"permType": 2, "key": b"b1"}}),
    ("Auth.RoleRevokePermission", "", {"role": "r", "key": b"b1"}),
    ("Auth.RoleDelete", "y", {"role": "y"}),
    ("Maintenance.Defragment", "", {}),
    ("Maintenance.MoveLeader", "", {"targetID": 5}),
    ("Auth.UserChangePassword", "own", {"name": "u", "password": "u"}),  # ends u's token
)  # fmt: skip
DRAWN = {
    "Lease.LeaseGrant": "each server draws its own id",
    "Cluster.MemberList": "own ids and ports; and peer URLs are told to administrators only",
}
# What 3.4 leaves open to whoever comes, and what it takes now.
OPEN_ON_34: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Cluster.MemberList", {}),
    ("Maintenance.Status", {}),
    ("Maintenance.Alarm", {}),
    ("Lease.LeaseGrant", {"TTL": 100}),
    ("Lease.LeaseTimeToLive", {"ID": 404}),
)


WHO = ("", "bad.1", "empty", "w", "u", "root")
OTHERS = WHO[:-1]  # all but the administrator
# Requests of RIGHTS that are meant to end otherwise, for whom, and why.
INTENDED: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("KV.Range", "empty key"): (("bad.1",), "a bad token is refused before anything else"),
    ("KV.Txn", "empty"): (("",), "a user is needed, whatever the transaction holds"),
    ("Lease.LeaseTimeToLive", "with keys"): (OTHERS, NEEDS_READ),
    ("Lease.LeaseRevoke", "another's key"): (("", "empty", "w", "u"), NEEDS_WRITE),
    ("Lease.LeaseRevoke", "unknown"): (("",), NEEDS_USER),
    ("Maintenance.Defragment", ""): (OTHERS, "3.4 sends its internal text with code Unknown"),
    ("Maintenance.MoveLeader", ""): (OTHERS, NEEDS_ADMIN),
}


def rights(callers: tuple[str, ...]) -> list[Step]:
    """Each request as administrator, as one with rights, a writer, a stranger and nobody."""
    steps = []
    for (method, label, fields), who in product(RIGHTS, callers):
        if method == "Lease.LeaseRevoke" and label == "another's key" and who == "root":
            continue
        whom, why = INTENDED.get((method, label), ((), ""))
        steps.append(
            call(method, label or "bare", who=who, differs=why if who in whom else "", **fields)
        )
    steps += [call("Auth.Authenticate", "u again", name="u", password="u"), note("u", "token")]
    for (method, fields), who in product(OPEN_ON_34, sorted({"", "u"} & set(callers))):
        differs = "" if who else NEEDS_USER
        if method == "Maintenance.Alarm":
            differs = ALARM_GET
        if who and method in DRAWN:
            differs = DRAWN[method]
        steps.append(call(method, "open on 3.4", who=who, differs=differs, **fields))
    steps.append(call("KV.Compact", "admin only", who="u", revision=2, differs=NEEDS_ADMIN))
    return steps


def watches(callers: tuple[str, ...]) -> list[Step]:
    def create(key: bytes, end: bytes = b"") -> tuple[str, dict[str, Any]]:
        return "send", {"create_request": {"key": key, "range_end": end}}

    steps = [
        watch("allowed", create(b"b", b"f"), ("recv", 1), who="u"),
        watch("everything as root", create(b"\0", b"\0"), ("recv", 1), who="root"),
        watch("write only", create(b"wo"), ("recv", 1), ("quiet",), who="u"),
        watch("bad token", create(b"b"), ("recv", 1), ("quiet",), who="bad.1"),
        watch(
            "bad token, twice", create(b"b"), ("recv", 1), create(b"b"), ("recv", 1), who="bad.1"
        ),
        watch("bad token, no range", create(b"b", b"a"), ("recv", 1), ("quiet",), who="bad.1"),
        watch("write only, no range", create(b"wo", b"wa"), ("recv", 1), ("quiet",), who="u"),
        watch("no range as root", create(b"b", b"a"), ("recv", 1), ("quiet",), who="root"),
    ]
    if "" in callers:
        steps.append(watch("nobody", create(b"b"), ("recv", 1), ("quiet",)))
    return steps


def lifecycle() -> list[Step]:
    """What changes of users and roles do to tokens that are out already."""
    return [
        call("Auth.UserDelete", "root", who="root", name="root"),
        call("Auth.UserRevokeRole", "root of root", who="root", name="root", role="root"),
        call("Auth.RoleAdd", "root", who="root", name="root"),
        call("Auth.RoleGet", "root", who="root", role="root", differs=ROOT_SHOWN),
        call("Auth.RoleDelete", "root", who="root", role="root"),
        call("Auth.UserGrantRole", "more", who="root", user="w", role="r"),
        call("KV.Range", "with a role given later", who="w", key=b"ro"),
        call("Auth.UserRevokeRole", "less", who="root", name="w", role="r"),
        call("KV.Range", "with the role gone", who="w", key=b"ro"),
        call("Auth.UserChangePassword", "w", who="root", name="w", password="new"),
        call("KV.Put", "token of an old password", who="w", key=b"b"),
        call("Auth.Authenticate", "old password", name="w", password="w"),
        call("Auth.Authenticate", "new password", name="w", password="new"),
        note("w", "token"),
        call("KV.Put", "token of the new password", who="w", key=b"b"),
        call("Auth.RoleDelete", "in use", who="root", role="wr"),
        call("Auth.UserGet", "role gone", who="root", name="w"),
        call("KV.Put", "role gone", who="w", key=b"b"),
        call("Auth.UserDelete", "w", who="root", name="w"),
        call("KV.Put", "user gone", who="w", key=b"b"),
        call("Auth.UserList", "at the end", who="root"),
        call("Auth.RoleList", "at the end", who="root"),
        call("Auth.AuthDisable", "as u", who="u"),
        call("Auth.AuthDisable", "as root", who="root"),
        call("Auth.AuthDisable", "again"),
        call("KV.Range", "a dead token, while off", who="root", key=b"b"),
        call("KV.Range", "a bad token, while off", who="bad.1", key=b"b"),
        call("Auth.AuthEnable", "again"),
        call("KV.Range", "a token of before", who="root", key=b"b"),
        call("Auth.Authenticate", "root again", name="root", password="root"),
        note("root", "token"),
        call("KV.Range", "a new token", who="root", key=b"b"),
        call("Auth.AuthDisable", "once more", who="root"),
        call("KV.Range", "after disable", key=b"\0", range_end=b"\0"),
        call("Auth.Authenticate", "after disable", name="root", password="root"),
        call("Auth.UserDelete", "root, off", name="root"),
        call("Auth.RoleDelete", "root, off", role="root"),
    ]


def script(callers: tuple[str, ...] = WHO) -> list[Step]:
    """All of it; ``callers``: who tries every request, "" for one without a token."""
    return [*setup(), *enable(), *rights(callers), *watches(callers), *lifecycle()]
