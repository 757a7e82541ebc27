"""A stock client cannot tell our front end from grpcio's own server.

Every case is run against both, with the same handlers behind them (``tests.support.grpc_twins``).
What differs on purpose is written down in ``INTENDED``, both sides of it, and nothing else may.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import pytest

from configsvc.limits import MESSAGE_BYTES_MAX
from tests.support.grpc_twins import Server, Twins


class Seen(NamedTuple):
    """What a client sees of one call."""

    code: str
    text: str | None  # None: the server's own words, which nobody compares
    messages: tuple[bytes, ...] = ()
    initial: tuple[Any, ...] = ()  # metadata
    trailing: tuple[Any, ...] = ()


OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.enable_retries", 0),
]


class Probe:
    """A channel to one of the twins, and calls whose every aspect is kept."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel: Any = channel  # typed as if serializers were not optional

    def unary(self, path: str, raw: bytes = b"", *, own_words: bool = False, **kwargs: Any) -> Seen:
        """One message each way."""
        kwargs.setdefault("timeout", 10)
        call = self.channel.unary_unary(f"/test.Twin/{path}").future(raw, **kwargs)
        error = call.exception()
        return _seen(call, () if error else (call.result(),), own_words=own_words)

    def down(self, path: str, raw: bytes, *, own_words: bool = False, **kwargs: Any) -> Seen:
        """One message in, several out."""
        kwargs.setdefault("timeout", 10)
        call = self.channel.unary_stream(f"/test.Twin/{path}")(raw, **kwargs)
        return _seen(call, _drained(call), own_words=own_words)

    def up(self, path: str, raws: list[bytes], **kwargs: Any) -> Seen:
        """Several in, one out."""
        call = self.channel.stream_unary(f"/test.Twin/{path}").future(iter(raws), **kwargs)
        error = call.exception()
        return _seen(call, () if error else (call.result(),))

    def both(self, path: str, raws: list[bytes], **kwargs: Any) -> Seen:
        """Several each way."""
        kwargs.setdefault("timeout", 10)
        call = self.channel.stream_stream(f"/test.Twin/{path}")(iter(raws), **kwargs)
        return _seen(call, _drained(call))

    def told_of_cancel(self, raw: bytes) -> bool:
        """Whether the handler of the call with that message hears that nobody waits."""
        return self._becomes_true("Cancelled", raw)

    def begun(self, raw: bytes) -> bool:
        """Whether the waiting call with that message reaches its handler."""
        return self._becomes_true("Begun", raw)

    def _becomes_true(self, question: str, raw: bytes) -> bool:
        limit = time.monotonic() + 5
        while time.monotonic() < limit:
            if self.unary(question, raw).messages == (b"yes",):
                return True
            time.sleep(0.01)
        return False


def _drained(call: Any) -> tuple[bytes, ...]:
    got = []
    with contextlib.suppress(grpc.RpcError):  # the status is looked at by the caller
        got.extend(call)
    return tuple(got)


def _seen(call: Any, messages: tuple[bytes, ...], *, own_words: bool = False) -> Seen:
    return Seen(
        call.code().name,
        None if own_words else call.details(),
        messages,
        tuple(call.initial_metadata() or ()),
        tuple(call.trailing_metadata() or ()),
    )


def cancelled_unary(probe: Probe) -> object:
    call = probe.channel.unary_unary("/test.Twin/Wait").future(b"cancel-unary")
    assert probe.begun(b"cancel-unary")
    call.cancel()
    return probe.told_of_cancel(b"cancel-unary"), call.cancelled()


def cancelled_stream(probe: Probe) -> object:
    call = probe.channel.unary_stream("/test.Twin/Down")(b"hang-stream", timeout=10)
    first = next(call)
    call.cancel()
    return first, probe.told_of_cancel(b"hang-stream"), call.code().name


def late_unary(probe: Probe) -> object:
    probe.unary("Echo")  # connected: the time that is short is the call's alone
    seen = probe.unary("Wait", b"late-unary", timeout=0.5, own_words=True)
    return seen, probe.told_of_cancel(b"late-unary")


def late_stream(probe: Probe) -> object:
    probe.unary("Echo")
    seen = probe.down("Down", b"hang-late", timeout=0.5, own_words=True)
    return seen, probe.told_of_cancel(b"hang-late")


def talk(probe: Probe) -> object:
    """Each message is answered before the next is sent; the half-close comes last."""
    requests: queue.Queue[bytes | None] = queue.Queue()
    call = probe.channel.stream_stream("/test.Twin/Both")(iter(requests.get, None), timeout=10)
    heard = []
    for number in range(5):
        requests.put(b"m%d" % number)
        heard.append(next(call))
    requests.put(None)
    return heard, list(call), call.code().name


def unknown_service(probe: Probe) -> object:
    call = probe.channel.unary_unary("/no.Such/Echo").future(b"", timeout=10)
    return call.exception() is not None, _seen(call, (), own_words=True)


def interleaved(probe: Probe) -> object:
    """Twenty calls at once on one connection."""
    call = probe.channel.unary_unary("/test.Twin/Echo")
    futures = [call.future(b"%d" % n * (n * 1_000), timeout=10) for n in range(20)]
    return [len(each.result()) for each in futures]


