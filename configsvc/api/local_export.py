"""One export of a member's own stream: pages read off the loop, sent as the client takes them."""

from __future__ import annotations

from typing import Final

from configsvc.api.contract import Caller, StreamSink
from configsvc.api.service import Service
from configsvc.audit.record import Resource
from configsvc.codec import requests
from configsvc.errors import ConfigServiceError, CorruptError
from configsvc.proto import v1_pb2
from configsvc.storage.seal.errors import SealBroken

CHUNK_LEAVES: Final = 200


class LocalExport:
    """Leaves, their openings and their actors, from one leaf on; the head comes first."""

    def __init__(self, service: Service, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink
        self._next = 0
        self._end = -1
        self._limit = 0
        self._first = True
        self._started = self._ended = self._busy = False

    def on_message(self, raw: bytes) -> None:
        m = requests.parse(v1_pb2.ExportRequest, raw)
        if self._started:
            return
        self._started = True
        self._next, self._limit = m.from_seq, m.limit
        about = Resource(object="stream L", version=m.from_seq)
        self._service.recorded(
            self._caller, "audit.read", about, self._begin, still=self._judge
        ).bind(self._not_begun)

    def _judge(self) -> None:
        """Raise unless it may go on: at the beginning and before each page (JWT-13)."""
        self._service.need(self._caller, "audit.read")

    def _not_begun(self, result: bytes | ConfigServiceError) -> None:
        if isinstance(result, ConfigServiceError) and not self._ended:
            self._finish(result)

    def _begin(self) -> bytes:
        held = self._service.member.audit.durable
        self._next = min(self._next, held)  # beyond what SQL can count there is nothing, too
        self._end = min(held, self._next + self._limit) if self._limit else held
        self._page()
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
        """On a reader thread."""
        member = self._service.member
        end = max(self._next, min(self._end, self._next + CHUNK_LEAVES))
        chunk = v1_pb2.ExportChunk()
        try:
            with member.local_store.reading() as reader:
                if self._first:
                    size = reader.size()
                    chunk.origin, chunk.size = member.audit.origin, size
                    chunk.root = reader.root_at(size)
                # The actors of a page may be older than the page: a part begins with all of them.
                since = 0 if self._first else self._next
                for actor in reader.actors(since, end):
                    chunk.actors.add(hash=actor.hash, record=actor.record, salt=actor.salt)
                for record in reader.records(self._next, end):
                    chunk.leaves.add(
                        seq=record.seq,
                        leaf=record.leaf,
                        salt=record.salt,
                        reason=record.reason,
                        ticket=record.ticket,
                    )
        except SealBroken:
            raise CorruptError from None
        self._first, self._next = False, end
        return chunk

    def _send(self, result: v1_pb2.ExportChunk | ConfigServiceError) -> None:
        self._busy = False
        if self._ended:
            return
        if isinstance(result, ConfigServiceError):
            self._finish(result)
            return
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
