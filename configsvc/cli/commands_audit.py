"""``audit verify|checkpoint|export|proof|keys``: is the record what it claims to be?

``verify`` has exit codes of its own (TE-13): 0 intact, 1 tampered, 2 usage, 3 incomplete,
4 internal error. Any exception is 4.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from configsvc.cli.arguments import Commands, number
from configsvc.cli.exits import CliError, Exit, exit_of, line_of
from configsvc.cli.output import escape
from configsvc.errors import ConfigServiceError, DecodeError

if TYPE_CHECKING:
    from configsvc.cli.audit_judge import Finding
    from configsvc.cli.audit_online import MemberLog
    from configsvc.cli.audit_pins import Pins
    from configsvc.cli.session import Session

_INTERNAL = 4


def register(commands: Commands) -> None:
    """Add the commands."""
    audit = commands.group("audit", "the audit log and its proofs")
    verify = audit.add("verify", "prove that nothing was altered", _guarded(run_verify))
    source = verify.add_mutually_exclusive_group()
    source.add_argument("--from", dest="source", metavar="DIR", help="an export")
    source.add_argument("--proof", metavar="FILE", help="a single proof; with --leaf")
    source.add_argument("--data-dir", metavar="DIR", help="a member's data directory")
    source.add_argument("--db", metavar="PATH", help="a member's history database")
    verify.add_argument(
        "--seal-key",
        "--encryption-key-file",
        metavar="FILE",
        help="the member's key file, for its data",
    )
    verify.add_argument("--leaf", metavar="FILE", help="the record that a proof is about")
    verify.add_argument("--keys", metavar="FILE", help="pinned verifier keys, one a line")
    verify.add_argument(
        "--threshold", type=number(1), metavar="N", help="signatures wanted (majority)"
    )
    verify.add_argument("--checkpoint", metavar="FILE", help="an older head that must still hold")
    verify.add_argument(
        "--local", action="store_true", help="members' own streams too, against their anchors"
    )
    verify.add_argument(
        "--records-only", action="store_true", help="do not ask for values and openings"
    )

    audit.add("checkpoint", "print the newest signed head: keep it elsewhere", run_checkpoint)
    export = audit.add("export", "write the log to a directory", run_export)
    export.add_argument("directory", metavar="DIR")
    export.add_argument("--values", action="store_true", help="stored values too, in the clear")
    proof = audit.add("proof", "prove that one record is in the log", run_proof)
    proof.add_argument("seq", type=number(), metavar="SEQ")
    proof.add_argument("--leaf", metavar="FILE", help="write the record's bytes here")
    local = audit.add("local", "print a member's own records: refusals, logins, starts", run_local)
    local.add_argument("--from", dest="first", type=number(), default=0, metavar="SEQ")
    local.add_argument("--limit", type=number(), default=0, metavar="N", help="0: all")
    audit.add("keys", "print the verifier keys that a member names, to be pinned", run_keys)


def _guarded(run: Callable[[Session], int]) -> Callable[[Session], int]:
    """Whatever goes wrong while verifying must not look like an answer."""

    def guarded(session: Session) -> int:
        try:
            return run(session)
        except ConfigServiceError as error:
            code = exit_of(error)
            session.warn(line_of(error))
            return int(Exit.USAGE) if code in (Exit.USAGE, Exit.CONFIG) else _INTERNAL
        except Exception as error:  # noqa: BLE001 - TE-13: any exception is 4
            session.warn(f"the verifier failed: {type(error).__name__}")
            return _INTERNAL

    return guarded


# --- verify ---------------------------------------------------------------------------------------


def run_verify(session: Session) -> int:
    args = session.args
    if args.proof:
        return _verify_proof(session)
    if args.source:
        findings = [_verify_export(session)]
    elif args.db or args.data_dir:
        findings = [_verify_database(session)]
    else:
        findings = _verify_members(session)
    return _report(session, findings)


def _report(session: Session, findings: list[Finding]) -> int:
    from configsvc.cli.audit_judge import finding_json, finding_line, worst

    verdict = worst(findings)
    if session.out.as_json:
        session.out.json(
            {
                "verdict": verdict.name.lower(),
                "logs": [finding_json(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            session.out.line(escape(finding_line(finding)))
        session.out.line("OK" if verdict == 0 else verdict.name)
    return int(verdict)


def _kept(session: Session) -> list[str]:
    """The note named by ``--checkpoint``: kept from earlier, it must still hold.

    It is one more signed head, so that a log that brings none can be proven by it.
    """
    from configsvc.cli.audit_judge import head_of

    path = session.args.checkpoint
    if not path:
        return []
    try:
        note = Path(path).read_text(encoding="utf-8")
        head_of(note)
        return [note]
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise CliError(Exit.USAGE, f"{path}: no checkpoint: {error}") from None


def _pins(session: Session, offered: list[str], what: str) -> Pins | None:
    """Pinned keys; without ``--keys`` the offered ones stand in, and that is said."""
    from configsvc.audit.checkpoint import decode_key
    from configsvc.cli.audit_pins import make_pins, read_pins

    args = session.args
    if args.keys:
        return read_pins(args.keys, args.threshold)
    if not offered:
        return None
    session.warn(
        f"the keys are those that {what} names: pin yours with --keys (configctl audit keys)"
    )
    keys = [decode_key(line) for line in offered]
    return make_pins(keys, args.threshold, own=False, what=what)


def _verify_export(session: Session) -> Finding:
    from configsvc.audit.verify import Verdict
    from configsvc.cli.audit_files import ExportReader
    from configsvc.cli.audit_judge import Finding, judge

    path = session.args.source
    try:
        export = ExportReader(Path(path))
        pins = _pins(session, export.keys, "the export")
    except DecodeError as error:
        return Finding(path, Verdict.TAMPERED, str(error), -1, 0, 0, False)
    return judge(
        path,
        export.entries(),
        export.actors,
        [export.note],
        pins,
        kept=_kept(session),
        records_only=session.args.records_only,
    )


def _verify_database(session: Session) -> Finding:
    from configsvc.audit.checkpoint import encode_key
    from configsvc.cli.audit_database import DatabaseLog, find_database
    from configsvc.cli.audit_judge import judge

    args = session.args
    if not args.seal_key:
        raise CliError(Exit.USAGE, "a member's data is sealed: name its key file with --seal-key")
    path = Path(args.db) if args.db else find_database(Path(args.data_dir))
    database = DatabaseLog(path, args.seal_key)
    try:
        offered = [encode_key(key) for key in database.keys(database.origin)]
        pins = _pins(session, offered, "the database")
        origin = pins.origin if pins is not None else database.origin
        return judge(
            str(path),
            database.entries(),
            database.actors,
            database.notes(origin),
            pins,
            kept=_kept(session),
            whole=database.head(origin),
            records_only=args.records_only,
        )
    finally:
        database.close()


def _verify_members(session: Session) -> list[Finding]:
    """Every member's own copy, and every member's head against every copy."""
    from configsvc.cli.audit_judge import judge, unanswered
    from configsvc.cli.audit_online import MemberLog
    from configsvc.client import ClientError

    values = not session.args.records_only
    logs: list[MemberLog] = []
    findings: list[Finding] = []
    for endpoint in session.client.ring.all:
        try:
            logs.append(MemberLog(session.client, endpoint, values=values))
        except ClientError as error:
            findings.append(unanswered(str(endpoint), line_of(error)))
    if not logs:
        return findings
    notes = _common_notes(logs)
    pins = _member_pins(session, logs[0])
    kept = _kept(session)
    judged = [
        judge(
            str(log.endpoint),
            log.entries(),
            log.actors,
            notes,
            pins,
            kept=kept,
            records_only=not values,
        )
        for log in logs
    ]
    return findings + judged + (_verify_local(session, logs, judged) if session.args.local else [])


def _verify_local(session: Session, logs: list[MemberLog], judged: list[Finding]) -> list[Finding]:
    """Every member's own stream against the anchors in the logs that were just verified."""
    from configsvc.cli.audit_local import LocalLog, judge_local

    anchors = {anchor for finding in judged for anchor in finding.anchors}
    ordered = sorted(anchors, key=lambda anchor: anchor.seq)
    return [judge_local(LocalLog(session.client, log.endpoint), ordered) for log in logs]


