"""``status alarm defrag move-leader snapshot``: the cluster itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configsvc.cli.arguments import Commands, add_why
from configsvc.cli.commands_member import find_member, list_members, member_argument
from configsvc.cli.exits import CliError, Exit, line_of
from configsvc.errors import ConfigServiceError

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.client import Endpoint
    from configsvc.proto import rpc_pb2 as rpc

_HASH_BYTES = 32  # SHA-256, the last message of a snapshot


def register(commands: Commands) -> None:
    """Add the commands."""
    status = commands.add("status", "each member's own view", run_status)
    status.add_argument("--cluster", action="store_true", help="ask every member there is")

    alarm = commands.group("alarm", "what stops writes")
    alarm.add("list", "raised alarms", run_alarm_list)
    disarm = alarm.add("disarm", "lower all alarms", run_alarm_disarm)
    add_why(disarm)

    defrag = commands.add("defrag", "give unused space back, one member at a time", run_defrag)
    defrag.add_argument("--cluster", action="store_true", help="every member there is")

    move = commands.add("move-leader", "hand leadership to another member", run_move_leader)
    member_argument(move)
    add_why(move)

    snapshot = commands.group("snapshot", "etcd's snapshot stream")
    save = snapshot.add("save", "write a snapshot of one member to a file", run_snapshot_save)
    save.add_argument("file", metavar="FILE")
    restore = snapshot.add(
        "restore", "make the data directory of a cluster of one, offline", run_snapshot_restore
    )
    restore.add_argument("file", metavar="FILE")
    restore.add_argument("--data-dir", required=True, metavar="DIR", help="empty or absent")
    restore.add_argument(
        "--initial-advertise-peer-urls",
        required=True,
        metavar="URLS",
        help="of the one member; with the token they make its id",
    )
    restore.add_argument("--initial-cluster-token", metavar="TEXT", default="etcd-cluster")
    restore.add_argument(
        "--encryption-key-file", required=True, metavar="FILE", help="new member's"
    )
    restore.add_argument(
        "--source-key-file", metavar="FILE", help="of the member the snapshot is of, if another"
    )


# --- status ---------------------------------------------------------------------------------------


def _endpoints(session: Session) -> tuple[Endpoint, ...]:
    from configsvc.client import administration, parse_endpoints

    if not session.args.cluster:
        return session.client.ring.all
    members = session.client.do(administration.member_list()).members
    return parse_endpoints([url for member in members for url in member.clientURLs[:1]])


def _ask_status(session: Session, endpoint: Endpoint) -> rpc.StatusResponse | ConfigServiceError:
    from configsvc.client import administration

    try:
        return session.client.do(administration.status(), endpoint=endpoint)
    except ConfigServiceError as error:
        return error


def _status_json(
    endpoint: Endpoint, answer: rpc.StatusResponse | ConfigServiceError
) -> dict[str, Any]:
    found: dict[str, Any] = {"endpoint": str(endpoint), "insecure": not endpoint.secure}
    if isinstance(answer, ConfigServiceError):
        return {**found, "reachable": False, "error": line_of(answer)}
    header = answer.header
    return {
        **found,
        "reachable": True,
        "cluster": f"{header.cluster_id:x}",
        "member": f"{header.member_id:x}",
        "leader": f"{answer.leader:x}" if answer.leader else None,
        "is_leader": bool(answer.leader) and answer.leader == header.member_id,
        "is_learner": answer.isLearner,
        "term": answer.raftTerm,
        "index": answer.raftIndex,
        "applied": answer.raftAppliedIndex,
        "revision": header.revision,
        "db_bytes": answer.dbSize,
        "db_bytes_in_use": answer.dbSizeInUse,
        "db_bytes_quota": answer.dbSizeQuota,
        "version": answer.version,
        "storage_version": answer.storageVersion,
        "errors": list(answer.errors),
    }


def run_status(session: Session) -> int:
    endpoints = _endpoints(session)
    with ThreadPoolExecutor(max_workers=min(16, len(endpoints))) as pool:
        answers = list(pool.map(lambda one: _ask_status(session, one), endpoints))
    found = [_status_json(*pair) for pair in zip(endpoints, answers, strict=True)]
    if session.out.as_json:
        session.out.json(found)
    else:
        heads = ("ENDPOINT", "MEMBER", "ROLE", "TERM", "INDEX", "APPLIED", "REV", "DB", "VERSION")
        session.out.table((*heads, "ERRORS"), [_status_row(one) for one in found])
    if any(one["insecure"] for one in found):
        session.warn("plaintext: this is a development server, its data is for throwing away")
    if not all(one["reachable"] for one in found):
        return Exit.UNAVAILABLE
    return Exit.NO if any(one["errors"] for one in found) else Exit.OK


def _status_row(one: dict[str, Any]) -> tuple[object, ...]:
    if not one["reachable"]:
        return (one["endpoint"], *["-"] * 8, one["error"])
    role = "leader" if one["is_leader"] else "learner" if one["is_learner"] else "follower"
    return (
        one["endpoint"],
        one["member"],
        role,
        one["term"],
        one["index"],
        one["applied"],
        one["revision"],
        _size(one["db_bytes"]),
        one["version"],
        "; ".join(one["errors"]) or "-",
    )


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} GiB"


# --- maintenance ----------------------------------------------------------------------------------


def _alarm_rows(answer: rpc.AlarmResponse) -> list[tuple[str, str]]:
    from configsvc.proto import rpc_pb2

    names = {number: name for name, number in rpc_pb2.AlarmType.items()}
    return [(f"{one.memberID:x}", names.get(one.alarm, str(one.alarm))) for one in answer.alarms]


def _show_alarms(session: Session, rows: list[tuple[str, str]]) -> None:
    if session.out.as_json:
        session.out.json([{"member": member, "alarm": alarm} for member, alarm in rows])
    elif rows:
        session.out.table(("MEMBER", "ALARM"), rows)
    else:
        session.out.line("no alarms")


def run_alarm_list(session: Session) -> int:
    from configsvc.client import administration

    rows = _alarm_rows(session.client.do(administration.alarm_list()))
    _show_alarms(session, rows)
    return Exit.NO if rows else Exit.OK


def run_alarm_disarm(session: Session) -> int:
    from configsvc.client import administration

    raised = session.client.do(administration.alarm_list())
    for one in raised.alarms:
        operation = administration.alarm_disarm(one.memberID, one.alarm)
        session.client.do(operation, why=session.why)
    _show_alarms(session, _alarm_rows(raised))
    return Exit.OK


def run_defrag(session: Session) -> int:
    from configsvc.client import administration

    for endpoint in _endpoints(session):
        session.client.do(administration.defragment(), endpoint=endpoint)
        session.out.done(f"{endpoint}: done", endpoint=str(endpoint))
    return Exit.OK


def run_move_leader(session: Session) -> int:
    from configsvc.client import administration, parse_endpoint

    members = list_members(session)
    target = find_member(members, session.args.member)
    leader_id = session.client.do(administration.status()).leader
    if leader_id == target.ID:
        session.out.done(f"{target.ID:x} leads already", leader=f"{target.ID:x}")
        return Exit.OK
    leader = next((one for one in members if leader_id == one.ID), None)
    if leader is None or not leader.clientURLs:
        raise CliError(Exit.UNAVAILABLE, "there is no leader to ask")
    session.client.do(
        administration.move_leader(target.ID),
        why=session.why,
        endpoint=parse_endpoint(leader.clientURLs[0]),
    )
    session.out.done(f"{target.ID:x} leads", leader=f"{target.ID:x}")
    return Exit.OK


def run_snapshot_save(session: Session) -> int:
    """The file appears under its name only when its checksum is right."""
    path = Path(session.args.file)
    if not path.name:
        raise CliError(Exit.USAGE, "FILE: name the file to be written")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            size = _receive_snapshot(session, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise CliError(Exit.NO, f"{path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # it is not there, or its folder is none
            partial.unlink()
    session.out.done(f"{path}: {size} bytes", file=str(path), bytes=size)
    return Exit.OK


def run_snapshot_restore(session: Session) -> int:
    """Offline: reads the file, asks no member."""
    from configsvc.identity.member_ids import member_id
    from configsvc.server.restore import restore_backup
    from configsvc.storage.seal.keyfile import KeyFile

    args = session.args
    urls = tuple(url for url in args.initial_advertise_peer_urls.split(",") if url)
    key_file = KeyFile.load(args.encryption_key_file)
    source = args.source_key_file
    made = restore_backup(
        Path(args.file),
        Path(os.path.abspath(args.data_dir)),
        member_id=member_id(urls, args.initial_cluster_token),
        peer_urls=urls,
        key_file=key_file,
        source_key_file=KeyFile.load(source) if source else key_file,
    )
    session.out.done(
        f"restored as cluster {made.cluster_id:x}, member {made.member_id:x}, "
        f"at revision {made.revision}; start it with --initial-cluster-state new",
        cluster=f"{made.cluster_id:x}",
        member=f"{made.member_id:x}",
        revision=made.revision,
    )
    return Exit.OK


def _receive_snapshot(session: Session, file: Any) -> int:
    from configsvc.proto import rpc_pb2

    digest = hashlib.sha256()
    size, held = 0, b""
    stream = session.client.stream(
        "/etcdserverpb.Maintenance/Snapshot", rpc_pb2.SnapshotRequest(), rpc_pb2.SnapshotResponse
    )
    for message in stream:  # one message behind: the last one is the checksum
        digest.update(held)
        file.write(held)
        size += len(held)
        held = message.blob
    if len(held) != _HASH_BYTES or digest.digest() != held:
        raise CliError(Exit.NO, "the snapshot arrived damaged: take it again")
    file.write(held)  # etcd's tools want the checksum at the end of the file
    return size + len(held)
