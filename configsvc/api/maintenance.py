"""etcdserverpb.Maintenance: status, alarms, hashes, snapshot, leadership."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO, Final

from configsvc import limits
from configsvc.api.contract import Caller, StreamHandler, StreamSink
from configsvc.api.service import Service, raise_refused
from configsvc.apply.commands import Effects
from configsvc.audit.record import Resource
from configsvc.codec import command as codec
from configsvc.codec import requests
from configsvc.codec.varint import bytes_field, int_field, string_field
from configsvc.errors import (
    BadLeaderTransfereeError,
    ConfigServiceError,
    InvalidDowngradeTargetVersionError,
    NotLeaderError,
    OverloadedError,
    UnimplementedError,
    WrongDowngradeVersionFormatError,
)
from configsvc.limits import KIB
from configsvc.proto import rpc_pb2
from configsvc.runtime.member import Member
from configsvc.runtime.waiting import Waiting

ALARM_NAMES: Final = {1: "NOSPACE", 2: "CORRUPT"}
SNAPSHOT_CHUNK_BYTES: Final = 32 * KIB
SNAPSHOT_BLOCK: Final = 512
SNAPSHOT_PIECE_BYTES: Final = 512 * KIB  # read at a time


class MaintenanceService(Service):
    """Handlers of Maintenance (N1–N10)."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self.copies = 0  # of the store, for snapshots: each takes as much disk as the store

    def status(self, caller: Caller, raw: bytes) -> bytes:
        """Status: local, any authenticated principal."""
        requests.parse(rpc_pb2.StatusRequest, raw)
        self.standing(caller)
        member = self.member
        errors = [] if member.lead else ["etcdserver: no leader"]
        errors += [
            f"memberID:{who} alarm:{ALARM_NAMES.get(alarm, alarm)}"
            for who, alarm in member.alarms()
        ]
        ahead = member.cluster_health.clock_ahead_ns
        if ahead:
            errors.append(
                f"memberID:{member.self_id} clock is {ahead / 1e9:+.1f} s off the others'"
            )
        size = member.store.db_bytes
        quota = member.config.quota_backend_bytes or 2 * KIB * KIB * KIB
        version = member.config.advertised_etcd_version
        parts = [
            self.header(),
            string_field(2, version),
            int_field(3, size),
            int_field(4, member.lead),
            int_field(5, member.committed),
            int_field(6, member.term),
            int_field(7, member.applied),
            *(string_field(8, e) for e in errors),
            int_field(9, size),
            b"\x50\x01" if member.is_learner else b"",
            string_field(11, ".".join(version.split(".")[:2]) + ".0"),
            int_field(12, max(quota, 0)),
            b"\x6a\x00",
        ]
        return b"".join(parts)

    def alarm(self, caller: Caller, raw: bytes) -> bytes | Waiting:
        """Alarm: GET reads, ACTIVATE and DEACTIVATE go through the log (N3–N5)."""
        m = requests.parse(rpc_pb2.AlarmRequest, raw)
        if m.action == rpc_pb2.AlarmRequest.GET:

            def answer() -> bytes:
                self.standing(caller)
                wanted = m.alarm
                found = [a for a in self.member.alarms() if wanted in (0, a[1])]
                return self.header() + _alarms(found)

            return self.linearizable(caller, answer)
        self.need(caller, "maintenance.alarm")
        if m.action not in (1, 2) or m.alarm not in ALARM_NAMES:
            return self.linearizable(caller, self.header)
        return self.propose(caller, codec.OP_ALARM, raw, self._alarm_answer)

    def _alarm_answer(self, effects: Effects) -> bytes:
        raise_refused(effects)
        result: Any = effects.result
        return self.header_at(effects.revision) + _alarms(result.value or ())

    def defragment(self, caller: Caller, raw: bytes) -> Waiting:
        """Defragment: gives freed pages of this member's SQL file back; an empty answer (H7)."""
        requests.parse(rpc_pb2.DefragmentRequest, raw)
        self.need(caller, "maintenance.defragment")
        if self.member.installs.busy:  # its generation is read or about to be replaced (S3)
            raise OverloadedError("configsvc: a snapshot is sent or received; try again later")
        return self.member.history_task(self.member.history.vacuum, lambda _: b"")

    def hash(self, caller: Caller, raw: bytes) -> Waiting:
        """Hash: of the whole local store; equal on members at the same applied index."""
        requests.parse(rpc_pb2.HashRequest, raw)
        self.need(caller, "maintenance.hash")
        return self._hash(0, with_revisions=False)

    def hash_kv(self, caller: Caller, raw: bytes) -> Waiting:
        """HashKV: stored history up to a revision (N7)."""
        m = requests.parse(rpc_pb2.HashKVRequest, raw)
        self.need(caller, "maintenance.hash")
        self.member.store.check_revision(m.revision)
        return self._hash(m.revision, with_revisions=True)

    def _hash(self, revision: int, *, with_revisions: bool) -> Waiting:
        member = self.member
        at = revision if revision > 0 else member.store.revision
        floor = member.store.compact_revision

        def answer(value: int) -> bytes:
            body = self.header() + int_field(2, value)
            if with_revisions:
                body += int_field(3, floor) + int_field(4, at)
            return body

        return member.gate.ask(member.applied, lambda: member.reader.hash_kv(at, floor), answer)

    def move_leader(self, caller: Caller, raw: bytes) -> Waiting:
        """MoveLeader: only on the leader, to a voter (N9)."""
        m = requests.parse(rpc_pb2.MoveLeaderRequest, raw)
        self.need(caller, "maintenance.move_leader")
        if not self.member.is_leader:
            raise NotLeaderError
        if m.targetID not in self.member.machine.conf_state.voters:
            raise BadLeaderTransfereeError
        return self.member.transfer_to(m.targetID)

    def downgrade(self, caller: Caller, raw: bytes) -> bytes:
        """Downgrade: VALIDATE says whether one would be legal; nothing older exists to go to."""
        m = requests.parse(rpc_pb2.DowngradeRequest, raw)
        self.need(caller, "maintenance.downgrade")
        if m.action not in (0, 1, 2):
            raise UnimplementedError("etcdserver: unknown method")
        own = self.member.config.advertised_etcd_version.split(".")
        version = ".".join(own[:2])
        if m.action == 2:
            return self.header() + string_field(2, version)
        parts = m.version.split(".")
        if len(parts) not in (2, 3) or not all(_is_number(p) for p in parts):
            raise WrongDowngradeVersionFormatError
        if [int(p) for p in parts[:2]] != [int(own[0]), int(own[1]) - 1]:
            raise InvalidDowngradeTargetVersionError
        if m.action == 1:
            raise UnimplementedError("configsvc: there is no older version to go back to")
        return self.header() + string_field(2, version)

    def snapshot(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """Snapshot: a sealed copy of the store (N8, D4)."""
        self.need(caller, "snapshot.export")
        if self.copies >= limits.SNAPSHOTS_MAX:
            raise OverloadedError("configsvc: other snapshots are being sent; try again later")
        return _SnapshotStream(self, caller, sink)


class _SnapshotStream:
    """Chunks of one file, then the SHA-256 of everything before."""

    def __init__(self, service: MaintenanceService, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink
        self._file: BinaryIO | None = None  # without a name: nothing is left behind
        self._left = 0  # bytes not sent yet, padding included
        self._piece = b""  # read and not sent yet
        self._reading = False
        self._copying = False
        self._hash = hashlib.sha256()
        self._started = False
        self._ended = False
        self._counts = True
        service.copies += 1

    def on_message(self, raw: bytes) -> None:
        requests.parse(rpc_pb2.SnapshotRequest, raw)
        if self._started:
            return
        self._started = True
        about = Resource(object="snapshot")
        service = self._service
        service.recorded(
            self._caller, "snapshot.export", about, self._load, still=self._judge
        ).bind(self._not_loaded)

    def _judge(self) -> None:
        """Raise unless it may go on: at the beginning and before each piece (JWT-13)."""
        self._service.need(self._caller, "snapshot.export")

    def _load(self) -> bytes:
        member = self._service.member
        if not self._ended:
            self._copying = True
            try:
                member.gate.run(member.applied, member.reader.open_copy, self._opened)
            except ConfigServiceError:
                self._copying = False
                raise
        return b""

    def _not_loaded(self, result: bytes | ConfigServiceError) -> None:
        if isinstance(result, ConfigServiceError) and not self._ended:
            self._end(result)

    def _opened(self, result: BinaryIO | ConfigServiceError) -> None:
        self._copying = False
        if isinstance(result, ConfigServiceError):
            if self._ended:
                self._close()
            else:
                self._end(result)
            return
        self._file = result
        if self._ended:
            self._close()
            return
        size = result.seek(0, os.SEEK_END)
        result.seek(0)
        self._left = size + -size % SNAPSHOT_BLOCK
        self._read()

    def _read(self) -> None:
        """The next piece, in a reader thread; the loop never waits for the disk."""
        file = self._file
        if file is None or self._reading:
            return
        self._reading = True
        try:
            self._judge()
            self._service.member.gate.run(0, lambda: file.read(SNAPSHOT_PIECE_BYTES), self._filled)
        except ConfigServiceError as error:
            self._reading = False
            self._end(error)

    def _filled(self, result: bytes | ConfigServiceError) -> None:
        self._reading = False
        if self._ended:
            self._close()
        elif isinstance(result, ConfigServiceError):
            self._end(result)
        else:
            self._piece = result or bytes(self._left)  # at the end of the file: its padding
            self.on_writable()

    def on_writable(self) -> None:
        if self._ended or self._file is None:
            return
        version = string_field(4, self._service.member.config.advertised_etcd_version)
        go_on = True
        while self._piece and go_on:
            blob, self._piece = (
                self._piece[:SNAPSHOT_CHUNK_BYTES],
                self._piece[SNAPSHOT_CHUNK_BYTES:],
            )
            self._hash.update(blob)
            self._left -= len(blob)
            left = int_field(2, self._left)
            go_on = self._sink.send(left + bytes_field(3, blob) + version)
        if not self._left:
            self._sink.send(bytes_field(3, self._hash.digest()) + version)
            self._end(None)
        elif not self._piece and go_on:
            self._read()

    def _end(self, error: ConfigServiceError | None) -> None:
        self._ended = True
        self._close()
        self._sink.finish(error)

    def _close(self) -> None:
        """Let go of the copy, unless a thread makes or reads it: then once that is done."""
        if self._file is not None and not self._reading:
            self._file.close()
            self._file = None
        if self._counts and self._ended and self._file is None and not self._copying:
            self._counts = False
            self._service.copies -= 1

    def on_half_close(self) -> None:
        return

    def on_cancel(self) -> None:
        self._ended = True
        self._piece = b""
        self._close()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _alarms(found: Any) -> bytes:
    return b"".join(bytes_field(2, int_field(1, who) + int_field(2, alarm)) for who, alarm in found)
