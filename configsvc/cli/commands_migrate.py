"""``migrate from-etcd|to-etcd|verify``: over from etcd, back, and the proof that both agree.

Carried: keys with values and leases, users, roles. Not carried: revisions, versions, history,
passwords. The other end's connection is told by ``--etcd-…``, ours as for every command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configsvc.cli.arguments import Commands, Parser, add_why, add_yes, number
from configsvc.cli.exits import Exit
from configsvc.cli.output import escape, json_bytes

if TYPE_CHECKING:
    from configsvc.cli.migrate_rights import Difference
    from configsvc.cli.migrate_run import Migration
    from configsvc.cli.migrate_verify import Compared
    from configsvc.cli.session import Session

_EPILOG = """\
Goes on where an earlier run stopped. Refuses to touch keys that hold other values, and looks
through everything before it writes anything. Passwords cannot be read from either side: the end
of the output names who needs a new one. With --follow it keeps up with changes until it is
interrupted (which is how a cut-over ends: stop the writers, interrupt, verify)."""


def register(commands: Commands) -> None:
    """Add the commands."""
    migrate = commands.group("migrate", "take over from etcd, or go back")
    for name, help_, run in (
        ("from-etcd", "copy an etcd cluster into this one", run_from_etcd),
        ("to-etcd", "copy this cluster into an etcd", run_to_etcd),
    ):
        parser = _shared(migrate.add(name, help_, run, epilog=_EPILOG))
        parser.add_argument("--follow", action="store_true", help="then apply changes as they come")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
        parser.add_argument("--overwrite", action="store_true", help="replace values that differ")
        parser.add_argument(
            "--prune", action="store_true", help="delete keys that the source does not have"
        )
        parser.add_argument("--restart", action="store_true", help="ignore the state file")
        parser.add_argument(
            "--state", metavar="FILE", help="where it stands (~/.local/state/configctl/migrate-…)"
        )
        add_why(parser)
        add_yes(parser)
    verify = _shared(migrate.add("verify", "compare etcd with this cluster", run_verify))
    verify.add_argument(
        "--depth",
        type=number(),
        default=1,
        metavar="N",
        help="key parts that make a prefix; 0: none",
    )


def _shared(parser: Parser) -> Parser:
    etcd = parser.add_argument_group("the etcd cluster")
    etcd.add_argument("--etcd-endpoints", required=True, metavar="URLS")
    etcd.add_argument("--etcd-cacert", metavar="FILE", help="its CA, PEM")
    etcd.add_argument("--etcd-cert", metavar="FILE", help="a client certificate for it, PEM")
    etcd.add_argument("--etcd-key", metavar="FILE", help="that certificate's private key")
    etcd.add_argument("--etcd-user", metavar="NAME", help="a user with role root")
    etcd.add_argument("--etcd-password-file", metavar="FILE", help="- is standard input")
    parser.add_argument(
        "--prefix", action="append", default=[], metavar="P", help="only these keys; repeatable"
    )
    parser.add_argument("--skip-users", action="store_true", help="keys and leases only")
    return parser


def run_from_etcd(session: Session) -> int:
    return _migrate(session, from_etcd=True)


def run_to_etcd(session: Session) -> int:
    return _migrate(session, from_etcd=False)


def _migrate(session: Session, *, from_etcd: bool) -> int:
    from configsvc.cli.migrate_ends import open_ends, spans_of
    from configsvc.cli.migrate_run import Migration
    from configsvc.cli.migrate_state import StateFile, default_path
    from configsvc.cli.stopping import orderly

    args = session.args
    if args.prune:
        session.confirm(["keys that the source does not have will be deleted in the target"])
    with orderly(), open_ends(session, from_etcd=from_etcd) as ends:
        path = default_path(session.environment, ends.source.cluster, ends.target.cluster)
        file = StateFile(Path(args.state) if args.state else path)
        migration = Migration(session, ends, spans_of(args.prefix), file)
        if args.dry_run:
            return _show_plan(session, migration)
        return migration.run()


def _show_plan(session: Session, migration: Migration) -> int:
    plan, rights = migration.look()
    counts = {verdict.value: count for verdict, count in plan.counts.items()}
    roles, users = rights.missing() if rights is not None else ([], [])
    if session.out.as_json:
        session.out.json({"keys": counts, "roles": roles, "users": users})
    else:
        for word, count in counts.items():
            session.out.line(f"{count:>12,}  keys {word}")
        for verdict, keys in plan.named.items():
            if verdict.name in ("OTHER", "TOO_LARGE"):
                for key in keys:
                    session.out.line(f"{verdict.value}: {escape(key)}")
        for word, names in (("roles", roles), ("users", users)):
            session.out.line(f"{word} to be added: {escape(', '.join(names)) or 'none'}")
    session.out.flush()
    migration.check(plan, rights)
    return Exit.OK


# --- verify ---------------------------------------------------------------------------------------


def run_verify(session: Session) -> int:
    from configsvc.cli.migrate_ends import open_ends, spans_of
    from configsvc.cli.migrate_progress import Progress
    from configsvc.cli.migrate_rights import differences, read_rights
    from configsvc.cli.migrate_verify import compare

    args = session.args
    with open_ends(session, from_etcd=True) as ends:
        compared = compare(ends, spans_of(args.prefix), args.depth, Progress())
        rights: list[Difference] = []
        if not args.skip_users:
            rights = differences(read_rights(ends.source.client), read_rights(ends.target.client))
    same = compared.same and not any(one.counts for one in rights)
    _show_compared(session, compared, rights, same=same)
    return Exit.OK if same else Exit.NO


def _show_compared(
    session: Session, compared: Compared, rights: list[Difference], *, same: bool
) -> None:
    from configsvc.cli.migrate_verify import group_json

    out = session.out
    if out.as_json:
        groups = [
            {
                **json_bytes("prefix", prefix),
                **group_json(group),
                "named": [{**json_bytes("key", key), "what": word} for key, word in group.named],
            }
            for prefix, group in sorted(compared.groups.items())
        ]
        out.json(
            {
                "same": same,
                "etcd_revision": compared.revisions[0],
                "configsvc_revision": compared.revisions[1],
                "prefixes": groups,
                "rights": [one._asdict() for one in rights],
            }
        )
        return
    rows = [
        (
            escape(prefix) or "(all)",
            group.source.keys,
            group.target.keys,
            group.source.hash[:16],
            group.target.hash[:16],
            "same" if group.same else "DIFFERS",
        )
        for prefix, group in sorted(compared.groups.items())
    ]
    out.table(("PREFIX", "ETCD", "CONFIGSVC", "ETCD SHA-256", "CONFIGSVC SHA-256", ""), rows)
    for group in compared.groups.values():
        for key, word in group.named:
            out.line(f"{escape(key)}: {word}")
        if group.differing > len(group.named):
            out.line(f"… and {group.differing - len(group.named):,} more")
    for one in rights:
        note = "" if one.counts else " (not counted)"
        out.line(f"{escape(one.what)}: {one.where}{note}")
