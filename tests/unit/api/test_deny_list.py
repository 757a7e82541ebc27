"""The deny-list's door: who may, what is refused before it is proposed, what it then does."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.api.contract import Caller
from configsvc.api.deny_list import DenyListService
from configsvc.auth.messages import READWRITE
from configsvc.auth.standing import check_principal
from configsvc.codec import command as codec
from configsvc.errors import (
    CertificateNotAcceptableError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RequestError,
    UserNotFoundError,
)
from configsvc.proto import v1_pb2 as v1
from configsvc.types import NO_SOURCE, Principal
from tests.support.api_rig import ADA, ROOT, ApiMember, caller, told

ADMIN = ROOT._replace(cert_serial="5a")
ACTOR = codec.encode_actor(ADMIN, NO_SOURCE)
SALT = bytes(32)
NOW = 1_000
JTI, KID = "ab" * 16, "key-0001"


class Door(DenyListService):
    """Proposals reach the member's state, decoded as apply gets them."""

    def propose(self, asker: Caller, op_field: int, op: bytes, *args: Any, **_: Any) -> Any:  # type: ignore[override]
        data = codec.build(1, ACTOR, SALT, op_field, op) + codec.stamp(1, 1)
        made = codec.CommandDecoder().decode(data).op
        return self.member.proposals.submit(asker.principal, 0, made, args[0])  # type: ignore[arg-type]


class World:
    def __init__(self) -> None:
        self.member = ApiMember()
        self.member.now_ns = NOW
        self.member.user(ADA, (READWRITE, b"/", b"0"))
        self.door = Door(self.member)  # type: ignore[arg-type]

    def add(self, what: str, value: str, who: Principal = ADMIN, **more: Any) -> v1.Denial:
        raw = v1.DenyAddRequest(what=what, value=value, **more).SerializeToString()
        return v1.DenyAddResponse.FromString(self._one(self.door.add, who, raw)).entry

    def remove(self, what: str, value: str, who: Principal = ADMIN) -> v1.Denial:
        raw = v1.DenyRemoveRequest(what=what, value=value).SerializeToString()
        return v1.DenyRemoveResponse.FromString(self._one(self.door.remove, who, raw)).entry

    def list(self, who: Principal = ADMIN, **more: Any) -> v1.DenyListResponse:
        raw = v1.DenyListRequest(**more).SerializeToString()
        return v1.DenyListResponse.FromString(self._one(self.door.list, who, raw))

    def entries(self) -> list[tuple[str, str, int]]:
        return [(one.what, one.value, one.until_ns) for one in self.list().entries]

    @staticmethod
    def _one(handler: Any, who: Principal, raw: bytes) -> bytes:
        [answer] = told(handler(caller(who), raw))
        if isinstance(answer, RequestError):
            raise answer
        return bytes(answer)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("what", "value", "spelt"),
    [
        ("serial", "4a0b", "4a0b"),
        ("serial", "f" * 40, "f" * 40),
        ("identity", "user/ada", "spiffe://corp/user/ada"),
        ("identity", "spiffe://corp/agent/web-1", "spiffe://corp/agent/web-1"),
        ("jti", JTI, JTI),
        ("kid", KID, KID),
    ],
)
def test_an_entry_is_listed_until_it_is_removed(
    world: World, what: str, value: str, spelt: str
) -> None:
    assert world.add(what, value) == v1.Denial(what=what, value=spelt)
    assert world.entries() == [(what, spelt, 0)]
    assert world.remove(what, value) == v1.Denial(what=what, value=spelt)
    assert world.entries() == []
    with pytest.raises(NotFoundError):
        world.remove(what, value)


@pytest.mark.parametrize(
    ("what", "value", "field"),
    [
        ("", "4a", "what"),
        ("Serial", "4a", "what"),
        ("serial", "", "value"),
        ("serial", "0", "value"),
        ("serial", "04a", "value"),
        ("serial", "4A", "value"),
        ("serial", "4a:0b", "value"),
        ("serial", "4a\n", "value"),
        ("serial", "f" * 41, "value"),
        ("identity", "", "value"),
        ("identity", "ada", "value"),
        ("identity", "robot/ada", "value"),
        ("identity", "user/Ada", "value"),
        ("identity", "user/ada/", "value"),
        ("identity", "user/" + "a" * 300, "value"),
        ("identity", "spiffe://other/user/ada", "value"),
        ("jti", JTI[1:], "value"),
        ("jti", JTI.upper(), "value"),
        ("kid", "short", "value"),
        ("kid", "k" * 65, "value"),
        ("user", "", "value"),
        ("all", "ada", "value"),
    ],
)
def test_what_would_deny_nobody_is_refused_by_name(
    world: World, what: str, value: str, field: str
) -> None:
    before = world.member.applied
    with pytest.raises(InvalidArgumentError, match=f"^{field}: ") as caught:
        world.add(what, value)
    if len(value) > 4:
        assert value not in str(caught.value)
    if what not in ("user", "all"):
        with pytest.raises(InvalidArgumentError, match=f"^{field}: "):
            world.remove(what, value)
    assert world.member.applied == before, "nothing was proposed"


