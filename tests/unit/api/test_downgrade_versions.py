"""Downgrade's version: whatever is no number is told so."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.api.maintenance import MaintenanceService
from configsvc.errors import (
    InvalidDowngradeTargetVersionError,
    RequestError,
    WrongDowngradeVersionFormatError,
)
from configsvc.proto import rpc_pb2
from tests.support.api_rig import ROOT, ApiMember, caller


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("3.5", None),
        ("3.5.0", None),
        ("3.4", InvalidDowngradeTargetVersionError),
        ("", WrongDowngradeVersionFormatError),
        ("3", WrongDowngradeVersionFormatError),
        ("3.x", WrongDowngradeVersionFormatError),
        ("3.\u00b2", WrongDowngradeVersionFormatError),
        ("3.\u0665", WrongDowngradeVersionFormatError),
        ("3." + "9" * 5_000, WrongDowngradeVersionFormatError),
    ],
)
def test_a_version_is_two_or_three_plain_numbers(
    version: str, refused: type[RequestError] | None
) -> None:
    service = MaintenanceService(ApiMember())  # type: ignore[arg-type]
    ask: Any = rpc_pb2.DowngradeRequest(action=0, version=version)  # type: ignore[arg-type]
    raw = ask.SerializeToString()
    if refused is None:
        answer = rpc_pb2.DowngradeResponse.FromString(service.downgrade(caller(ROOT), raw))
        assert answer.version == "3.6"
    else:
        with pytest.raises(refused):
            service.downgrade(caller(ROOT), raw)
