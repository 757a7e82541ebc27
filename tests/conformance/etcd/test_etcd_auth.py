"""Users, roles, tokens and rights against etcd, over plaintext."""

from __future__ import annotations

import pytest
from auth_script import script

from tests.support.etcd_cases import compare

SCRIPT = script()


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_auth_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