def _common_notes(logs: list[MemberLog]) -> list[str]:
    """Every member's newest head, and where these differ in size, one that all of them sign.

    A busy cluster grows between two questions: the newest heads alone might never agree.
    """
    from configsvc.cli.audit_judge import head_of
    from configsvc.cli.audit_online import note_at

    notes = [log.note for log in logs]
    sizes = {head_of(note).size for note in notes}
    if len(sizes) > 1 and min(sizes) > 0:
        notes += [note_at(log.client, log.endpoint, min(sizes)) for log in logs]
    return notes


def _member_pins(session: Session, log: MemberLog) -> Pins | None:
    from configsvc.cli.audit_judge import head_of

    offered: list[str] = []
    if not session.args.keys:
        log.read_keys()
        offered = log.key_lines(head_of(log.note).origin)
        log.keys.clear()
    return _pins(session, offered, str(log.endpoint))


def _verify_proof(session: Session) -> int:
    from configsvc.audit.proof_text import decode_proof, verify_proof
    from configsvc.cli.audit_pins import check_signature, read_pins

    args = session.args
    if not args.leaf or not args.keys:
        raise CliError(Exit.USAGE, "a proof needs --leaf and --keys")
    pins = read_pins(args.keys, args.threshold)
    try:
        leaf, text = Path(args.leaf).read_bytes(), Path(args.proof).read_bytes()
    except OSError as error:
        raise CliError(Exit.USAGE, f"{error.filename}: {error.strerror}") from None
    problem = "the record is not in the signed tree"
    try:
        proof = decode_proof(text.decode("utf-8"))
        holds = verify_proof(proof, leaf, pins.origin, pins.keys, pins.threshold, check_signature)
    except UnicodeDecodeError:
        holds, problem = False, "proof is not UTF-8"
    except DecodeError as error:
        holds, problem = False, str(error)
    if holds:
        session.out.done(f"OK seq {proof.seq} is in the signed tree", seq=proof.seq)
        return 0
    session.warn(f"TAMPERED {args.proof}: {problem}")
    return 1


