"""configsvc.v1.Audit: checkpoints, proofs and the export of stream M."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from configsvc.api.contract import Caller, StreamHandler, StreamSink
from configsvc.api.local_export import LocalExport
from configsvc.api.service import Service
from configsvc.audit.proof_text import InclusionProof, encode_proof
from configsvc.audit.proofs import consistency_proof, inclusion_proof
from configsvc.audit.record import Resource
from configsvc.codec import requests
from configsvc.errors import ConfigServiceError, InvalidArgumentError, NotFoundError
from configsvc.proto import v1_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.storage.local.heads import Head

EXPORT_CHUNK_LEAVES: Final = 200


class AuditService(Service):
    """Handlers of Audit."""

    def checkpoint(self, caller: Caller, raw: bytes) -> Waiting:
        """The newest head that a majority signed; news is signed before the answer."""
        requests.parse(v1_pb2.CheckpointRequest, raw)

        def start() -> Waiting:
            self.need(caller, "audit.verify")
            return self._signed_head(self._head_answer)

        return self.linearizable(caller, start)

    def _head_answer(self, head: Head, note: str) -> bytes:
        return v1_pb2.CheckpointResponse(
            note=note, size=head.size, root=head.root, applied_index=self.member.applied
        ).SerializeToString()

    def _signed_head(self, answer: Callable[[Head, str], bytes | Waiting]) -> Waiting:
        """Answer with a signed head that covers what is applied now, or the newest there is."""
        checkpoints = self.member.checkpoints

        def put() -> bytes | Waiting:
            head = checkpoints.best()
            note = checkpoints.note(head) if head is not None else ""
            if head is None or not note:
                raise NotFoundError("no head of the audit log is signed yet")
            return answer(head, note)

        out, done = self.member.audit.before(put)
        checkpoints.ask(self.member.state.recorder.frontier.size, lambda: done(None))
        return out

    def inclusion(self, caller: Caller, raw: bytes) -> Waiting:
        """That a leaf is in the tree: C2SP tlog-proof."""
        m = requests.parse(v1_pb2.InclusionRequest, raw)

        def put(head: Head, note: str) -> Waiting:
            if not m.seq < head.size:
                raise NotFoundError("there is no such leaf in that tree")

            def ask() -> Any:
                reader = self.member.reader
                leaf = reader.commits(m.seq, m.seq + 1)[0].leaf
                with reader.tree() as read:
                    return leaf, inclusion_proof(m.seq, head.size, read)

            def answer(found: Any) -> bytes:
                leaf, path = found
                proof = encode_proof(InclusionProof(m.seq, tuple(path), note))
                return v1_pb2.InclusionResponse(
                    leaf=leaf, tree_size=head.size, hashes=path, proof=proof
                ).SerializeToString()

            return self.member.gate.ask(self.member.applied, ask, answer)

        def start() -> Waiting:
            self.need(caller, "audit.verify")
            about = Resource(object=f"leaf {m.seq}")
            return self.recorded(
                caller,
                "audit.read",
                about,
                begin,
                still=lambda: self.need(caller, "audit.verify"),
            )

        def begin() -> Waiting:
            return self._head_at(m.tree_size, put) if m.tree_size else self._signed_head(put)

        return self.linearizable(caller, start)

    def _head_at(self, size: int, answer: Callable[[Head, str], Waiting]) -> Waiting:
        """Answer with the stored signatures at ``size``: nothing is signed anew for it (TE-3)."""
        checkpoints = self.member.checkpoints
        head = checkpoints.best(most=size)
        note = checkpoints.note(head) if head is not None and head.size == size else ""
        if head is None or not note:
            raise NotFoundError("no signed head of that size is kept: ask for the newest")
        return answer(head, note)

    def consistency(self, caller: Caller, raw: bytes) -> Waiting:
        """That an earlier tree is a prefix of a later one."""
        m = requests.parse(v1_pb2.ConsistencyRequest, raw)

        def ask() -> Any:
            reader = self.member.reader
            held = reader.meta().tree_size
            size = m.new_size or held
            if not 0 < m.old_size <= size <= held:
                raise InvalidArgumentError("old_size, new_size: 0 < old <= new <= tree size")
            with reader.tree() as read:
                return size, consistency_proof(m.old_size, size, read)

        def answer(found: Any) -> bytes:
            size, hashes = found
            return v1_pb2.ConsistencyResponse(
                hashes=hashes, old_size=m.old_size, new_size=size
            ).SerializeToString()

        return self._ask(caller, "audit.verify", ask, answer)

    def _ask(self, caller: Caller, action: str, ask: Any, answer: Any) -> Waiting:
        def start() -> Waiting:
            self.need(caller, action)
            return self.member.gate.ask(self.member.applied, ask, answer)

        return self.linearizable(caller, start)

    def export(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """Leaves in order, with what the caller may see of their openings; recorded (BK-3)."""
        self.need(caller, "audit.read")
        return _Export(self, caller, sink)

    def local_export(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """This member's own stream, in order; recorded in it."""
        self.need(caller, "audit.read")
        return LocalExport(self, caller, sink)


