"""``login user role``: identities and etcd-style rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configsvc.cli import secrets
from configsvc.cli.arguments import Commands, Parser, add_why, add_yes, key_bytes
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape, json_bytes

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.client import Operation
    from configsvc.proto import auth_pb2

_KINDS = ("read", "write", "readwrite")


def register(commands: Commands) -> None:
    """Add the commands."""
    login = commands.add("login", "turn a password into a token for the next minutes", run_login)
    login.add_argument("name", metavar="USER")
    _password_file(login, dest="login_password_file")

    user = commands.group("user", "users and their roles")
    user.add("list", "all users", run_user_list)
    _named(user.add("get", "a user's roles", run_user_get))
    add = _named(user.add("add", "a new user", run_user_add))
    how = add.add_mutually_exclusive_group()
    how.add_argument("--no-password", action="store_true", help="certificate only (the default)")
    how.add_argument("--ask-password", action="store_true", help="ask for a password")
    _password_file(how)
    add_why(add)
    delete = _named(user.add("delete", "delete a user", run_user_delete))
    add_why(delete)
    add_yes(delete)
    passwd = _named(user.add("passwd", "set a user's password", run_user_passwd))
    _password_file(passwd)
    add_why(passwd)
    for command in (
        _named(user.add("grant", "give a user a role", run_user_grant)),
        _named(user.add("revoke", "take a role away", run_user_revoke)),
    ):
        command.add_argument("role", metavar="ROLE")
        add_why(command)

    role = commands.group("role", "roles and their key ranges")
    role.add("list", "all roles", run_role_list)
    _named(role.add("get", "a role's permissions", run_role_get))
    add_why(_named(role.add("add", "a new role", run_role_add)))
    drop = _named(role.add("delete", "delete a role", run_role_delete))
    add_why(drop)
    add_yes(drop)
    grant = _named(role.add("grant", "let a role read or write keys", run_role_grant))
    grant.add_argument("kind", choices=_KINDS)
    _span(grant)
    revoke = _named(role.add("revoke", "take exactly this range away", run_role_revoke))
    _span(revoke)


def _named(parser: Parser) -> Parser:
    parser.add_argument("name", metavar="NAME")
    return parser


def _password_file(parser: Any, dest: str = "password_file") -> None:
    """One's own for ``login``, else the named user's: those two must not be mixed up."""
    help_ = "read the password from here; - is standard input"
    parser.add_argument("--password-file", metavar="FILE", help=help_, dest=dest)


def _span(parser: Parser) -> None:
    parser.add_argument("key_name", metavar="KEY")
    parser.add_argument("range_end", metavar="END", nargs="?", help="all keys up to END, not END")
    parser.add_argument("--prefix", action="store_true", help="all keys that start with KEY")
    parser.add_argument("--from-key", action="store_true", help="all keys from KEY on")
    add_why(parser)


# --- login ----------------------------------------------------------------------------------------


def run_login(session: Session) -> int:
    session.args.user = session.args.name
    token = session.client.login()
    if not token:
        raise CliError(Exit.NO, "rights are off here: no token is needed")
    settings = session.settings
    cache = secrets.TokenCache(session.environment)
    cache.store(settings.user, session.certificate(settings), settings.endpoints, token)
    session.out.done(f"logged in; go on with --user {escape(settings.user)}")
    return Exit.OK


# --- users ----------------------------------------------------------------------------------------


def _change(session: Session, operation: Operation[Any], done: str) -> int:
    session.client.do(operation, why=session.why)
    session.out.done(done)
    return Exit.OK


def _show_names(session: Session, names: list[str]) -> int:
    if session.out.as_json:
        session.out.json(names)
    else:
        for name in names:
            session.out.line(escape(name))
    return Exit.OK


def run_user_list(session: Session) -> int:
    from configsvc.client import administration

    return _show_names(session, list(session.client.do(administration.user_list()).users))


def run_user_get(session: Session) -> int:
    from configsvc.client import administration

    name = session.args.name
    return _show_names(session, list(session.client.do(administration.user_get(name)).roles))


def _new_password(session: Session) -> str:
    if session.args.password_file:
        return secrets.read_secret(session.args.password_file, "password file")
    return secrets.ask_password(f"New password of {escape(session.args.name)}", twice=True)


def run_user_add(session: Session) -> int:
    from configsvc.client import administration

    args = session.args
    wanted = args.ask_password or args.password_file
    password = _new_password(session) if wanted else None
    return _change(
        session, administration.user_add(args.name, password), f"user {escape(args.name)} added"
    )


def run_user_delete(session: Session) -> int:
    from configsvc.client import administration

    name = session.args.name
    session.confirm([f"user {name} loses all access at once, running watches included"])
    return _change(session, administration.user_delete(name), f"user {escape(name)} deleted")


def run_user_passwd(session: Session) -> int:
    from configsvc.client import administration

    name = session.args.name
    operation = administration.user_change_password(name, _new_password(session))
    return _change(session, operation, f"password of {escape(name)} changed")


def run_user_grant(session: Session) -> int:
    from configsvc.client import administration

    name, role = session.args.name, session.args.role
    done = f"user {escape(name)} has role {escape(role)}"
    return _change(session, administration.user_grant_role(name, role), done)


def run_user_revoke(session: Session) -> int:
    from configsvc.client import administration

    name, role = session.args.name, session.args.role
    done = f"user {escape(name)} no longer has role {escape(role)}"
    return _change(session, administration.user_revoke_role(name, role), done)


# --- roles ----------------------------------------------------------------------------------------


def run_role_list(session: Session) -> int:
    from configsvc.client import administration

    return _show_names(session, list(session.client.do(administration.role_list()).roles))


def run_role_add(session: Session) -> int:
    from configsvc.client import administration

    name = session.args.name
    return _change(session, administration.role_add(name), f"role {escape(name)} added")


def run_role_delete(session: Session) -> int:
    from configsvc.client import administration

    name = session.args.name
    session.confirm([f"everybody who has role {name} loses its rights at once"])
    return _change(session, administration.role_delete(name), f"role {escape(name)} deleted")


def show_range(key: bytes, range_end: bytes) -> str:
    """A permission's range in words."""
    from configsvc.client import prefix_end

    if not range_end:
        return escape(key)
    if range_end == b"\0":
        return "all keys" if key in (b"", b"\0") else f"{escape(key)} and all keys after it"
    if key and prefix_end(key) == range_end:
        return f"{escape(key)}*"
    return f"[{escape(key)}, {escape(range_end)})"


