"""``debug log``: what a member's write-ahead log holds, read without the member.

Values are left out unless asked for, password hashes always. The log lies sealed: the member's
key file opens it. Without it the frames are shown, whose heads are not sealed.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from configsvc.cli.arguments import Commands, number
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape
from configsvc.cli.times import show_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from configsvc.cli.session import Session
    from configsvc.raft.messages import Entry, HardState
    from configsvc.storage.disk import OsDisk
    from configsvc.storage.wal.inspect import FrameView

_VALUES: Final = frozenset({"value", "salt", "compiled", "policy_compiled"})
_HASHES: Final = frozenset({"password_hash"})


def register(commands: Commands) -> None:
    """Add the command."""
    debug = commands.group("debug", "for looking under the hood")
    log = debug.add("log", "the entries of a member's write-ahead log", run_log)
    log.add_argument("directory", metavar="DIR", nargs="?", default="", help="its data, or the log")
    log.add_argument("--data-dir", metavar="DIR", default="", help="the same")
    log.add_argument(
        "--seal-key", "--encryption-key-file", metavar="FILE", help="the member's key file"
    )
    log.add_argument("--from", dest="first", type=number(), default=0, metavar="INDEX")
    log.add_argument("--limit", type=number(), default=0, metavar="N")
    log.add_argument("--frames", action="store_true", help="frames instead of entries")
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


@contextmanager
def _open_log(session: Session) -> Iterator[OsDisk]:
    from configsvc.storage.disk import OsDisk
    from configsvc.storage.wal.segments import segment_numbers

    args = session.args
    if bool(args.directory) == bool(args.data_dir):
        raise CliError(Exit.USAGE, "name the member's data directory, once")
    directory = Path(args.directory or args.data_dir)
    if (directory / "log").is_dir():
        directory = directory / "log"
    if not directory.is_dir():
        raise CliError(Exit.USAGE, f"{directory}: no such directory")
    disk = OsDisk(directory)
    try:
        if not segment_numbers(disk):
            raise CliError(Exit.NO, f"{directory}: holds no log")
        yield disk
    finally:
        disk.close()


def _frames(session: Session) -> Iterator[FrameView]:
    from configsvc.storage.seal.keyfile import KeyFile
    from configsvc.storage.wal.inspect import iterate_frames

    key = KeyFile.load(session.args.seal_key)
    with _open_log(session) as disk:
        yield from iterate_frames(disk, [key])


class _Frame(NamedTuple):
    """What the head of a frame says."""

    segment: int
    offset: int
    number: int
    kind: int
    hard_state: HardState
    first: int  # 0 without entries
    last: int


def _opened(session: Session) -> Iterator[_Frame]:
    """All frames, each one's content checked as well."""
    for one in _frames(session):
        first, last = (one.entries[0].index, one.entries[-1].index) if one.entries else (0, 0)
        yield _Frame(one.segment, one.offset, one.number, one.kind, one.hard_state, first, last)


def _heads(session: Session) -> Iterator[_Frame]:
    """All frames without a key; the log ends where there is none."""
    from configsvc.storage.wal.format import BLOCK, FIRST_FRAME, FrameDecoder, TooNewError
    from configsvc.storage.wal.segments import (
        read_header,
        read_whole,
        segment_name,
        segment_numbers,
        too_new,
    )

    with _open_log(session) as disk:
        numbers = segment_numbers(disk)
        for segment in numbers:
            header = read_header(disk, segment, newest=segment == numbers[-1])
            data, at = read_whole(disk, segment_name(segment)), FIRST_FRAME
            decoder = FrameDecoder(None, header.salt)
            try:
                while (head := decoder.header(data, at)) is not None:
                    first, last = head.first_index, head.last_index
                    yield _Frame(segment, at, head.number, head.kind, head.hard_state, first, last)
                    at += head.blocks * BLOCK
            except TooNewError as error:
                too_new(segment_name(segment), at, error)


def _run_frames(session: Session) -> int:
    for frame in _opened(session) if session.args.seal_key else _heads(session):
        _show_frame(session, frame)
    if not session.args.frames:
        session.warn("the entries are sealed: name the member's key file with --seal-key")
    return Exit.OK


def run_log(session: Session) -> int:
    """Entries as they count, or with ``--frames`` everything that was written."""
    args = session.args
    if args.frames or not args.seal_key:
        return _run_frames(session)
    entries: dict[int, Entry] = {}
    hard = None
    for frame in _frames(session):
        hard = frame.hard_state
        if frame.installed is not None:
            entries.clear()
        for entry in frame.entries:
            entries[entry.index] = entry
        if frame.entries:  # what an old leader wrote behind this is void
            for index in [one for one in entries if one > frame.entries[-1].index]:
                del entries[index]
    wanted = [entries[index] for index in sorted(entries) if index >= args.first]
    for entry in wanted[: args.limit or None]:
        _show_entry(session, entry)
    if hard is not None and not session.out.as_json:
        session.out.line(
            f"{len(entries)} entries, term {hard.term}, vote {hard.vote:x}, commit {hard.commit}"
        )
    return Exit.OK


def _show_entry(session: Session, entry: Entry) -> None:
    shown = entry_json(entry, values=session.args.values)
    if session.out.as_json:
        session.out.json(shown)
        return
    what = shown.get("op", shown["kind"])
    who = f"{shown.get('actor', '')} {shown.get('time', '')}".strip()
    line = f"{entry.index} term {entry.term} {what} {shown['bytes']} B {who}"
    session.out.line(escape(line.rstrip()))


def _show_frame(session: Session, frame: _Frame) -> None:
    from configsvc.storage.wal.format import FrameKind

    kind = FrameKind(frame.kind).name.lower()
    if session.out.as_json:
        session.out.json(
            {
                "segment": frame.segment,
                "offset": frame.offset,
                "frame": frame.number,
                "kind": kind,
                "term": frame.hard_state.term,
                "commit": frame.hard_state.commit,
                "first": frame.first,
                "last": frame.last,
            }
        )
        return
    span = f" entries {frame.first} to {frame.last}" if frame.first else ""
    hard = f"term {frame.hard_state.term} commit {frame.hard_state.commit}"
    place = f"segment {frame.segment:x} offset {frame.offset}"
    session.out.line(f"{place} frame {frame.number} {kind} {hard}{span}")