TEXTS = {
    "ascii": "etcdserver: key is not provided",
    "percent": "100% sure, 50%25",
    "lines": "one\ntwo\r\n\tthree",
    "umlauts": "für Ä – €",
    "beyond-the-plane": "\U0001f600 done",
    "empty": "",
    "spaces": "  ends and starts  ",
    "controls": "\x01\x7f~",
}
METADATA = {
    "case": (("x-lower", "MiXed"),),
    "repeated": (("x-a", "1"), ("x-b", "between"), ("x-a", "2")),
    "binary": (("x-data-bin", bytes(range(256))),),
    "binary-empty": (("x-data-bin", b""),),
    "binary-repeated": (("x-data-bin", b"\0"), ("x-data-bin", b"\xff\xfe")),
    "empty": (("x-empty", ""),),
    "comma": (("x-list", "a,b, c"),),
    "inner-space": (("x-space", "a  b"),),
    "long": (("x-long", "v" * 4_000),),
    "thirty": tuple((f"x-{number}", str(number)) for number in range(30)),
}
SIZES = [0, 1, 16_379, 16_384, 65_535, 65_536, 1 << 20, MESSAGE_BYTES_MAX]

Case = Callable[[Probe], object]
CASES: dict[str, Case] = {
    "late-unary": late_unary,
    "late-stream": late_stream,
    "cancelled-unary": cancelled_unary,
    "cancelled-stream": cancelled_stream,
    "interleaved": interleaved,
    "no-time-at-all": lambda probe: probe.unary("Echo", b"x", timeout=-1.0, own_words=True),
    "unknown-method": lambda probe: probe.unary("Nothing", own_words=True),
    "unknown-service": unknown_service,
    "talk": talk,
    "stream-of-unknown-method": lambda probe: probe.down("Nothing", b"", own_words=True),
    "too-large": lambda probe: probe.unary(
        "Echo", b"x" * (MESSAGE_BYTES_MAX + 1), own_words=True
    ),
    "too-large-in-a-stream": lambda probe: probe.both("Both", [b"x" * (MESSAGE_BYTES_MAX + 1)])[0],
    "header-too-large": lambda probe: probe.unary(
        "Metadata", metadata=(("x-long", "v" * 20_000),), own_words=True
    ),
    "after-too-large": lambda probe: (
        probe.unary("Echo", b"x" * (MESSAGE_BYTES_MAX + 1))[0], probe.unary("Echo", b"next")
    ),
    "answer-of-ten-megabytes": lambda probe: len(probe.unary("Big", b"10000000").messages[0]),
    "down": lambda probe: probe.down("Down", b"5"),
    "down-nothing": lambda probe: probe.down("Down", b"0"),
    "down-thousands": lambda probe: probe.down("Down", b"3000"),
    "down-then-error": lambda probe: probe.down("Down", b"2 9 no more"),
    "error-at-once": lambda probe: probe.down("Down", b"0 7 denied"),
    "up": lambda probe: probe.up("Up", [b"a", b"", b"b" * 100_000], timeout=10),
    "up-nothing": lambda probe: probe.up("Up", [], timeout=10),
    "both": lambda probe: probe.both("Both", [b"a", b"", b"c" * 70_000]),
    "both-nothing": lambda probe: probe.both("Both", []),
    "both-error-in-between": lambda probe: probe.both("Both", [b"a", b"fail 10 lost", b"b"]),
    "gzip": lambda probe: probe.unary(
        "Echo", b"x" * 10_000, compression=grpc.Compression.Gzip, own_words=True
    ),
    "unary-method-as-stream": lambda probe: probe.both("Echo", [b"one"]),
    "stream-method-as-unary": lambda probe: probe.unary("Down", b"1"),
    **{
        f"status-{code}": lambda probe, code=code: probe.unary("Status", b"%d text" % code)
        for code in range(1, 17)
    },
    **{
        f"text-{name}": lambda probe, text=text: probe.unary("Status", b"9 " + text.encode())
        for name, text in TEXTS.items()
    },
    **{
        f"metadata-{name}": lambda probe, pairs=pairs: probe.unary("Metadata", metadata=pairs)
        for name, pairs in METADATA.items()
    },
    **{
        f"size-{size}": lambda probe, size=size: probe.unary("Echo", b"x" * size) for size in SIZES
    },
}  # fmt: skip


class Intended(NamedTuple):
    """A difference that is meant; both sides are checked, so the list cannot grow stale."""

    ours: object
    grpcio: object
    why: str


INTENDED = {
    "gzip": Intended(
        Seen("UNIMPLEMENTED", None),
        Seen("OK", None, (b"x" * 10_000,)),
        "nothing that strangers send is ever inflated (LIM-7)",
    ),
    "header-too-large": Intended(
        Seen("UNAVAILABLE", None),
        Seen("RESOURCE_EXHAUSTED", None),
        "the decoder cannot go on after a block that it did not take: the connection ends (LIM-6)",
    ),
}


def run(server: Server, case: Case) -> object:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=OPTIONS) as channel:
        return case(Probe(channel))


@pytest.mark.parametrize("name", CASES)
def test_a_client_sees_the_same(twins: Twins, name: str) -> None:
    ours, theirs = run(twins.ours, CASES[name]), run(twins.grpcio, CASES[name])
    meant = INTENDED.get(name)
    if meant is None:
        assert ours == theirs
    else:
        assert (ours, theirs) == (meant.ours, meant.grpcio), meant.why
