"""A watch hub over a small store, woken by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configsvc.codec.varint import bytes_field
from configsvc.mvcc.messages import DeleteOp, PutOp
from configsvc.mvcc.store import Staged, Store
from configsvc.proto import rpc_pb2
from configsvc.runtime.watch_hub import Watcher, WatchHub, WatchStream
from configsvc.types import KeySpan

SPAN = KeySpan(b"/k", b"/l")
KEYS = 25


class Sink:
    """Keeps what was sent; full for a moment after ``slow`` messages."""

    def __init__(self, slow: int = 1 << 30) -> None:
        self.sent: list[Any] = []
        self._slow = slow

    def send(self, payload: bytes) -> bool:
        self.sent.append(rpc_pb2.WatchResponse.FromString(payload))
        return len(self.sent) != self._slow

    @property
    def keys(self) -> list[tuple[int, list[bytes]]]:
        return [(m.header.revision, [e.kv.key for e in m.events]) for m in self.sent]


class Effect:
    def __init__(self, staged: Staged) -> None:
        self.rows, self.prevs, _ = staged


class World:
    """A store of ``KEYS`` keys and a hub that is woken by hand."""

    def __init__(self, gate: Any = None, history: Any = None) -> None:
        """``gate`` and ``history``: for watches of revisions that memory does not hold."""
        self.store = Store()
        for number in range(KEYS):
            self.commit(self.store.stage_put(PutOp(b"/k%02d" % number, b"v"), ()))
        self.woken = 0
        self.rights_version = 1
        self.hub = WatchHub(
            store=self.store,
            header=lambda revision: bytes_field(1, b"\x18" + bytes((revision,))),
            rights_version=lambda: self.rights_version,
            gate=gate,
            history=history,
            applied=lambda: 0,
            wake=self._wake,
        )

    def _wake(self) -> None:
        self.woken += 1

    def commit(self, staged: Staged) -> Staged:
        self.store.commit(staged)
        return staged

    def put(self, key: bytes) -> Any:
        return Effect(self.commit(self.store.stage_put(PutOp(key, b"w"), ())))

    def clear(self) -> Any:
        return Effect(self.commit(self.store.stage_delete(DeleteOp(SPAN))))

    def watch(self, span: KeySpan = SPAN, *, slow: int = 1 << 30, **options: Any) -> Sink:
        sink = Sink(slow)

        def refused(watcher: Watcher, error: Exception) -> None:
            raise AssertionError(f"watch {watcher.watch_id} was refused: {error}")

        self.add(WatchStream(sink, lambda _: None, refused), 1, span, **options)
        return sink

    def add(
        self, stream: WatchStream, watch_id: int, span: KeySpan = SPAN, **options: Any
    ) -> Watcher:
        """Another watch of ``stream``; ``since``: its first revision."""
        chosen = {"filters": 0, "prev_kv": False, "progress": False, "fragment": False}
        since = options.pop("since", 0)
        return self.hub.add(stream, watch_id, span, since, **(chosen | options))

    def settle(self) -> int:
        steps = 0
        while self.hub.feeding or self.hub.behind:
            self.hub.catch_up()
            steps += 1
            assert steps < 1_000
        return steps


def feed(world: World, *effects: Any) -> None:
    many: Sequence[Any] = effects
    world.hub.feed(many)
