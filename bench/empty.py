"""The front end with an empty handler: what the generator can draw, and what a library would do.

Three servers answer ``KV/Put`` with a constant: our front end, grpcio's asyncio server, and a
responder that parses nothing but frame lengths. The last one shows the generator's own ceiling.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing as mp
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench import frames, requests
from bench.clusters import HOST, TRUST_DOMAIN, USER
from bench.frames import BenchFault
from bench.link import Target
from bench.load import Load
from bench.report import Measure, Report
from bench.throughput import SHAPES
from configsvc.api.contract import Caller, Method
from configsvc.identity.pki import init_pki, issue
from configsvc.net.contexts import TlsFiles, server_context
from configsvc.net.shell import TlsConnection, TlsFailed
from configsvc.proto import rpc_pb2
from configsvc.types import Principal, Source

ANSWER: Final = rpc_pb2.PutResponse(
    header=rpc_pb2.ResponseHeader(cluster_id=1 << 60, member_id=1 << 61, revision=7, raft_term=2)
).SerializeToString()
_PRINCIPAL: Final = Principal("user", USER, USER, "", "", "", "", "certificate", "", "", 0)
_SOURCE: Final = Source("127.0.0.1", "TLSv1.3", "other", "")


class EmptyIdentity:
    """Everybody is the same caller."""

    key = ""

    def __init__(self) -> None:
        self._caller = Caller(_PRINCIPAL, _SOURCE, b"")

    def caller(self, metadata: tuple[tuple[bytes, bytes], ...]) -> Caller:
        """Who calls."""
        return self._caller


class EmptyApi:
    """One method, one constant."""

    def __init__(self) -> None:
        self.methods = {
            requests.PUT.encode(): Method(
                requests.PUT, lambda caller, raw: ANSWER, None, False, False,
                rpc_pb2.PutRequest, rpc_pb2.PutResponse,
            )
        }  # fmt: skip

    def connection(self, der: bytes | None, peer_ip: str, tls_version: str) -> EmptyIdentity:
        """Judge nobody."""
        return EmptyIdentity()

    def status_of(self, error: BaseException) -> tuple[int, str]:
        """Any error is a bug of the bench."""
        return 13, type(error).__name__


class Responder(asyncio.Protocol):
    """Answers each END_STREAM with bytes made before; knows nothing of HTTP/2 but lengths."""

    _HEAD: Final = b"\x88\x5f\x10application/grpc"
    _END: Final = b"\x00\x0bgrpc-status\x010"

    def __init__(self, context: Any) -> None:
        self._tls = TlsConnection(context, server_side=True)
        self._tail = frames.PREFACE[:0]
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        try:
            plain, answer = self._tls.receive(data)
        except TlsFailed:
            self._transport.close()
            return
        if answer:
            self._transport.write(answer)
        out = []
        data = self._tail + plain
        if not self._greeted and len(data) >= len(frames.PREFACE):
            self._greeted = True
            data = data[len(frames.PREFACE) :]
            grow = (frames.WINDOW - frames.WINDOW_DEFAULT).to_bytes(4, "big")
            out += [frames.frame(frames.SETTINGS, 0, 0), frames.frame(8, 0, 0, grow)]
        at = 0
        message = frames.grpc_message(ANSWER)
        while self._greeted and len(data) - at >= 9:
            word, flags, stream = frames._HEAD.unpack_from(data, at)
            stop = at + 9 + (word >> 8)
            if stop > len(data):
                break
            at = stop
            if word & 0xFF == frames.DATA and flags & frames.END_STREAM:
                out += [
                    frames.frame(frames.HEADERS, frames.END_HEADERS, stream, self._HEAD),
                    frames.frame(frames.DATA, 0, stream, message),
                    frames.frame(frames.HEADERS, 5, stream, self._END),
                ]
        self._tail = data[at:]
        if out:
            self._transport.write(self._tls.send(b"".join(out)))


async def _serve_frontend(files: TlsFiles, ready: Callable[[int], None]) -> None:
    from configsvc.frontend.server import Frontend

    context = server_context(files, alpn=("h2",))
    listener = Frontend(EmptyApi(), None).listen(HOST, 0, tls=lambda: context)
    ready(listener.address[1])
    await asyncio.Event().wait()


async def _serve_responder(files: TlsFiles, ready: Callable[[int], None]) -> None:
    context = server_context(files, alpn=("h2",))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Responder(context), HOST, 0)
    ready(server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


async def _serve_grpc_aio(files: TlsFiles, ready: Callable[[int], None]) -> None:
    import grpc
    import grpc.aio

    async def put(request: bytes, context: Any) -> bytes:
        return ANSWER

    handler = grpc.unary_unary_rpc_method_handler(put)
    server = grpc.aio.server()
    service = requests.PUT.split("/")[1]
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Put": handler}),)
    )
    pair = (Path(files.key).read_bytes(), Path(files.cert).read_bytes())
    ca = Path(files.ca).read_bytes()
    credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    port = server.add_secure_port(f"{HOST}:0", credentials)
    await server.start()
    ready(port)
    await asyncio.Event().wait()


SERVERS: Final = {
    "front end": _serve_frontend,
    "grpc.aio": _serve_grpc_aio,
    "frame responder": _serve_responder,
}


def _run(kind: str, files: TlsFiles, pipe: Any) -> None:
    import uvloop

    uvloop.run(SERVERS[kind](files, pipe.send))


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[Target]:
    """A server with an empty handler in a process of its own.

    Raises:
        BenchFault: it does not start.
    """
    pki = folder / "pki"
    if not pki.exists():
        init_pki(pki, TRUST_DOMAIN, development=True)
        issue(pki, "server", "empty", dns=("localhost",), ips=(HOST,), out=folder, stem="server")
        issue(pki, "user", USER, out=folder, stem="user")
    files = TlsFiles(
        str(folder / "server.pem"), str(folder / "server.key"), str(pki / "ca-client.pem")
    )
    spawn = mp.get_context("spawn")  # grpcio must not be forked
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(kind, files, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(15.0):
            raise BenchFault(f"{kind} does not start")
        yield Target(
            HOST, ours.recv(), str(pki / "ca-server.pem"),
            str(folder / "user.pem"), str(folder / "user.key"),
        )  # fmt: skip
    finally:
        process.kill()
        process.join()


def measure(report: Report, folder: Path, rounds: int, seconds: float) -> None:
    """Rows without etcd: the ratio to ``grpc.aio`` stands in the notes."""
    for shape in SHAPES:
        found: dict[str, list[float]] = {}
        client_us = 0.0
        for kind in SERVERS:
            with serving(kind, folder) as target:
                load = Load(target, "put", shape)
                try:
                    outcomes = [load.run(0.2, seconds) for _ in range(rounds)]
                finally:
                    load.close()
            found[kind] = [each.rate for each in outcomes]
            if kind == "frame responder":
                client_us = outcomes[-1].client_us
        _tell(report, str(shape), found, client_us)


def _tell(report: Report, shape: str, found: dict[str, list[float]], client_us: float) -> None:
    ours = Measure(f"empty handler {shape}, front end", "requests/s", "higher")
    ours.ours = found["front end"]
    middle = sorted(found["grpc.aio"])[len(found["grpc.aio"]) // 2]
    best = sorted(found["front end"])[len(found["front end"]) // 2]
    ours.notes = {"grpc_aio": round(middle), "times_grpc_aio": round(best / middle, 2)}
    report.add(ours)
    theirs = Measure(f"empty handler {shape}, grpc.aio", "requests/s", "higher")
    theirs.ours = found["grpc.aio"]
    report.add(theirs)
    ceiling = Measure(f"generator {shape}, frame responder", "requests/s", "higher")
    ceiling.ours = found["frame responder"]
    ceiling.notes = {"generator_us": round(client_us, 2)}
    report.add(ceiling)