class _Export:
    """One export: pages read on a reader thread, sent as the client takes them."""

    def __init__(self, service: AuditService, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._sink = sink
        self._actors_sent: set[bytes] = set()
        self._next = 0
        self._end = -1
        self._caller = caller
        self._started = self._ended = self._busy = False

    def on_message(self, raw: bytes) -> None:
        m = requests.parse(v1_pb2.ExportRequest, raw)
        if self._started:
            return
        self._started = True
        about = Resource(object="stream M", version=m.from_seq)
        service = self._service
        service.recorded(
            self._caller, "audit.read", about, lambda: self._begin(m), still=self._judge
        ).bind(self._not_begun)

    def _judge(self) -> None:
        """Raise unless it may go on: at the beginning and before each page (JWT-13)."""
        self._service.need(self._caller, "audit.read")

    def _not_begun(self, result: bytes | ConfigServiceError) -> None:
        if isinstance(result, ConfigServiceError) and not self._ended:
            self._finish(result)

    def _begin(self, m: v1_pb2.ExportRequest) -> bytes:
        if self._ended:
            return b""
        self._next = m.from_seq
        limit = m.limit

        def size() -> int:
            held: int = self._service.member.reader.meta().tree_size
            return min(held, m.from_seq + limit) if limit else held

        def begin(result: int | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                self._finish(result)
                return
            self._end = result
            self._next = min(self._next, result)  # beyond what SQL can count there is nothing, too
            keys = [
                v1_pb2.ExportedKey(
                    name=self._service.member.log_origin,
                    member=key.member,
                    public=key.public,
                    state=key.state,
                )
                for key in self._service.member.state.signing_keys.values()
                if key.use == "log"
            ]
            self._sink.send(v1_pb2.ExportChunk(keys=keys).SerializeToString())
            self._page()

        self._service.member.gate.run(self._service.member.applied, size, begin)
        return b""

    def _page(self) -> None:
        if self._ended or self._busy or self._end < 0:
            return
        self._busy = True
        try:
            self._judge()
            self._service.member.gate.run(0, self._read, self._send)
        except ConfigServiceError as error:
            self._finish(error)

    def _read(self) -> v1_pb2.ExportChunk:
        reader = self._service.member.reader
        chunk = v1_pb2.ExportChunk()
        end = min(self._end, self._next + EXPORT_CHUNK_LEAVES)
        wanted: set[bytes] = set()
        for entry in islice(reader.verify_entries(self._next, end), EXPORT_CHUNK_LEAVES):
            item = chunk.leaves.add(seq=entry.seq, leaf=entry.leaf, changes=entry.changes)
            if entry.opening is not None:
                item.salt = entry.opening.salt
                item.reason, item.ticket = entry.opening.reason, entry.opening.ticket
            if entry.columns is not None:
                wanted.add(entry.columns.actor)
                item.columns.CopyFrom(v1_pb2.ExportedColumns(**entry.columns._asdict()))
        for hashed, actor in reader.actors().items() if wanted - self._actors_sent else ():
            if hashed in wanted and hashed not in self._actors_sent:
                self._actors_sent.add(hashed)
                chunk.actors.add(hash=hashed, record=actor.record, salt=actor.salt)
        self._next = end
        return chunk

    def _send(self, result: v1_pb2.ExportChunk | ConfigServiceError) -> None:
        self._busy = False
        if self._ended:
            return
        if isinstance(result, ConfigServiceError):
            self._finish(result)
            return
        if self._next >= self._end:
            checkpoints = self._service.member.checkpoints
            head = checkpoints.best(most=self._end)
            result.checkpoint = checkpoints.note(head) if head is not None else ""
        more = self._sink.send(result.SerializeToString())
        if self._next >= self._end:
            self._finish(None)
        elif more:
            self._page()

    def _finish(self, error: ConfigServiceError | None) -> None:
        self._ended = True
        self._sink.finish(error)

    def on_writable(self) -> None:
        self._page()

    def on_half_close(self) -> None:
        return

    def on_cancel(self) -> None:
        self._ended = True
