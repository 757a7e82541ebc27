"""Leases, locks and elections against etcd."""

from __future__ import annotations

import pytest

from tests.support.etcd_cases import Note, Step, call, compare, note, stream

HUGE = 2**63 - 1
TTLS = (-HUGE, -1, 0, 1, 2, 3, 60, 9_000_000_000, 9_000_000_001, HUGE)
WHOLE = {"key": b"\0", "range_end": b"\0"}


def grants() -> list[Step]:
    steps = []
    for number, ttl in enumerate(TTLS):
        steps.append(call("Lease.LeaseGrant", ID=100 + number, TTL=ttl))
        steps.append(call("Lease.LeaseRevoke", f"granted with {ttl}", ID=100 + number))
    for number in (1, -5, 2**62, HUGE, -HUGE - 1):
        steps.append(call("Lease.LeaseGrant", ID=number, TTL=600))
        steps.append(call("Lease.LeaseGrant", "again", ID=number, TTL=600))
        steps.append(call("Lease.LeaseTimeToLive", "by keys", ID=number, keys=True))
        steps.append(call("Lease.LeaseRevoke", ID=number))
        steps.append(call("Lease.LeaseRevoke", "again", ID=number))
        steps.append(call("Lease.LeaseTimeToLive", "gone", ID=number))
        steps.append(stream("Lease.LeaseKeepAlive", [{"ID": number}], f"gone {number}"))
    return [*steps, call("Lease.LeaseRevoke", "zero", ID=0),
            call("Lease.LeaseTimeToLive", "zero", ID=0)]  # fmt: skip


def attached() -> list[Step]:
    return [
        call("Lease.LeaseGrant", ID=9, TTL=500),
        call("Lease.LeaseGrant", ID=10, TTL=700),
        call("KV.Put", key=b"l1", lease=9),
        call("KV.Put", key=b"l2", lease=9),
        call("Lease.LeaseLeases"),
        stream("Lease.LeaseKeepAlive", [{"ID": 9}, {"ID": 10}, {"ID": 404}, {"ID": 9}], "four"),
        call("KV.Put", "moved", key=b"l1", lease=10),
        call("KV.Put", "detached", key=b"l3", lease=9),
        call("KV.Put", "detached", key=b"l3"),
        call("KV.DeleteRange", "gone with its lease", key=b"l2"),
        call("Lease.LeaseRevoke", "none attached", ID=9),
        call("KV.Range", "after revoke", **WHOLE),
        call("KV.Put", key=b"l0", lease=10),
        call("KV.Put", key=b"l9", lease=10),
        call("Lease.LeaseRevoke", "two attached", ID=10),
        call("KV.Range", "after revoke of two", **WHOLE),
        call("Lease.LeaseLeases", "none"),
        call("Lease.LeaseGrant", "own id", TTL=600, differs="each server draws its own id"),
        note("drawn", "ID"),
        call("Lease.LeaseTimeToLive", "own id", ID=Note("drawn"), differs="carries the drawn id"),
        call("Lease.LeaseRevoke", "own id", ID=Note("drawn")),
    ]


def locks() -> list[Step]:
    return [
        call("Lease.LeaseGrant", "lock", ID=0xABC, TTL=600),
        call("Lock.Lock", "empty name", name=b"", lease=0xABC),
        call("Lock.Unlock", "empty name", key=b"/abc"),
        call("Lock.Lock", name=b"m", lease=0xABC),
        call("Lock.Lock", "again", name=b"m", lease=0xABC),
        call("KV.Range", "lock key", key=b"m/", range_end=b"m0"),
        call("Lock.Lock", "unknown lease", name=b"m", lease=404),
        call("Lock.Unlock", key=b"m/abc"),
        call("Lock.Unlock", "missing", key=b"m/abc"),
        call("Lock.Unlock", "empty", key=b""),
        call("Lock.Lock", "after unlock", name=b"m", lease=0xABC),
        call("Lease.LeaseRevoke", "lock", ID=0xABC),
        call("KV.Range", "lock key gone", **WHOLE),
    ]


def elections() -> list[Step]:
    def leader(rev: int, key: bytes = b"e/abd", name: bytes = b"e") -> dict[str, object]:
        return {"name": name, "key": key, "rev": rev, "lease": 0xABD}

    return [
        call("Election.Leader", "nobody", name=b"e"),
        call("Lease.LeaseGrant", "election", ID=0xABD, TTL=600),
        call("Election.Campaign", name=b"e", lease=0xABD, value=b"one"),
        note("leader", "leader"),
        call("Election.Campaign", "same value", name=b"e", lease=0xABD, value=b"one"),
        call("Election.Campaign", "other value", name=b"e", lease=0xABD, value=b"two"),
        call("Election.Campaign", "unknown lease", name=b"e", lease=404, value=b"x"),
        call("Election.Leader", name=b"e"),
        call("Election.Leader", "of a prefix of the name", name=b""),
        call("Election.Proclaim", "no leader", value=b"x"),
        call("Election.Proclaim", leader=Note("leader"), value=b"three"),
        call("Election.Proclaim", "wrong revision", leader=leader(1), value=b"x"),
        call("Election.Proclaim", "wrong key", leader=leader(1, b"e/zzz"), value=b"x"),
        call("Election.Leader", "proclaimed", name=b"e"),
        call("Election.Resign", "no leader"),
        call("Election.Resign", "wrong revision", leader=leader(1)),
        call("Election.Leader", "still there", name=b"e"),
        call("Election.Resign", leader=Note("leader")),
        call("Election.Resign", "again", leader=Note("leader")),
        call("Election.Proclaim", "resigned", leader=Note("leader"), value=b"x"),
        call("Election.Leader", "resigned", name=b"e"),
    ]


SCRIPT = [*grants(), *attached(), *locks(), *elections()]


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_leases_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
