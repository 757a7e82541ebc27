"""``service register|list|watch``: service discovery on leases.

An instance is the key ``/services/<service>/<instance>`` with a JSON value, alive as long as its
lease. ``register`` keeps it alive, and takes it away while its health command fails.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

from configsvc.cli.arguments import Commands, add_why, key_bytes, number, seconds
from configsvc.cli.commands_lock import check_command
from configsvc.cli.exits import CliError, Exit, line_of
from configsvc.cli.output import escape, sparing
from configsvc.cli.stopping import orderly
from configsvc.errors import LeaseNotFoundError

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.client import LeaseKeeper
    from configsvc.proto import kv_pb2

PREFIX: Final = "/services/"
_TTL_S: Final = 10
_PROBE_TIMEOUT_S: Final = 5.0


def register(commands: Commands) -> None:
    """Add the commands."""
    service = commands.group("service", "service discovery")
    add = service.add("register", "announce an instance until interrupted", run_register)
    add.add_argument("service", metavar="SERVICE")
    add.add_argument("instance", metavar="INSTANCE")
    add.add_argument("--address", required=True, metavar="HOST:PORT")
    add.add_argument("--meta", action="append", default=[], metavar="NAME=TEXT")
    add.add_argument("--ttl", type=number(1), default=_TTL_S, metavar="SECONDS")
    add.add_argument("--probe-every", type=seconds, default=2.0, metavar="SECONDS")
    add.epilog = "A health probe may follow after --; the instance is up while it exits with 0."
    add_why(add)
    listed = service.add("list", "instances of one service or of all", run_list)
    listed.add_argument("service", metavar="SERVICE", nargs="?", default="")
    watch = service.add("watch", "print instances as they come and go", run_watch)
    watch.add_argument("service", metavar="SERVICE", nargs="?", default="")
    watch.add_argument("--count", type=number(), default=0, metavar="N", help="end after N changes")


def instance_key(service: str, instance: str) -> bytes:
    """The key of an instance.

    Raises:
        CliError: a name with a slash would lie under another service.
    """
    if not service or not instance or "/" in service + instance:
        raise CliError(Exit.USAGE, "SERVICE and INSTANCE are names without a slash")
    return key_bytes(f"{PREFIX}{service}/{instance}")


def _span(service: str) -> bytes:
    return key_bytes(f"{PREFIX}{service}/" if service else PREFIX)


def _announcement(session: Session) -> bytes:
    args = session.args
    meta = {}
    for pair in args.meta:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CliError(Exit.USAGE, f"--meta {pair!r}: write NAME=TEXT")
        meta[name] = text
    return json.dumps({"address": args.address, "meta": meta}, sort_keys=True).encode()


def is_healthy(probe: list[str]) -> bool:
    """Whether the probe exits with 0 in time; no probe is healthy."""
    if not probe:
        return True
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command
            probe,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def run_register(session: Session) -> int:
    """Announce for ever: a lease that got lost is replaced by a new one as soon as possible."""
    from configsvc.client import hold_lease
    from configsvc.client.errors import ClientError

    args = session.args
    key, value = instance_key(args.service, args.instance), _announcement(session)
    check_command(args.command)
    first = True
    with orderly():
        while True:
            try:
                with hold_lease(session.client, args.ttl, why=session.why) as keeper:
                    first = False
                    _announce(session, keeper, key, value)
            except ClientError as error:
                if first:
                    raise
                session.warn(f"trying again: {line_of(error)}")
                time.sleep(args.probe_every)
            else:
                session.warn("the lease was lost, announcing anew")


def _announce(session: Session, keeper: LeaseKeeper, key: bytes, value: bytes) -> None:
    """Until the lease is lost: the key comes and goes with the probe's verdict."""
    from configsvc.client import operations
    from configsvc.client.errors import ClientError

    announced: bool | None = None
    try:
        while not keeper.lost.is_set():
            healthy = is_healthy(session.args.command)
            try:
                if healthy and not announced:
                    put = operations.put(key, value, lease=keeper.lease_id).repeatable()
                    session.client.do(put, why=session.why)
                    session.out.done(f"up {escape(key)}", up=True)
                elif announced and not healthy:
                    session.client.do(operations.delete(key).repeatable(), why=session.why)
                    session.out.done(f"down {escape(key)}", up=False)
                elif announced is None and not healthy:
                    session.warn(f"{escape(key)}: not announced while its probe fails")
                announced = healthy
            except ClientError as error:  # no leader for a moment: the next round does it
                session.warn(f"trying again: {line_of(error)}")
            session.out.flush()
            keeper.lost.wait(session.args.probe_every)
    except LeaseNotFoundError:
        return  # it ended between two renewals
    finally:
        if not keeper.lost.is_set():
            with contextlib.suppress(LeaseNotFoundError, ClientError):  # it runs out by itself
                session.client.do(operations.lease_revoke(keeper.lease_id))


def describe(kv: kv_pb2.KeyValue) -> dict[str, Any]:
    """An instance; a value that is not ours shows its text as the address."""
    text = kv.key.decode("utf-8", "replace").removeprefix(PREFIX)
    service, _, instance = text.partition("/")
    try:
        found = json.loads(kv.value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {"address": kv.value.decode("utf-8", "replace")}
    return {
        "service": service,
        "instance": instance,
        "address": str(found.get("address", "")),
        "meta": found.get("meta", {}),
        "revision": kv.mod_revision,
    }


def run_list(session: Session) -> int:
    found = [describe(kv) for kv in session.client.get_prefix(_span(session.args.service)).kvs]
    if session.out.as_json:
        session.out.json(found)
    else:
        rows = [(one["service"], one["instance"], one["address"]) for one in found]
        session.out.table(("SERVICE", "INSTANCE", "ADDRESS"), rows)
    return Exit.OK if found else Exit.NO


def run_watch(session: Session) -> int:
    """First what there is, then what changes: nothing in between is missed."""
    from configsvc.client import Watch, WatchOptions, prefix_span

    prefix = _span(session.args.service)
    present = session.client.get_prefix(prefix)
    left = session.args.count
    for kv in present.kvs:
        _print_change(session, "up", kv)
    session.out.flush()
    options = WatchOptions(*prefix_span(prefix), start_revision=present.header.revision + 1)
    with Watch(
        session.client,
        options,
        on_lost=sparing(lambda line: session.warn(f"no connection, trying on: {line}")),
    ) as watch:
        for batch in watch:
            for event in batch.events:
                _print_change(session, "down" if event.type else "up", event.kv)
                left -= 1
                if left == 0:
                    return Exit.OK
            session.out.flush()
    return Exit.OK


def _print_change(session: Session, state: str, kv: kv_pb2.KeyValue) -> None:
    found = {"state": state, "time": time.time(), **describe(kv)}
    if session.out.as_json:
        session.out.json(found)
    else:
        name = f"{found['service']}/{found['instance']}"
        session.out.line(f"{state} {escape(name)} {escape(found['address'])}".rstrip())
