"""A13: a write with a simple token that ended while the write was on its way to the log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configsvc.api.contract import Caller
from configsvc.api.service import OVERTAKEN, Service
from configsvc.apply.commands import Refused
from configsvc.auth.standing import ETCD_JWT
from configsvc.codec import command as codec
from configsvc.errors import (
    AuthOldRevisionError,
    InvalidAuthTokenError,
    PermissionDeniedError,
    RequestError,
)
from configsvc.identity.etcd_tokens import SIMPLE_KEY_ID
from configsvc.types import KIND_USER, NO_SOURCE, SYSTEM_PRINCIPAL


def answer_of(key_id: str, outcome: object) -> Any:
    """What a write's answer is made of, for a caller with a token of that kind."""
    made: list[Any] = []

    def submit(envelope: bytes, op_field: int, op: bytes, encode: Any, **more: Any) -> None:
        made.append(encode)

    member: Any = SimpleNamespace(
        proposals=SimpleNamespace(submit=submit),
        headers=SimpleNamespace(field=lambda revision, term: b"header"),
        term=1,
    )
    principal = SYSTEM_PRINCIPAL._replace(kind=KIND_USER, key_id=key_id)
    Service(member).propose(Caller(principal, NO_SOURCE, b""), codec.OP_PUT, b"")
    return made[0](SimpleNamespace(result=outcome, revision=7))


def refused(error: RequestError) -> Any:
    return Refused(error)


@pytest.mark.parametrize(
    ("key_id", "error", "told"),
    [
        (SIMPLE_KEY_ID, AuthOldRevisionError(), InvalidAuthTokenError),
        (SIMPLE_KEY_ID, PermissionDeniedError(), PermissionDeniedError),
        (ETCD_JWT, AuthOldRevisionError(), AuthOldRevisionError),
        ("0a1b", AuthOldRevisionError(), AuthOldRevisionError),
    ],
)
def test_only_a_simple_token_is_bad_when_it_was_overtaken(
    key_id: str, error: RequestError, told: type[RequestError]
) -> None:
    with pytest.raises(told) as caught:
        answer_of(key_id, refused(error))
    assert type(caught.value) is told
    assert caught.value.recorded, "apply has recorded it"
    if told is InvalidAuthTokenError:
        assert caught.value.detail == OVERTAKEN


def test_what_is_done_is_answered() -> None:
    assert answer_of(SIMPLE_KEY_ID, None) == b"header"
