"""What a policy condition means, judged on data of the request and the state alone.

``holds`` answers True, False, or None when the condition cannot be evaluated. The caller gives
None its meaning: an allow does not apply, a deny does, an ``unless`` does not help (POL-4).

Addresses are parsed by our own few lines, because the rules of a library may change with the
interpreter and members of one cluster must agree (POL-5).
"""

from __future__ import annotations

from typing import Final

from configsvc.auth.messages import Request
from configsvc.auth.rules import Condition

# Conditions that depend on nothing but principal, source and roles: decided once per cached view.
STATIC: Final = frozenset(
    {"principal.kind", "principal.name", "principal.role", "auth.method", "source.cidr"}
)
CHANGE: Final = frozenset({"change.reason_required", "change.ticket_prefix"})
FORMAT_FACT: Final = "value.format"
UNSURE: Final = "?"  # behind a format that some values have, or that nobody looked for


def holds(condition: Condition, request: Request, roles: tuple[str, ...]) -> bool | None:
    """Judge one condition; None: it cannot be evaluated."""
    attribute, operand = condition
    if isinstance(operand, int):
        if attribute == "change.reason_required":
            return bool(request.reason.strip())
        if attribute == "value.max_bytes":
            return None if request.value_bytes is None else request.value_bytes <= operand
        return None
    match attribute:
        case "principal.kind":
            return request.principal.kind in operand
        case "principal.name":
            return request.principal.name in operand
        case "principal.role":
            return any(role in operand for role in roles)
        case "auth.method":
            return request.principal.method in operand
        case "source.cidr":
            return _in_networks(request.source.ip, operand)
        case "change.ticket_prefix":
            return request.ticket.startswith(operand)
        case "value.format":
            return _has_format(request, operand)
        case _:
            return None


def show(condition: Condition) -> str:
    """The condition as an operator reads it."""
    operand = condition.operand
    text = str(operand) if isinstance(operand, int) else "|".join(operand)
    return f"{condition.attribute} {text}"


def show_have(condition: Condition, request: Request, roles: tuple[str, ...]) -> str:
    """What the request had instead; values of keys are never among it."""
    match condition.attribute:
        case "principal.kind":
            have = request.principal.kind
        case "principal.name":
            have = request.principal.name
        case "principal.role":
            have = "|".join(roles)
        case "auth.method":
            have = request.principal.method
        case "source.cidr":
            have = request.source.ip
        case "change.ticket_prefix":
            have = request.ticket
        case "value.max_bytes":
            have = "" if request.value_bytes is None else str(request.value_bytes)
        case "value.format":
            have = request.facts.get(FORMAT_FACT, "")
        case _:
            have = ""
    return have or "none"


def _has_format(request: Request, formats: tuple[str, ...]) -> bool | None:
    fact = request.facts.get(FORMAT_FACT)
    if fact is None:
        return None
    found = fact.split(",")
    if any(wanted in found for wanted in formats):
        return True
    return None if any(wanted + UNSURE in found for wanted in formats) else False


def _in_networks(address: str, networks: tuple[str, ...]) -> bool | None:
    found = parse_address(address)
    if found is None:
        return None
    for network in networks:
        parsed = parse_network(network)
        if parsed is None:
            return None
        bits, value, length = parsed
        if bits == found[0] and value >> (bits - length) == found[1] >> (bits - length):
            return True
    return False


def parse_network(text: str) -> tuple[int, int, int] | None:
    """``address/length`` as (bits, value, length); None unless strict and without host bits."""
    address, slash, digits = text.partition("/")
    found = parse_address(address)
    if found is None or not slash or not _decimal(digits, 128):
        return None
    bits, value = found
    length = int(digits)
    if length > bits or value & ((1 << (bits - length)) - 1):
        return None
    return bits, value, length


def parse_address(text: str) -> tuple[int, int] | None:
    """An IP address as (32 or 128, value); None for anything else, scope ids included."""
    if ":" in text:
        value = _parse_v6(text)
        return None if value is None else (128, value)
    value = _parse_v4(text)
    return None if value is None else (32, value)


def _parse_v4(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4 or not all(_decimal(part, 255) for part in parts):
        return None
    a, b, c, d = map(int, parts)
    return a << 24 | b << 16 | c << 8 | d


def _parse_v6(text: str) -> int | None:
    if len(text) > 45 or text.count("::") > 1 or ":::" in text:
        return None
    tail = text.rpartition(":")[2]
    if "." in tail:  # the last two groups written as an IPv4 address
        low = _parse_v4(tail)
        if low is None:
            return None
        text = f"{text[: -len(tail)]}{low >> 16:x}:{low & 0xFFFF:x}"
    head, gap, rest = text.partition("::")
    left = head.split(":") if head else []
    right = rest.split(":") if rest else []
    missing = 8 - len(left) - len(right)
    if (missing < 1) if gap else missing:
        return None
    groups = left + ["0"] * missing + right
    if not all(1 <= len(g) <= 4 and set(g) <= _HEX for g in groups):
        return None
    value = 0
    for group in groups:
        value = value << 16 | int(group, 16)
    return value


_HEX: Final = frozenset("0123456789abcdefABCDEF")


def _decimal(text: str, most: int) -> bool:
    """A number without sign, spaces or leading zeros, at most ``most``."""
    if not 1 <= len(text) <= 3 or not set(text) <= frozenset("0123456789"):
        return False
    return (text == "0" or text[0] != "0") and int(text) <= most
