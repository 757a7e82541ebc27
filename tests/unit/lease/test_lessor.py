"""Leases: wire/behaviour.md section 9; reliability.md X2, X3; security.md LIM-14."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.errors import (
    InvariantViolationError,
    LeaseExistError,
    LeaseNotFoundError,
    LeaseTTLTooLargeError,
    RequestTooManyRequestsError,
)
from configsvc.lease.lessor import Lessor, Renewal
from configsvc.lease.messages import creator_of
from configsvc.limits import LEASE_TTL_MAX_S
from configsvc.types import SYSTEM_PRINCIPAL

S = 1_000_000_000


def leader(*leases: tuple[int, int], now: int = 0, extend: int = 0) -> Lessor:
    """A leading lessor with leases (id, ttl)."""
    lessor = Lessor(2)
    for lease_id, ttl in leases:
        lessor.grant(lease_id, ttl, "")
    lessor.promote(now, extend)
    return lessor


@pytest.mark.parametrize(
    ("asked", "given_ttl"), [(10, 10), (2, 2), (1, 2), (0, 2), (-5, 2), (LEASE_TTL_MAX_S,) * 2]
)
def test_L2_short_ttls_are_raised(asked: int, given_ttl: int) -> None:
    assert Lessor(2).grant(1, asked, "").ttl_s == given_ttl


def test_L1_L2_refused_grants_leave_nothing() -> None:
    lessor = Lessor(2)
    lessor.grant(-7, 10, "")
    with pytest.raises(LeaseExistError):
        lessor.grant(-7, 10, "")
    with pytest.raises(LeaseTTLTooLargeError):
        lessor.grant(1, LEASE_TTL_MAX_S + 1, "")
    with pytest.raises(InvariantViolationError):
        lessor.grant(0, 10, "")
    assert lessor.rows() == [(-7, 10, "", 0)]


def test_LIM14_leases_per_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.lease.lessor.LEASES_PER_IDENTITY_MAX", 2)
    lessor = Lessor(2)
    lessor.grant(1, 10, "ada")
    lessor.grant(2, 10, "ada")
    with pytest.raises(RequestTooManyRequestsError):
        lessor.grant(3, 10, "ada")
    lessor.grant(3, 10, "bob")
    lessor.revoke(1)
    lessor.grant(4, 10, "ada")
    free = Lessor(2, limited=False)
    for lease_id in range(1, 9):
        free.grant(lease_id, 10, "ada")


def test_L4_revoke_of_an_unknown_lease() -> None:
    with pytest.raises(LeaseNotFoundError):
        Lessor(2).revoke(1)


def test_L12_a_key_hangs_on_one_lease() -> None:
    lessor = leader((1, 10), (2, 10))
    lessor.move(b"k", 0, 1)
    lessor.move(b"j", 0, 1)
    lessor.move(b"k", 1, 2)
    assert (lessor.get(1).sorted_keys(), lessor.get(2).sorted_keys()) == ([b"j"], [b"k"])
    lessor.move(b"k", 2, 0)
    lessor.move(b"j", 9, 0)  # its lease went in the same entry
    assert lessor.get(2).sorted_keys() == []


def test_attached_keys_lie_in_order_of_attachment() -> None:
    lease = leader((1, 10)).get(1)
    lessor = Lessor(2)
    lease = lessor.grant(1, 10, "")
    for key, before, after in ((b"a", 0, 1), (b"b", 0, 1), (b"a", 1, 0), (b"a", 0, 1)):
        lessor.move(key, before, after)
    assert list(lease.keys.items()) == [(b"b", 2), (b"a", 3)]
    assert lease.epoch == 3


def test_expiry_on_the_leaders_clock() -> None:
    lessor = leader((1, 10), (2, 5), (3, 5), now=100 * S)
    assert lessor.next_due_ns() == 105 * S
    assert lessor.expired(105 * S - 1, 10) == []
    assert lessor.expired(105 * S, 1) == [2]
    assert lessor.expired(105 * S, 10) == [3]
    assert lessor.expired(105 * S, 10) == []  # named again later, if still there
    lessor.revoke(2)
    assert lessor.expired(106 * S, 10) == [3]
    assert lessor.expired(110 * S, 10) == [3, 1]


def test_L5_L11_renewal() -> None:
    lessor = leader((1, 10), now=0)
    assert lessor.renew(9, 0) == Renewal(0, False)
    assert lessor.renew(1, 10 * S - 1) == Renewal(10, False)
    assert lessor.expired(20 * S - 2, 10) == []
    assert lessor.renew(1, 20 * S) == Renewal(0, False)
    assert lessor.expired(20 * S, 10) == [1]
    assert lessor.renew(1, 20 * S) == Renewal(0, False)


def test_L7_L8_time_left() -> None:
    lessor = leader((1, 10), (2, 5), (3, 30))
    assert lessor.remaining_s(1, S // 2) == 9
    assert lessor.remaining_s(1, 10 * S - 1) == 0
    assert lessor.remaining_s(1, 10 * S) == -1
    assert lessor.remaining_s(9, 0) == -1
    assert lessor.by_time_left() == [2, 1, 3]
    lessor.demote()
    assert lessor.by_time_left() == [1, 2, 3]


def test_X2_a_new_leader_gives_the_rest_anew_and_one_election() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 60, "")
    lessor.grant(2, 60, "")
    lessor.checkpoint(2, 20)
    lessor.promote(1_000 * S, 2 * S)
    assert lessor.remaining_s(1, 1_000 * S) == 62
    assert lessor.remaining_s(2, 1_000 * S) == 22
    lessor.demote()
    lessor.promote(5_000 * S, 0)
    assert lessor.remaining_s(1, 5_000 * S) == 60


def test_X2_a_stall_moves_every_deadline() -> None:
    lessor = leader((1, 10), (2, 20))
    lessor.shift(7 * S)
    assert lessor.next_due_ns() == 17 * S
    assert lessor.expired(16 * S, 10) == []
    lessor.grant(3, 10, "")
    lessor.granted(3, 16 * S)
    assert lessor.remaining_s(3, 16 * S) == 10
    assert lessor.renew(2, 16 * S) == Renewal(20, False)
    assert lessor.expired(17 * S, 10) == [1]
    lessor.revoke(1)
    assert lessor.expired(26 * S, 10) == [3]
    lessor.revoke(3)
    assert lessor.expired(36 * S - 1, 10) == []
    assert lessor.expired(36 * S, 10) == [2]


def test_I16_a_stall_noticed_late_revives_nobody_whose_end_is_on_the_way() -> None:
    lessor = leader((1, 10), (2, 10))
    assert lessor.expired(10 * S, 1) == [1]  # its revoke may be on the log by now
    lessor.shift(7 * S)
    assert lessor.renew(1, 10 * S) == Renewal(0, False)
    assert lessor.remaining_s(1, 10 * S) == -1
    assert lessor.renew(2, 10 * S) == Renewal(10, False)
    assert lessor.expired(18 * S, 10) == [1]  # named again, although the stall moved its deadline
    lessor.demote()
    lessor.promote(20 * S, 0)  # a new term: what the old one proposed is applied before
    assert lessor.renew(1, 20 * S) == Renewal(10, False)


def test_X3_checkpoints() -> None:
    lessor = leader((1, 31), (2, 30), (3, 100))
    assert lessor.checkpoints_due(14 * S, 10) == []
    assert lessor.checkpoints_due(15 * S, 10) == [(1, 16), (3, 85)]
    assert lessor.checkpoints_due(16 * S, 10) == []
    lessor.checkpoint(3, 85)
    assert lessor.renew(3, 20 * S) == Renewal(100, True)
    lessor.checkpoint(3, 0)
    assert lessor.renew(3, 20 * S) == Renewal(100, False)
    assert lessor.checkpoints_due(30 * S, 10) == [(1, 1), (3, 90)]
    assert not lessor.checkpoint(9, 5)
    assert lessor.checkpoint(1, 10_000)
    assert lessor.get(1).remaining_s == 31


def test_X3_checkpoints_are_bounded_per_entry() -> None:
    lessor = leader(*((i, 60) for i in range(1, 6)))
    assert [i for i, _ in lessor.checkpoints_due(15 * S, 2)] == [1, 2]
    assert [i for i, _ in lessor.checkpoints_due(15 * S, 10)] == [3, 4, 5]


def test_only_the_leader_counts() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 10, "")
    lessor.granted(1, 0)
    for ask in (lambda: lessor.renew(1, 0), lambda: lessor.expired(0, 1)):
        with pytest.raises(InvariantViolationError):
            ask()
    assert lessor.next_due_ns() is None


def test_rows_restore_everything_replicated() -> None:
    lessor = leader((5, 10), (-1, 60))
    lessor.checkpoint(-1, 30)
    lessor.move(b"k", 0, 5)
    again = Lessor(2)
    again.grant(99, 10, "gone")
    again.load(lessor.rows(), [(b"k", 5)])
    assert again.rows() == lessor.rows() == [(-1, 60, "", 30), (5, 10, "", 0)]
    assert again.get(5).sorted_keys() == [b"k"]
    with pytest.raises(InvariantViolationError):
        again.load([], [(b"k", 5)])


def test_creator_is_the_uid_where_there_is_one() -> None:
    ada = SYSTEM_PRINCIPAL._replace(user="ada")
    assert creator_of(ada) == "ada"
    assert creator_of(ada._replace(uid="0f")) == "0f"


STEPS = st.lists(
    st.tuples(st.sampled_from(["grant", "renew", "wait", "shift", "expire"]), st.integers(1, 6)),
    max_size=40,
)


@given(steps=STEPS)
def test_leases_end_when_a_plain_table_of_deadlines_says_so(steps: list[tuple[str, int]]) -> None:
    lessor = leader()
    now = 0
    deadlines: dict[int, int] = {}
    for what, number in steps:
        if what == "grant" and number not in deadlines:
            lessor.grant(number, number, "")
            lessor.granted(number, now)
            deadlines[number] = now + max(number, 2) * S
        elif what == "renew":
            alive = deadlines.get(number, 0) > now
            assert bool(lessor.renew(number, now).ttl_s) == alive
            if alive:
                deadlines[number] = max(deadlines[number], now + max(number, 2) * S)
        elif what == "wait":
            now += number * S
        elif what == "shift":
            lessor.shift(number * S)
            deadlines = {i: at + number * S for i, at in deadlines.items()}
        elif what == "expire":
            over = {i for i, at in deadlines.items() if at <= now}
            assert set(lessor.expired(now, 100)) == over
            for lease_id in over:
                lessor.revoke(lease_id)
                del deadlines[lease_id]
    assert set(lessor.leases) == set(deadlines)
