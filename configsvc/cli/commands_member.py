"""``member``: who belongs to the cluster, and changing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from configsvc.cli.arguments import Commands, Parser, add_why, add_yes
from configsvc.cli.exits import CliError, Exit
from configsvc.errors import UnhealthyError

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.proto import rpc_pb2 as rpc

_URLS = "of the new member, more of them with commas"


def register(commands: Commands) -> None:
    """Add the commands."""
    member = commands.group("member", "who belongs to the cluster")
    member.add("list", "all members", run_member_list)
    add = member.add("add", "add a member, to be started afterwards", run_member_add)
    _newcomer_arguments(add)
    add.add_argument("--learner", action="store_true", help="it does not vote until promoted")
    add_why(add)
    remove = member.add("remove", "remove a member for ever", run_member_remove)
    member_argument(remove)
    add_why(remove)
    add_yes(remove)
    update = member.add("update", "replace a member's peer URLs", run_member_update)
    member_argument(update)
    update.add_argument("peer_urls", metavar="PEER_URL", nargs="+")
    add_why(update)
    promote = member.add("promote", "let a learner vote", run_member_promote)
    member_argument(promote)
    add_why(promote)
    replace = member.add(
        "replace",
        "put a new member in an old one's place; say it again until it is done",
        run_member_replace,
    )
    member_argument(replace)
    _newcomer_arguments(replace)
    add_why(replace)
    add_yes(replace)


def member_argument(parser: Parser) -> None:
    """The member that a command is about."""
    parser.add_argument("member", metavar="MEMBER", help="a member's id (hex) or name")


def _newcomer_arguments(parser: Parser) -> None:
    parser.add_argument(
        "words", metavar="NAME|PEER_URL", nargs="*", help="the new member's name, its peer URLs"
    )
    parser.add_argument("--peer-urls", metavar="URLS", default="", help=_URLS)


def _newcomer(session: Session) -> tuple[str, list[str]]:
    """Name and peer URLs of the new member, given in etcdctl's way or as words.

    Raises:
        CliError: no URL, or more than one name.
    """
    words = session.args.words
    urls = [word for word in words if "://" in word]
    urls += [url for url in session.args.peer_urls.split(",") if url]
    names = [word for word in words if "://" not in word]
    if not urls or len(names) > 1:
        raise CliError(Exit.USAGE, "name the new member's peer URLs, and its name once at most")
    return names[0] if names else "NAME", urls


def list_members(session: Session) -> list[rpc.Member]:
    """All members, as the cluster knows them."""
    from configsvc.client import administration

    return list(session.client.do(administration.member_list()).members)


def find_member(members: list[rpc.Member], text: str) -> rpc.Member:
    """The member with this id or name.

    Raises:
        CliError: there is none, or the name stands for several.
    """
    found = _matching(members, text)
    if len(found) != 1:
        known = ", ".join(f"{one.ID:x} ({one.name or 'not started'})" for one in members)
        raise CliError(Exit.NO, f"{text}: not one member; there are {known}")
    return found[0]


def _matching(members: list[rpc.Member], text: str) -> list[rpc.Member]:
    return [one for one in members if text == f"{one.ID:x}" or text == one.name]


def _show_members(session: Session, members: list[rpc.Member]) -> None:
    if session.out.as_json:
        session.out.json([_member_json(member) for member in members])
        return
    rows = [
        (
            f"{member.ID:x}",
            member.name or "-",
            "started" if member.name else "not started",
            "learner" if member.isLearner else "voter",
            ",".join(member.peerURLs),
            ",".join(member.clientURLs) or "-",
        )
        for member in members
    ]
    session.out.table(("ID", "NAME", "STATE", "VOTE", "PEER URLS", "CLIENT URLS"), rows)


def _member_json(member: rpc.Member) -> dict[str, Any]:
    return {
        "id": f"{member.ID:x}",
        "name": member.name,
        "started": bool(member.name),
        "learner": member.isLearner,
        "peer_urls": list(member.peerURLs),
        "client_urls": list(member.clientURLs),
    }


def run_member_list(session: Session) -> int:
    _show_members(session, list_members(session))
    return Exit.OK


def _add(session: Session, *, learner: bool) -> None:
    """Add the newcomer and say how to start it."""
    from configsvc.client import administration

    name, urls = _newcomer(session)
    answer = session.client.do(administration.member_add(urls, learner=learner), why=session.why)
    if session.out.as_json:
        session.out.json(_member_json(answer.member))
        return
    added = answer.member.ID
    cluster = [
        f"{name if added == one.ID else one.name or 'NAME'}={url}"
        for one in answer.members
        for url in one.peerURLs
    ]
    session.out.line(f"added {added:x}; give it a certificate with this id, then start it with")
    session.out.line(f"  --initial-cluster-state existing --initial-cluster {','.join(cluster)}")


def run_member_add(session: Session) -> int:
    _add(session, learner=session.args.learner)
    return Exit.OK


def run_member_remove(session: Session) -> int:
    member = find_member(list_members(session), session.args.member)
    _remove(session, member, "will never be able to join again")
    session.out.done(f"removed {member.ID:x}", id=f"{member.ID:x}")
    return Exit.OK


def _remove(session: Session, member: rpc.Member, consequence: str) -> None:
    from configsvc.client import administration

    session.confirm([f"member {member.ID:x} ({member.name or 'not started'}) {consequence}"])
    session.client.do(administration.member_remove(member.ID), why=session.why)


def run_member_update(session: Session) -> int:
    from configsvc.client import administration

    args = session.args
    member = find_member(list_members(session), args.member)
    operation = administration.member_update(member.ID, args.peer_urls)
    answer = session.client.do(operation, why=session.why)
    _show_members(session, list(answer.members))
    return Exit.OK


def run_member_promote(session: Session) -> int:
    from configsvc.client import administration

    member = find_member(list_members(session), session.args.member)
    answer = session.client.do(administration.member_promote(member.ID), why=session.why)
    _show_members(session, list(answer.members))
    return Exit.OK


def run_member_replace(session: Session) -> int:
    """One step: add as a learner, promote, remove; what is done already is found in the list.

    A cluster that is too small without the old member takes nobody in before it is gone.
    """
    from configsvc.client import administration

    members = list_members(session)
    _, urls = _newcomer(session)
    new = next((one for one in members if sorted(one.peerURLs) == sorted(urls)), None)
    if new is None:
        old = find_member(members, session.args.member)
        _begin_replacing(session, old)
        return Exit.OK
    old_ones = _matching([one for one in members if one.ID != new.ID], session.args.member)
    if not new.name:
        raise CliError(Exit.UNAVAILABLE, f"{new.ID:x} was added and has not started yet")
    if new.isLearner:
        session.client.do(administration.member_promote(new.ID), why=session.why)
    for old in old_ones:
        _remove(session, old, f"is removed for ever; {new.ID:x} is in its place")
    session.out.done(f"{new.ID:x} ({new.name}) is in its place", id=f"{new.ID:x}")
    return Exit.OK


def _begin_replacing(session: Session, old: rpc.Member) -> None:
    session.confirm([f"member {old.ID:x} ({old.name or 'not started'}) is to be replaced for ever"])
    try:
        _add(session, learner=True)
    except UnhealthyError:
        session.args.yes = True  # it was asked
        _remove(session, old, "is lost")
        _add(session, learner=True)
    if not session.out.as_json:
        session.out.line("then say this again: it promotes the new member and removes the old one")
