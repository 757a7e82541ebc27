"""``debug log``: what a member's write-ahead log holds, read without the member.

Values are left out unless asked for, password hashes always. The log lies sealed: the member's
key file opens it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from configsvc.cli.arguments import Commands
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.times import show_time

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from configsvc.cli.session import Session
    from configsvc.raft.messages import Entry

_VALUES: Final = frozenset({"value", "salt", "compiled", "policy_compiled"})
_HASHES: Final = frozenset({"password_hash"})


def register(commands: Commands) -> None:
    """Add the command."""
    debug = commands.group("debug", "for looking under the hood")
    log = debug.add("log", "the entries of a member's write-ahead log", run_log)
    log.add_argument("--data-dir", required=True, metavar="DIR", help="the member's, or its wal")
    log.add_argument("--seal-key", required=True, metavar="FILE", help="the member's key file")
    log.add_argument("--from", dest="first", type=int, default=0, metavar="INDEX")
    log.add_argument("--limit", type=int, default=0, metavar="N")
    log.add_argument("--values", action="store_true", help="values too, in the clear")


def redact(message: Message, *, values: bool) -> None:
    """Empty hashes, and values unless wanted, at any depth; in place."""
    hidden = _HASHES if values else _HASHES | _VALUES
    for field, inside in message.ListFields():
        if field.name in hidden:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in inside if field.is_repeated else (inside,):
                redact(part, values=values)


def entry_json(entry: Entry, *, values: bool) -> dict[str, Any]:
    """An entry for display; what cannot be read as a command says so."""
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError

    from configsvc.proto import command_pb2
    from configsvc.raft.messages import EntryKind

    kind = EntryKind(entry.kind).name.lower() if entry.kind in set(EntryKind) else str(entry.kind)
    found: dict[str, Any] = {
        "index": entry.index,
        "term": entry.term,
        "kind": kind,
        "bytes": len(entry.data),
    }
    if not entry.data or entry.kind != EntryKind.NORMAL:
        return found
    command = command_pb2.Command()
    try:
        command.ParseFromString(entry.data)
    except DecodeError:
        return {**found, "unreadable": True}
    found["op"] = command.WhichOneof("op") or "none"
    found["actor"] = f"{command.actor.kind}/{command.actor.name}".rstrip("/")
    found["time"] = show_time(command.time_ns, exact=True)
    redact(command, values=values)
    found["command"] = MessageToDict(command, preserving_proto_field_name=True)
    return found


def run_log(session: Session) -> int:
    from configsvc.storage.disk import OsDisk
    from configsvc.storage.seal.keyfile import KeyFile
    from configsvc.storage.wal.recovery import read_log
    from configsvc.storage.wal.segments import segment_numbers

    args, out = session.args, session.out
    directory = Path(args.data_dir)
    if (directory / "wal").is_dir():
        directory = directory / "wal"
    if not directory.is_dir():
        raise CliError(Exit.USAGE, f"{directory}: no such directory")
    disk = OsDisk(directory)
    try:
        key = KeyFile.load(args.seal_key)
        if not segment_numbers(disk):
            raise CliError(Exit.NO, f"{directory}: holds no log")
        image = read_log(disk, [key])
    finally:
        disk.close()
    entries = [entry for entry in image.entries if entry.index >= args.first]
    for entry in entries[: args.limit or None]:
        shown = entry_json(entry, values=args.values)
        if out.as_json:
            out.json(shown)
        else:
            what = shown.get("op", shown["kind"])
            who = f"{shown.get('actor', '')} {shown.get('time', '')}".strip()
            out.line(f"{entry.index} term {entry.term} {what} {shown['bytes']} B {who}".rstrip())
    if not out.as_json:
        hard = image.hard_state
        out.line(
            f"{len(image.older) + 1} segments, entries {image.first_index} to {image.last_index}, "
            f"term {hard.term}, commit {hard.commit}"
        )
    return Exit.OK