@pytest.mark.parametrize(
    ("what", "value", "until_ns"),
    [("serial", "4a", -1), ("serial", "4a", NOW), ("user", "ada", NOW + 1), ("all", "", NOW + 1)],
)
def test_an_end_lies_ahead(world: World, what: str, value: str, until_ns: int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^until_ns: "):
        world.add(what, value, until_ns=until_ns)


def test_an_entry_is_prolonged_and_the_answer_says_until_when(world: World) -> None:
    assert world.add("jti", JTI, until_ns=NOW + 9).until_ns == NOW + 9
    assert world.add("jti", JTI, until_ns=NOW + 5).until_ns == NOW + 9
    world.member.now_ns = NOW + 9
    assert world.entries() == [], "it ran out"
    assert world.add("jti", JTI).until_ns == 0


def test_one_does_not_shut_oneself_out_by_mistake(world: World) -> None:
    for what, value in (
        ("serial", "5a"),
        ("identity", "user/root"),
        ("identity", ADMIN.cert_uri),
    ):
        with pytest.raises(InvalidArgumentError, match="--allow-lockout"):
            world.add(what, value)
    check_principal(world.member.state.auth, ADMIN, NOW)
    world.add("serial", "5a", allow_lockout=True)
    with pytest.raises(CertificateNotAcceptableError):
        check_principal(world.member.state.auth, ADMIN, NOW)
    world.remove("serial", "5a", ROOT)  # another administrator can


def test_a_member_is_removed_not_denied(world: World) -> None:
    members = world.member.state.members
    members.by_id[0x41] = None  # type: ignore[assignment]
    for name, refused in (("41".zfill(16), True), ("42".zfill(16), False)):
        if refused:
            with pytest.raises(InvalidArgumentError, match="--allow-lockout"):
                world.add("identity", f"member/{name}")
            world.add("identity", f"member/{name}", allow_lockout=True)
        else:
            world.add("identity", f"member/{name}")
    world.add("identity", "user/41")


def test_it_takes_the_right_to_it(world: World) -> None:
    for what, value in (("serial", "4a"), ("identity", "user/root"), ("jti", JTI), ("all", "")):
        with pytest.raises(PermissionDeniedError):
            world.add(what, value, ADA)
    with pytest.raises(PermissionDeniedError):
        world.add("serial", "no serial", ADA)  # rights come first
    with pytest.raises(PermissionDeniedError):
        world.remove("serial", "4a", ADA)
    with pytest.raises(PermissionDeniedError):
        world.list(ADA)


def test_tokens_of_a_user_or_of_all_end_and_nothing_stays(world: World) -> None:
    auth = world.member.state.auth
    revision = auth.revision
    assert world.add("user", "ada") == v1.Denial(what="user", value="ada")
    assert auth.users["ada"].min_arev == revision + 1
    assert world.add("all", "") == v1.Denial(what="all")
    assert auth.tokens_min == revision + 2
    assert world.entries() == []
    with pytest.raises(UserNotFoundError):
        world.add("user", "nobody")


def test_pages_hold_all_there_is_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.api.deny_list.DENIALS_PER_PAGE_MAX", 3)
    wanted = [("jti", f"{number:032x}") for number in range(7)] + [("kid", KID), ("serial", "4a")]
    for what, value in reversed(wanted):
        world.add(what, value)
    found: list[v1.Denial] = []
    sizes = []
    more = True
    while more:
        page = world.list(after=found[-1] if found else None)
        found += page.entries
        sizes.append(len(page.entries))
        more = page.more
    assert sizes == [3, 3, 3]
    assert [(one.what, one.value) for one in found] == wanted
    assert len(world.list(limit=2).entries) == 2
    assert len(world.list(limit=100).entries) == 3
    with pytest.raises(InvalidArgumentError):
        world.list(limit=-1)
