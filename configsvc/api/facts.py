"""Facts about a value that policy may ask for, evaluated by the accepting member (POL-5).

They travel in the entry, so that no member's libraries decide an outcome in apply. They are
worked out only while the policy in force asks for them.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any, Final

from configsvc.mvcc.messages import PutOp, TxnOp

VALUE_FORMAT: Final = "value.format"
FORMAT_BYTES_MAX: Final = 1 << 20  # larger values count as of no format
DEPTH_MAX: Final = 64
Facts = tuple[tuple[str, str], ...]


def facts_of(member: Any, op: PutOp | TxnOp) -> Facts:
    """The facts that the policy in force can ask about ``op``; usually none."""
    if VALUE_FORMAT not in member.policy_facts:
        return ()
    if type(op) is PutOp:
        return ((VALUE_FORMAT, ",".join(formats(op.value))),)
    values = _values(op)  # type: ignore[arg-type]
    common: set[str] | None = None
    for value in values:
        found = set(formats(value))
        common = found if common is None else common & found
    return ((VALUE_FORMAT, ",".join(sorted(common))),) if common is not None else ()


def _values(op: TxnOp) -> list[bytes]:
    out: list[bytes] = []
    for inner in (*op.success, *op.failure):
        if type(inner) is PutOp:
            out.append(inner.value)
        elif type(inner) is TxnOp:
            out += _values(inner)
    return out


def formats(value: bytes) -> list[str]:
    """Which of utf8, json, toml ``value`` is; sorted."""
    if len(value) > FORMAT_BYTES_MAX:
        return []
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return []
    found = ["utf8"]
    try:
        json.loads(text, parse_constant=_refuse)
        found.append("json")
    except (ValueError, RecursionError):
        pass
    if max((line.count(".") for line in text.splitlines()), default=0) <= DEPTH_MAX:
        try:
            tomllib.loads(text)
            found.append("toml")
        except (ValueError, RecursionError):
            pass
    return sorted(found)


def _refuse(word: str) -> Any:
    raise ValueError(word)
