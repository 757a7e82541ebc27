"""``txn``: a transaction from standard input, in the language of etcd's tool.

Three parts, each ended by an empty line: comparisons, what to do if all of them hold, what to do
otherwise. ``mod("k") > "0"``, ``ver("k") = "0"``, ``val("k") = "v"``, ``create("k") < "9"``,
``lease("k") != "0"``; then ``put k v``, ``get k [end]``, ``del k [end]``.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from configsvc.cli.arguments import Commands, add_why, key_bytes
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape
from configsvc.cli.show import kv_json

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.client import Operation, Txn
    from configsvc.proto import rpc_pb2 as rpc

_COMPARE: Final = re.compile(
    r"""\s*(?P<target>\w+)\s*\(\s*(?P<key>"(?:[^"\\]|\\.)*"|[^\s")]+)\s*\)\s*"""
    r"""(?P<sign>!=|=|<|>)\s*(?P<operand>"(?:[^"\\]|\\.)*"|\S+)\s*"""
)
_TARGETS: Final = {
    "c": "created", "create": "created", "m": "modified", "mod": "modified",
    "ver": "version", "version": "version", "val": "value", "value": "value", "lease": "lease",
}  # fmt: skip


def register(commands: Commands) -> None:
    """Add the command."""
    txn = commands.add("txn", "a transaction read from standard input", run_txn)
    txn.description = __doc__
    add_why(txn)


def _word(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def parse_compare(line: str) -> rpc.Compare:
    """One comparison.

    Raises:
        CliError: usage; malformed.
    """
    from configsvc.client import txn

    match = _COMPARE.fullmatch(line)
    target = _TARGETS.get(match["target"]) if match else None
    if match is None or target is None:
        raise CliError(Exit.USAGE, f'comparison {line.strip()!r}: write mod("key") > "0"')
    compared = getattr(txn, target)(key_bytes(_word(match["key"])))
    word = _word(match["operand"])
    try:
        operand: int | bytes = (
            key_bytes(word) if target == "value" else int(word, 16 if target == "lease" else 10)
        )
    except ValueError:
        raise CliError(Exit.USAGE, f"comparison {line.strip()!r}: needs a number") from None
    if isinstance(operand, int) and target == "lease" and 2**63 <= operand < 2**64:
        operand -= 2**64  # ids with the top bit set are negative
    if isinstance(operand, int) and not -(2**63) <= operand < 2**63:
        raise CliError(Exit.USAGE, f"comparison {line.strip()!r}: the number is too large")
    made: rpc.Compare = {
        "=": compared.__eq__, "!=": compared.__ne__, "<": compared.__lt__, ">": compared.__gt__,
    }[match["sign"]](operand)  # fmt: skip
    return made


def parse_operation(line: str) -> Operation[Any]:
    """One ``put``, ``get`` or ``del``.

    Raises:
        CliError: usage; malformed.
    """
    from configsvc.client import operations

    try:
        words = [key_bytes(word) for word in shlex.split(line)]
    except ValueError as error:
        raise CliError(Exit.USAGE, f"operation {line.strip()!r}: {error}") from None
    match words:
        case [b"put", key, value]:
            return operations.put(key, value)
        case [b"get", key]:
            return operations.range_(key)
        case [b"get", key, end]:
            return operations.range_(key, end)
        case [b"del", key]:
            return operations.delete(key)
        case [b"del", key, end]:
            return operations.delete(key, end)
    raise CliError(Exit.USAGE, f"operation {line.strip()!r}: write put K V, get K or del K")


def parse_txn(lines: Iterable[str]) -> Txn:
    """The whole transaction; missing parts are empty."""
    from configsvc.client import Txn

    parts: list[list[str]] = [[], [], []]
    at = 0
    for line in lines:
        if line.strip():
            parts[at].append(line)
        elif at < 2:
            at += 1
        else:
            break
    made = Txn().when(*(parse_compare(line) for line in parts[0]))
    made.then(*(parse_operation(line) for line in parts[1]))
    return made.otherwise(*(parse_operation(line) for line in parts[2]))


def run_txn(session: Session) -> int:
    """0 when the comparisons held, 1 when not: the other part ran then."""
    txn = parse_txn(sys.stdin)
    answer = session.client.do(txn.operation(), why=session.why)
    if session.out.as_json:
        session.out.json(
            {
                "succeeded": answer.succeeded,
                "revision": answer.header.revision,
                "responses": [_response_json(one) for one in answer.responses],
            }
        )
    else:
        session.out.line("SUCCESS" if answer.succeeded else "FAILURE")
        for one in answer.responses:
            if one.HasField("response_range"):
                for kv in one.response_range.kvs:
                    session.out.line(f"{escape(kv.key)} = {escape(kv.value)}")
            elif one.HasField("response_delete_range"):
                session.out.line(f"{one.response_delete_range.deleted} deleted")
            else:
                session.out.line("ok")
    return Exit.OK if answer.succeeded else Exit.NO


def _response_json(one: rpc.ResponseOp) -> dict[str, Any]:
    if one.HasField("response_range"):
        return {"get": [kv_json(kv) for kv in one.response_range.kvs]}
    if one.HasField("response_delete_range"):
        return {"deleted": one.response_delete_range.deleted}
    return {"put": True}