# --- evidence -------------------------------------------------------------------------------------


def run_checkpoint(session: Session) -> int:
    from configsvc.client import inquiries

    answer = session.client.do(inquiries.checkpoint())
    note = _signed_by_all(session, answer.note)
    if session.out.as_json:
        session.out.json({"note": note, "size": answer.size, "root": answer.root.hex()})
    else:
        session.out.line(note.rstrip("\n"))
    return Exit.OK


def _signed_by_all(session: Session, note: str) -> str:
    """The same head with the signatures of all members that answer and agree.

    A member asked right after another one may lag, and one that is away cannot sign: their
    signatures are missing then, which the verifier counts.
    """
    from configsvc.cli.audit_judge import head_of
    from configsvc.cli.audit_online import note_at
    from configsvc.cli.audit_pins import join_notes

    head = head_of(note)
    notes = [note]
    for endpoint in session.client.ring.all if head.size else ():
        try:
            other = note_at(session.client, endpoint, head.size)
            if head_of(other) == head:
                notes.append(other)
            else:
                session.warn(f"{endpoint} signs another root at size {head.size}: audit verify")
        except ConfigServiceError as error:
            session.warn(f"{endpoint} did not sign: {line_of(error)}")
    return join_notes(notes)[0]


def run_local(session: Session) -> int:
    """One JSON object per record, of the member that the first endpoint names."""
    from configsvc.audit.leaf import decode_leaf
    from configsvc.audit.render import to_json
    from configsvc.cli.audit_local import LocalLog

    args = session.args
    log = LocalLog(session.client, session.client.ring.current)
    for each in log.leaves(args.first, args.limit):
        opened = {"reason": each.reason, "ticket": each.ticket}
        actor = log.actors.get(bytes(decode_leaf(each.leaf)["actor"]), b"")  # type: ignore[arg-type]
        session.out.json(to_json(each.leaf, actor, {k: v for k, v in opened.items() if v}))
    return Exit.OK


def run_export(session: Session) -> int:
    from configsvc.cli.audit_files import ExportWriter
    from configsvc.cli.audit_judge import head_of
    from configsvc.cli.audit_online import MemberLog

    args = session.args
    writer = ExportWriter(Path(args.directory))
    known: set[bytes] = set()
    try:
        log = MemberLog(session.client, session.client.ring.current, values=args.values)
        head = head_of(log.note)
        for entry in log.entries():
            for hashed in log.actors.keys() - known:
                writer.actor(hashed, log.actors[hashed])
                known.add(hashed)
            if entry.seq < head.size:  # what came in after the head is for the next export
                writer.entry(entry)
        if writer.leaves < head.size:
            raise CliError(
                Exit.NO, f"{log.endpoint} sent {writer.leaves} of {head.size} records: try again"
            )
        writer.finish(_signed_by_all(session, log.note), log.key_lines(head.origin))
    finally:
        writer.abandon()
    session.out.done(
        f"{args.directory}: {writer.leaves} records", directory=args.directory, leaves=head.size
    )
    return Exit.OK


def run_proof(session: Session) -> int:
    from configsvc.audit.proof_text import decode_proof, encode_proof
    from configsvc.client import inquiries

    answer = session.client.do(inquiries.inclusion(session.args.seq))
    if session.args.leaf:
        try:
            Path(session.args.leaf).write_bytes(answer.leaf)
        except OSError as error:
            raise CliError(Exit.USAGE, f"{session.args.leaf}: {error.strerror}") from None
    proof = decode_proof(answer.proof)
    text = encode_proof(proof._replace(note=_signed_by_all(session, proof.note)))
    if session.out.as_json:
        session.out.json({"proof": text, "tree_size": answer.tree_size})
    else:
        session.out.line(text.rstrip("\n"))
    return Exit.OK


def run_keys(session: Session) -> int:
    from configsvc.cli.audit_judge import head_of
    from configsvc.cli.audit_online import MemberLog

    log = MemberLog(session.client, session.client.ring.current, values=False)
    log.read_keys()
    lines = log.key_lines(head_of(log.note).origin)
    if session.out.as_json:
        session.out.json(lines)
        return Exit.OK
    print("compare these with what each member's own host says", file=sys.stderr)
    for line in lines:
        session.out.line(line)
    return Exit.OK