def run_role_get(session: Session) -> int:
    from configsvc.client import administration
    from configsvc.proto import auth_pb2

    answer = session.client.do(administration.role_get(session.args.name))
    names = {number: name for name, number in auth_pb2.Permission.Type.items()}
    if session.out.as_json:
        session.out.json(
            [
                {
                    "kind": names.get(one.permType, str(one.permType)).lower(),
                    **json_bytes("key", one.key),
                    **json_bytes("range_end", one.range_end),
                }
                for one in answer.perm
            ]
        )
        return Exit.OK
    session.out.table(
        ("KIND", "KEYS"),
        [(names[one.permType].lower(), show_range(one.key, one.range_end)) for one in answer.perm],
    )
    return Exit.OK


def _permission_span(session: Session) -> tuple[bytes, bytes]:
    from configsvc.client import prefix_span

    args = session.args
    key = key_bytes(args.key_name)
    if sum((args.prefix, args.from_key, args.range_end is not None)) > 1:
        raise CliError(Exit.USAGE, "give one of END, --prefix and --from-key")
    if args.prefix:
        return prefix_span(key)
    if args.from_key:
        return key or b"\0", b"\0"
    return key, key_bytes(args.range_end or "")


def _kind(name: str) -> auth_pb2.Permission.Type:
    from configsvc.proto import auth_pb2

    found: auth_pb2.Permission.Type = getattr(auth_pb2.Permission, name.upper())
    return found


def run_role_grant(session: Session) -> int:
    from configsvc.client import administration

    args = session.args
    span = _permission_span(session)
    done = f"role {escape(args.name)} may {args.kind} {show_range(*span)}"
    operation = administration.role_grant(args.name, _kind(args.kind), *span)
    return _change(session, operation, done)


def run_role_revoke(session: Session) -> int:
    from configsvc.client import administration

    args = session.args
    span = _permission_span(session)
    done = f"role {escape(args.name)} no longer has {show_range(*span)}"
    return _change(session, administration.role_revoke(args.name, *span), done)
