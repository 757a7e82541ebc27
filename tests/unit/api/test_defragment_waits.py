"""Defragment beside an install (S3)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from configsvc.api.maintenance import MaintenanceService
from configsvc.errors import OverloadedError


class Tasks:
    """Tasks of the history's thread, as the member is asked for them."""

    def __init__(self, *, busy: bool) -> None:
        self.asked: list[str] = []
        self.installs = SimpleNamespace(busy=busy)
        self.history = SimpleNamespace(vacuum="vacuum")

    def history_task(self, work: str, answer: object) -> str:
        self.asked.append(work)
        return "waiting"


class Service(MaintenanceService):
    """Everybody may."""

    def __init__(self, member: Tasks) -> None:
        self.member = cast(Any, member)

    def need(self, caller: Any, action: str, *rest: Any, **more: Any) -> Any:
        assert action == "maintenance.defragment"


def test_no_defragment_while_a_snapshot_is_sent_or_received() -> None:
    member = Tasks(busy=True)
    with pytest.raises(OverloadedError, match="snapshot"):
        Service(member).defragment(cast(Any, None), b"")
    assert not member.asked


def test_defragment_otherwise() -> None:
    member = Tasks(busy=False)
    assert cast(Any, Service(member).defragment(cast(Any, None), b"")) == "waiting"
    assert member.asked == ["vacuum"]
