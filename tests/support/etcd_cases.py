"""A request as data, what came back as data, and how two servers' answers are compared.

A script is a list of steps run in order against each server; an outcome is made of plain values,
with everything masked that two servers cannot share: ids, terms, sizes, tokens.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message

from configsvc.proto import rpc_pb2, v3election_pb2, v3lock_pb2

Outcome = Any
TIMEOUT_S = 5.0
CALL_S = 20.0  # a deadline that a busy machine misses would be taken for an answer
QUIET_S = 0.15
NOTHING = "nothing"  # noted when a call failed that should have told something
MASKED = frozenset(
    {"cluster_id", "member_id", "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize",
     "dbSizeInUse", "version", "leader", "token", "hash", "compact_hash"}
)  # fmt: skip
# Fields that 3.4 does not know; nothing to compare them with.
NEWER = frozenset({"downgradeInfo", "storageVersion", "dbSizeQuota", "hash_revision"})

_SERVICES = {
    name: (f"{file.package}.{name}", service)
    for file in (rpc_pb2.DESCRIPTOR, v3lock_pb2.DESCRIPTOR, v3election_pb2.DESCRIPTOR)
    for name, service in file.services_by_name.items()
}


@dataclass(frozen=True)
class Step:
    """One request or one conversation."""

    name: str
    run: Callable[[Client], Outcome]
    differs: str = ""  # the reason why ours is meant to answer otherwise; "" means the same


@dataclass
class Client:
    """A server under comparison, and what the script remembers of it."""

    channel: grpc.Channel
    notes: dict[str, Any] = field(default_factory=dict)

    def unary(self, method: str, fields: Mapping[str, Any], who: str = "") -> Outcome:
        """Call, as the user whose token is noted under ``who``; code and text, or the answer."""
        made = message(method, resolved(fields, self.notes))
        service, _, name = method.partition(".")
        full, found = _SERVICES[service]
        answer = message_factory.GetMessageClass(found.methods_by_name[name].output_type)
        call = self.channel.unary_unary(
            f"/{full}/{name}", type(made).SerializeToString, answer.FromString
        )
        metadata = [("token", self.notes.get(who, who))] if who else None
        try:
            got = call(made, timeout=CALL_S, metadata=metadata)
        except grpc.RpcError as error:
            self.notes["last"] = None
            return error.code().name, error.details()
        self.notes["last"] = got
        return plain(got)


def message(method: str, fields: Mapping[str, Any]) -> Message:
    """The request of ``Service.Method``."""
    service, _, name = method.partition(".")
    descriptor = _SERVICES[service][1].methods_by_name[name].input_type
    made: Message = message_factory.GetMessageClass(descriptor)(**fields)
    return made


def resolved(fields: Any, notes: Mapping[str, Any]) -> Any:
    """``fields`` with each ``Note("x")`` replaced by what was noted."""
    if isinstance(fields, Note):
        return notes[fields.name]
    if isinstance(fields, dict):
        return {k: resolved(v, notes) for k, v in fields.items()}
    if isinstance(fields, list):
        return [resolved(v, notes) for v in fields]
    return fields


@dataclass(frozen=True)
class Note:
    """A value that each server picked for itself."""

    name: str


def plain(answer: Message) -> Outcome:
    """As nested dicts and lists, masked."""
    return masked(json_format.MessageToDict(answer, preserving_proto_field_name=True))


def masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: "*" if _is_masked(k, v, value) else masked(v)
            for k, v in value.items()
            if k not in NEWER
        }
    return [masked(v) for v in value] if isinstance(value, list) else value


def _is_masked(name: str, value: Any, holder: Mapping[str, Any]) -> bool:
    """Not a key's version, which counts its puts, and not an election's leader, a message."""
    if name == "TTL":
        return "grantedTTL" in holder  # what is left runs down between two requests
    if (name == "version" and "key" in holder) or isinstance(value, dict):
        return False
    return name in MASKED


def call(
    method: str, label: str = "", /, *, differs: str = "", who: str = "", **fields: Any
) -> Step:
    """A unary request, as the user noted as ``who``; ``label`` tells it from its like."""
    text = f"{method}({label or _short(fields)}){' as ' + who if who else ''}"
    return Step(text, lambda client: client.unary(method, fields, who), differs)


def note(label: str, attribute: str = "") -> Step:
    """Keep a field of the last answer for later requests."""

    def run(client: Client) -> Outcome:
        client.notes[label] = getattr(client.notes["last"], attribute, NOTHING)
        return None

    return Step(f"note {label}", run)


def _short(fields: Mapping[str, Any]) -> str:
    text = ",".join(f"{k}={v!r}" for k, v in fields.items())
    return text if len(text) <= 90 else text[:87] + "..."


class Watcher:
    """One watch stream driven step by step."""

    def __init__(self, client: Client, who: str = "") -> None:
        self._requests: queue.Queue[Message | None] = queue.Queue()
        self._got: queue.Queue[Any] = queue.Queue()
        call = client.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            rpc_pb2.WatchRequest.SerializeToString,
            rpc_pb2.WatchResponse.FromString,
        )
        metadata = [("token", client.notes.get(who, who))] if who else None
        self._call = call(iter(self._requests.get, None), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._got.put(plain(answer))
        except grpc.RpcError as error:
            self._got.put(("ended", error.code().name))

    def send(self, **request: Any) -> None:
        self._requests.put(rpc_pb2.WatchRequest(**request))

    def half_close(self) -> None:
        self._requests.put(None)

    def receive(self, count: int) -> list[Any]:
        """The next messages; a marker in place of one that does not come."""
        out: list[Any] = []
        for _ in range(count):
            try:
                out.append(self._got.get(timeout=TIMEOUT_S))
            except queue.Empty:
                out.append("nothing came")
        return out

    def quiet(self) -> list[Any]:
        """What comes although nothing should."""
        out: list[Any] = []
        try:
            while True:
                out.append(self._got.get(timeout=QUIET_S))
        except queue.Empty:
            return out

    def close(self) -> None:
        self._call.cancel()


def watch(name: str, *moves: tuple[Any, ...], differs: str = "", who: str = "") -> Step:
    """A conversation: ("send", request), ("call", method, fields), ("recv", n), ("quiet",)."""

    def run(client: Client) -> Outcome:
        watcher, out = Watcher(client, who), []
        try:
            for move in moves:
                match move:
                    case ("send", request):
                        watcher.send(**resolved(request, client.notes))
                    case ("call", method, fields):
                        out.append(client.unary(method, fields, who))
                    case ("recv", count):
                        out.append(watcher.receive(count))
                    case ("half_close",):
                        watcher.half_close()
                    case ("quiet",):
                        out.append(watcher.quiet())
        finally:
            watcher.close()
        return out

    return Step(f"watch {name}", run, differs)


def stream(
    method: str, requests: Sequence[Mapping[str, Any]], name: str, differs: str = ""
) -> Step:
    """A bidirectional call whose requests are sent and closed at once."""
    service, _, rpc = method.partition(".")
    full, found = _SERVICES[service]
    answer = message_factory.GetMessageClass(found.methods_by_name[rpc].output_type)

    def run(client: Client) -> Outcome:
        made = [message(method, resolved(r, client.notes)) for r in requests]
        open_call = client.channel.stream_stream(
            f"/{full}/{rpc}", type(made[0]).SerializeToString, answer.FromString
        )
        out: list[Any] = []
        try:
            out.extend(plain(got) for got in open_call(iter(made), timeout=TIMEOUT_S))
        except grpc.RpcError as error:
            out.append((error.code().name, error.details()))
        return out

    return Step(f"{method}({name})", run, differs)


def compare(step: Step, theirs: Outcome, ours: Outcome) -> None:
    """Fail unless they agree, or differ where that is intended."""
    if step.differs:
        assert theirs != ours, f"no longer differs ({step.differs}): both answer {ours!r}"
        return
    if ours != theirs:
        found = "\n  ".join(differences(theirs, ours))
        raise AssertionError(f"{step.name}\n  {found}")


def differences(theirs: Outcome, ours: Outcome, where: str = "answer") -> list[str]:
    """Where they part, one line each, cut short."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = sorted(theirs.keys() | ours.keys())
        return [
            line
            for name in names
            if theirs.get(name) != ours.get(name)
            for line in differences(theirs.get(name), ours.get(name), f"{where}.{name}")
        ]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [
            line
            for n, (a, b) in enumerate(zip(theirs, ours, strict=True))
            if a != b
            for line in differences(a, b, f"{where}[{n}]")
        ]
    return [f"{where}: etcd {_cut(theirs)}, ours {_cut(ours)}"]


def _cut(value: Outcome) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)})"
