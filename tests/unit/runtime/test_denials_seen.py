"""Who ends connections hears of the deny-list when it grew, however that came about."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from configsvc.auth.state import AuthState
from configsvc.runtime.following import Following

JTI = "ab" * 16


class Heard:
    """A member of which only the state of rights means something; counts what is told."""

    def __init__(self) -> None:
        self.auth = AuthState()
        self.auth.revoke("jti", "00" * 16, 0, 1)  # known at the start
        ignore = SimpleNamespace(
            submit=lambda *_: None, feed=lambda *_: None, note_digest=lambda *_: None,
            applied=lambda *_: None, installed=lambda *_: None, on_written=lambda *_: None,
            leadership_changed=lambda: None, resume=lambda *_: None,
            waiting=0, waited_for=False, conf_state=None,
        )  # fmt: skip
        member: Any = SimpleNamespace(
            state=SimpleNamespace(auth=self.auth), store=SimpleNamespace(revision=1),
            is_leader=False, wake=lambda: None, machine=ignore, history=ignore, hub=ignore,
            proposals=ignore, housekeeping=ignore, reads=ignore, publishing=ignore,
            checkpoints=ignore, gate=ignore,
        )  # fmt: skip
        self.times = 0
        self._following = Following(member)
        self._following.on_denied = self._tell

    def _tell(self) -> None:
        self.times += 1

    def applied(self) -> int:
        effects: Any = SimpleNamespace(index=1, digest=b"")
        self._following.on_applied([effects], [None])
        return self.times

    def installed(self) -> int:
        self._following.switched(1, b"", 1)
        return self.times


def test_each_new_denial_is_heard_once() -> None:
    heard = Heard()
    assert heard.applied() == 0, "nothing is new"
    heard.auth.revoke("jti", JTI, 0, 1)
    assert heard.applied() == 1
    assert heard.applied() == 1
    heard.auth.unrevoke("jti", JTI)
    assert heard.applied() == 1, "nobody is denied who was not"


def test_denials_that_come_with_an_install_are_heard() -> None:
    heard = Heard()
    heard.auth.load(
        users=(), roles=(), permissions=(), meta={}, policies=(), revocations=[("jti", JTI, 0)]
    )
    assert heard.installed() == 1
    assert heard.applied() == 1
