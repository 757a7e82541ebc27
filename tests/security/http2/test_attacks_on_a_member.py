"""Floods and readers that do not read, against a real member over mutual TLS (N36, N70, LIM-18).

Two kinds of attacker: one waits for the answer of each of its blows, so that the GOAWAY that ends
it is seen; the other pours without looking. While either is at work somebody else's calls are
answered, and the member's memory stays what it was.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from configsvc.limits import FRAME_BUDGET_BURST, SLOW_READER_SECONDS_MAX
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import rpc_pb2_grpc
from tests.support import http2_frames as h2
from tests.support.http2_frames import Client, frame, grpc_message
from tests.support.local_stream import channel
from tests.support.members import MemberCluster, make_pki

pytestmark = pytest.mark.integration

RANGE, WATCH = "/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch"
ENHANCE_YOUR_CALM = (11).to_bytes(4, "big")
IN_TIME_S = 5.0  # far above what a call takes on a busy machine, far below a client's patience
ROUNDS = 10  # of each attack
KIB, MIB = 1 << 10, 1 << 20
GROWTH_MAX = 64 * MIB  # of a member under attack; each attack could make it hold far more


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemberCluster]:
    cluster = MemberCluster(
        tmp_path_factory.mktemp("alone"), make_pki(tmp_path_factory.mktemp("pki")), 1
    )
    cluster.start()
    yield cluster
    cluster.stop()


class Attacker:
    """A connection whose frames are made by hand."""

    def __init__(self, cluster: MemberCluster, user: str, *, receive: int = 0) -> None:
        host, port = cluster.members[0].client_url.removeprefix("https://").split(":")
        pair = cluster.user(user)
        context = ssl.create_default_context(cafile=str(cluster.pki / "ca-server.pem"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the file holds the issuing CA alone
        context.load_cert_chain(f"{pair}.pem", f"{pair}.key")
        context.set_alpn_protocols(["h2"])
        raw = socket.socket()
        raw.settimeout(10)
        if receive:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        raw.connect((host, int(port)))
        self._socket = context.wrap_socket(raw, server_hostname=host)
        self.client = Client()
        self._arrived = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def frames(self) -> Iterator[h2.Frame]:
        """What the member sends, until it ends the connection."""
        while True:
            while len(self._arrived) < 9 or len(self._arrived) < 9 + self._length():
                more = self._socket.recv(65_536)
                if not more:
                    return
                self._arrived += more
            size = 9 + self._length()
            (found,) = h2.split(self._arrived[:size])
            self._arrived = self._arrived[size:]
            yield found

    def _length(self) -> int:
        return int.from_bytes(self._arrived[:3], "big")

    def heard(self, blow: bytes, stream: int) -> h2.Frame | None:
        """Strike once; the GOAWAY that ends the connection, or None when calls are answered yet.

        Not asked with a ping, for pings have a bound of their own.
        """
        self.send(blow + self.client.call(stream, b"", "/no.Such/Method"))
        for each in self.frames():
            if each.kind == h2.GOAWAY:
                return each
            if each.kind == h2.HEADERS and each.stream == stream:
                return None
        raise AssertionError("ended without a GOAWAY")

    def close(self) -> None:
        self._socket.close()


class Others:
    """Somebody else, who writes and reads as ever."""

    def __init__(self, cluster: MemberCluster, open_channel: grpc.Channel) -> None:
        self._member = cluster.members[0]
        self._kv = rpc_pb2_grpc.KVStub(open_channel)
        self._kv.Put(rpc.PutRequest(key=b"/others", value=b"calm"))

    def served(self) -> float:
        """A write and a read; how long the slower of them took, in seconds."""
        began = time.perf_counter()
        self._kv.Put(rpc.PutRequest(key=b"/others", value=b"calm"), timeout=IN_TIME_S)
        between = time.perf_counter()
        answer = self._kv.Range(rpc.RangeRequest(key=b"/others"), timeout=IN_TIME_S)
        assert answer.kvs[0].value == b"calm"
        return max(between - began, time.perf_counter() - between)

    def memory(self) -> int:
        """Resident bytes of the member."""
        assert self._member.process is not None
        text = Path(f"/proc/{self._member.process.pid}/status").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * KIB

    def while_attacked(self, attack: Callable[[], object]) -> None:
        """Run an attack again and again in a thread, and be served meanwhile."""
        before, done, rounds = self.memory(), threading.Event(), []

        def again() -> None:
            while not done.is_set():
                attack()
                rounds.append(1)

        with ThreadPoolExecutor(1) as pool:
            attacker = pool.submit(again)
            try:
                while len(rounds) < ROUNDS and not attacker.done():
                    self.served()  # its deadline is the assertion
                    assert self.memory() - before < GROWTH_MAX
            finally:
                done.set()
            attacker.result(30)


@pytest.fixture
def others(alone: MemberCluster) -> Iterator[Others]:
    with channel(alone, "root", alone.members[0]) as made:
        yield Others(alone, made)


def rapid_reset(client: Client, number: int) -> bytes:
    """A read that has begun, taken back at once."""
    stream = 2 * number + 1
    request = rpc.RangeRequest(key=b"/others").SerializeToString()
    return client.call(stream, request, RANGE) + h2.reset(stream)


class Flood(NamedTuple):
    """A kind of frame that no request pays for."""

    piece: Callable[[Client, int], bytes]  # made new for every number
    end: bytes = b"frame flood"  # text of the GOAWAY
    blow: int = 50  # pieces in one write


def continued(part: bytes) -> Callable[[Client, int], bytes]:
    """A header block that never ends."""

    def piece(client: Client, number: int) -> bytes:
        if not number:
            return frame(h2.HEADERS, 0, 1, client.block(RANGE))
        return frame(h2.CONTINUATION, 0, 1, part)

    return piece


# A blow is one TLS record or ends with what is too much: nothing is unread when the end comes, and
# so no TCP reset eats the GOAWAY.
FLOODS = {
    "rapid-reset": Flood(rapid_reset),
    "ping": Flood(lambda _client, _n: frame(h2.PING, 0, 0, b"\0" * 8), b"too_many_pings"),
    "settings": Flood(lambda _client, n: h2.settings(initial_window_size=65_535 + n % 2)),
    "window-update": Flood(lambda _client, _n: h2.window_update(0, 1)),
    "empty-continuations": Flood(continued(b""), blow=FRAME_BUDGET_BURST + 100),
    "endless-header": Flood(continued(b"\0\1a\1b" * 200), b"header block too large", 18),
}


def strike(attacker: Attacker, flood: Flood) -> h2.Frame:
    """Blow after blow until the member has had enough."""
    attacker.send(Client.hello())
    for start in range(0, 20 * FRAME_BUDGET_BURST, flood.blow + 1):
        numbers = range(start, start + flood.blow)
        blow = b"".join(flood.piece(attacker.client, number) for number in numbers)
        end = attacker.heard(blow, 2 * (start + flood.blow) + 1)
        if end is not None:
            return end
    raise AssertionError("the flood was let run")


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_with_enhance_your_calm(
    alone: MemberCluster, others: Others, name: str
) -> None:
    def attack() -> None:
        attacker = Attacker(alone, "mallory")
        try:
            end = strike(attacker, FLOODS[name])
        finally:
            attacker.close()
        ends.append(end.payload[4:])

    ends: list[bytes] = []
    others.while_attacked(attack)
    assert set(ends) == {ENHANCE_YOUR_CALM + FLOODS[name].end}


@pytest.mark.parametrize("name", ["rapid-reset", "ping"])
def test_who_pours_without_looking_is_cut_off(
    alone: MemberCluster, others: Others, name: str
) -> None:
    """Far more in flight than the budget allows when the member closes."""
    client = Client()
    water = b"".join(FLOODS[name].piece(client, n) for n in range(20 * FRAME_BUDGET_BURST))

    def attack() -> None:
        attacker = Attacker(alone, "mallory")
        try:
            # A reset or an end, in time; a TimeoutError is neither.
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                attacker.send(Client.hello() + water)
                deque(attacker.frames(), maxlen=0)
        finally:
            attacker.close()

    others.while_attacked(attack)


class Reading:
    """A watch that is read as it should be, by a thread."""

    def __init__(self, open_channel: grpc.Channel, key: bytes) -> None:
        self.values: list[bytes] = []
        self._created = threading.Event()
        create: Any = {"key": key}
        requests: queue.Queue[Any] = queue.Queue()
        requests.put(rpc.WatchRequest(create_request=create))
        self.call = rpc_pb2_grpc.WatchStub(open_channel).Watch(iter(requests.get, None))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._created.wait(10)

    def _read(self) -> None:
        try:
            for answer in self.call:
                self._created.set()
                self.values += [event.kv.value[:8] for event in answer.events]
        except grpc.RpcError:
            return

    def has(self, count: int) -> bool:
        """Whether that many events have come, in time."""
        limit = time.monotonic() + 10 * IN_TIME_S
        while len(self.values) < count and time.monotonic() < limit:
            time.sleep(0.01)
        return len(self.values) == count

    def close(self) -> None:
        self.call.cancel()
        self._thread.join(10)


def sleeper(alone: MemberCluster, watches: int) -> Attacker:
    """Watches with wide windows, behind a socket that is never read again."""
    sloth = Attacker(alone, "root", receive=4 * KIB)
    sloth.send(Client.hello(initial_window_size=2**31 - 1) + h2.window_update(0, 2**30))
    create: Any = {"key": b"/sloth", "watch_id": 1}  # those of id 0 share what is sent to them
    body = grpc_message(rpc.WatchRequest(create_request=create).SerializeToString())
    for number in range(watches):
        stream = 2 * number + 1
        sloth.send(sloth.client.headers(stream, WATCH) + frame(h2.DATA, 0, stream, body))
    created = (each for each in sloth.frames() if each.kind == h2.DATA)
    assert sum(1 for _, _ in zip(range(watches), created, strict=False)) == watches
    return sloth


def test_watches_that_are_never_read_hold_up_nobody(alone: MemberCluster, others: Others) -> None:
    """Forty of them; kept for each, the events would be a gigabyte."""
    changes, size = 100, 256 * KIB
    sloth = sleeper(alone, 40)
    with channel(alone, "root", alone.members[0]) as made:
        kv, reading = rpc_pb2_grpc.KVStub(made), Reading(made, b"/sloth")
        before = others.memory()
        for number in range(changes):
            value = b"%08d" % number + b"v" * size
            kv.Put(rpc.PutRequest(key=b"/sloth", value=value), timeout=IN_TIME_S)
            others.served()
            assert others.memory() - before < 2 * GROWTH_MAX
        assert reading.has(changes)
        assert reading.values == [b"%08d" % number for number in range(changes)]
        reading.close()
    sloth.close()


@pytest.mark.slow
def test_who_does_not_read_is_cut_off(alone: MemberCluster, others: Others) -> None:
    """After thirty seconds, whatever the kernels hold for it (LIM-18)."""
    sloth = sleeper(alone, 4)
    with channel(alone, "root", alone.members[0]) as made:
        kv = rpc_pb2_grpc.KVStub(made)
        for _ in range(50):
            kv.Put(rpc.PutRequest(key=b"/sloth", value=b"v" * 256 * KIB), timeout=IN_TIME_S)
    began = time.monotonic()
    while "reads too slowly" not in alone.members[0].log_text():
        assert time.monotonic() - began < SLOW_READER_SECONDS_MAX + 15
        others.served()
        time.sleep(0.1)
    assert time.monotonic() - began > SLOW_READER_SECONDS_MAX - 5
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        deque(sloth.frames(), maxlen=0)  # what was under way, and then the end; no TimeoutError
    sloth.close()
