"""Facts: what the proposer works out about a request and the entry then carries (POL-5).

Whether bytes are JSON or TOML depends on a parser, thus on the interpreter; members of one
cluster may not disagree. So the accepting member looks, and apply believes the entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from configsvc.auth.conditions import FORMAT_FACT, UNSURE
from configsvc.auth.operands import FORMATS
from configsvc.auth.rules import Policy
from configsvc.auth.toml_guard import parse_guarded
from configsvc.errors import PolicyInvalidError
from configsvc.limits import FACT_VALUE_BYTES_MAX

_NONE: Final = frozenset[str]()


def facts_wanted(policy: Policy) -> bool:
    """Whether some rule asks for the format of values: otherwise nobody need look."""
    return any(
        condition.attribute == FORMAT_FACT
        for rule in policy.rules
        for condition in (*rule.when, *rule.unless)
    )


def format_facts(values: Iterable[bytes]) -> tuple[tuple[str, str], ...]:
    """Formats of the values of a request, for the envelope; nothing without values.

    A format that not *every* value has is ``UNSURE``: it neither allows nor excuses anything, and
    does not take a value out of a deny that names it. So is every format of a value longer than
    ``FACT_VALUE_BYTES_MAX``, at which nobody looks.
    """
    common: frozenset[str] | None = None
    some = _NONE
    for value in values:
        found = formats_of(value)
        common = found if common is None else common & found
        some |= FORMATS if len(value) > FACT_VALUE_BYTES_MAX else found
    if common is None:
        return ()
    unsure = {each + UNSURE for each in some - common}
    return ((FORMAT_FACT, ",".join(sorted(common | unsure))),)


def formats_of(value: bytes) -> frozenset[str]:
    """Which of utf8, json and toml ``value`` is; bounded in time and memory.

    TOML with multi-line strings does not count as TOML here: see ``toml_guard``.
    """
    if len(value) > FACT_VALUE_BYTES_MAX:
        return _NONE
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _NONE
    found = {"utf8"}
    if _is_json(text):
        found.add("json")
    if _is_toml(text):
        found.add("toml")
    return frozenset(found)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return False
    return True


def _is_toml(text: str) -> bool:
    try:
        parse_guarded(text, "value")
    except PolicyInvalidError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON


def _number(text: str) -> int:
    return len(text)  # its value is not wanted, and a long one would be slow to compute
