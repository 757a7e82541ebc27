"""How often a password may be tried: by an identity and address, and of a user (LIM-9, LIM-10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from configsvc.auth.state import AuthState
from configsvc.errors import AuthFailedError, ConfigServiceError, RequestTooManyRequestsError
from configsvc.identity.passwords import hash_password
from configsvc.identity.tokens import TokenKey
from configsvc.runtime import logins as module
from configsvc.runtime.logins import (
    ACCOUNT_FAILURES_MAX,
    ACCOUNT_WINDOW_S,
    FAILURES_PER_MIN,
    LOGINS_PER_S,
    Logins,
)
from configsvc.types import KIND_AGENT, Principal, Source

GOOD = "long enough to be good"
PHC = hash_password(GOOD)


class Clock:
    now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 10**18


class World:
    """Logins of a secure member; each try comes a second later."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.auth = AuthState()
        self.auth.bootstrap(insecure=False, root_uid="00")
        for name in ("hana", "omar"):
            self.auth.user_add(name, PHC, False, "0a")
        self.logins = Logins(
            loop=asyncio.get_running_loop(), clock=self.clock, auth=lambda: self.auth,
            key=TokenKey.generate(), issuer="i", audience="a", record=lambda *_: None,
        )  # fmt: skip

    async def ask(
        self, user: str, password: str, *, who: str = "n1", ip: str = "10.0.0.1"
    ) -> str | ConfigServiceError:
        self.clock.now += 1.0
        uri = f"spiffe://test/agent/{who}"
        principal = Principal(
            KIND_AGENT, who, f"agent/{who}", "", uri, "", "", "certificate", "", "", 0
        )
        source = Source(ip, "TLSv1.3", "other", "")
        future: asyncio.Future[str | ConfigServiceError] = asyncio.Future()
        self.logins.login(principal, source, user, password, future.set_result)
        return await future


def run(work: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        try:
            await work(world)
        finally:
            world.logins.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real computation is another test's."""
    monkeypatch.setattr(module, "verify_password", lambda tried, phc: phc and tried == GOOD)


async def fail(world: World, user: str, times: int) -> None:
    """From another identity each time."""
    for n in range(times):
        assert isinstance(await world.ask(user, "wrong", who=f"n{n}"), AuthFailedError)


def test_a_user_that_many_tried_is_locked_for_a_while() -> None:
    async def work(world: World) -> None:
        await fail(world, "hana", ACCOUNT_FAILURES_MAX - 1)
        assert not world.logins.locked("hana")
        await fail(world, "hana", 1)
        assert world.logins.locked("hana")
        assert isinstance(await world.ask("hana", GOOD, who="own"), AuthFailedError)
        assert isinstance(await world.ask("omar", GOOD, who="own"), str)
        await fail(world, "hana", 3)  # trying on does not prolong it
        world.clock.now += ACCOUNT_WINDOW_S - ACCOUNT_FAILURES_MAX
        assert isinstance(await world.ask("hana", GOOD, who="own"), str)

    run(work)


def test_failures_long_ago_or_before_a_login_lock_nobody() -> None:
    async def work(world: World) -> None:
        await fail(world, "hana", ACCOUNT_FAILURES_MAX - 1)
        assert isinstance(await world.ask("hana", GOOD, who="own"), str)
        await fail(world, "hana", ACCOUNT_FAILURES_MAX - 1)
        world.clock.now += ACCOUNT_WINDOW_S
        await fail(world, "hana", ACCOUNT_FAILURES_MAX - 1)
        assert isinstance(await world.ask("hana", GOOD, who="own"), str)

    run(work)


def test_a_right_password_among_many_wrong_ones_at_once_is_too_late() -> None:
    """All were let in before the first was judged."""

    async def work(world: World) -> None:
        tries = [world.ask("hana", "wrong", who=f"n{n}") for n in range(ACCOUNT_FAILURES_MAX)]
        got = await asyncio.gather(*tries, world.ask("hana", GOOD, who="last"))
        assert [type(each) for each in got] == [AuthFailedError] * len(got)

    run(work)


def test_names_that_nobody_has_are_not_remembered() -> None:
    async def work(world: World) -> None:
        await fail(world, "nobody", ACCOUNT_FAILURES_MAX + 1)
        assert not world.logins.locked("nobody")
        assert world.logins._accounts == {}

    run(work)


def test_one_identity_at_one_address_waits_longer_each_time() -> None:
    async def work(world: World) -> None:
        for _ in range(FAILURES_PER_MIN):
            assert isinstance(await world.ask("hana", "wrong"), AuthFailedError)
        with pytest.raises(RequestTooManyRequestsError):
            await world.ask("omar", GOOD)
        assert isinstance(await world.ask("omar", GOOD, ip="10.0.0.2"), str)
        world.clock.now += 12
        assert isinstance(await world.ask("hana", "wrong"), AuthFailedError)
        world.clock.now += 12
        with pytest.raises(RequestTooManyRequestsError):
            await world.ask("omar", GOOD)
        world.clock.now += 12
        assert isinstance(await world.ask("omar", GOOD), str)

    run(work)


def test_a_member_computes_so_many_logins_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(world: World) -> None:
        monkeypatch.setattr(module, "LOGINS_PER_S", 2)
        for n in range(2):
            world.clock.now -= 1.0
            assert isinstance(await world.ask("hana", GOOD, who=f"n{n}"), str)
        world.clock.now -= 1.0
        with pytest.raises(RequestTooManyRequestsError):
            await world.ask("hana", GOOD, who="n3")
        assert isinstance(await world.ask("hana", GOOD, who="n4"), str)

    assert LOGINS_PER_S == 20
    run(work)
