"""``make foreign``: clients that others wrote, against one member of ours, a line each.

A client that is not here fails like one that does not get on with us: what was not tried was not
seen. ``tools`` says where each comes from. The member is plaintext and without rights, for the
question is whether the bytes are understood; TLS and rights have tests of their own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from configsvc.proto import rpc_pb2, rpc_pb2_grpc
from tests.foreign.tools import CLIENTS_JS, NODE_MODULES, environment, find

START_S: Final = 30.0
CLIENT_S: Final = 180.0


class ForeignFault(Exception):
    """What a client did not get, or said."""


def told(*argv: str, within: str = "") -> str:
    """Output of a client that must succeed and print ``within``."""
    program = find(argv[0])
    if program is None:
        raise ForeignFault(f"{argv[0]} is not here")
    extra = {"NODE_PATH": str(NODE_MODULES), "ETCDCTL_API": "3"}
    done = subprocess.run(
        [program, *argv[1:]],
        env=environment() | extra,
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
        check=False,
    )
    text = done.stdout + done.stderr
    if done.returncode or within not in text:
        raise ForeignFault(f"exit {done.returncode}: {' '.join(text.split())[-400:]}")
    return text


def curl(address: str) -> str:
    """JSON by HTTP/1.1 and by HTTP/2 with prior knowledge."""
    for version in ("--http1.1", "--http2-prior-knowledge"):
        told("curl", "-sS", version, f"http://{address}/health", within='"health"')
        body = '{"key":"Zm9yZWlnbi9jdXJs","value":"YQ=="}'
        told("curl", "-sS", version, "-d", body, f"http://{address}/v3/kv/put", within='"header"')
    return "HTTP/1.1 and HTTP/2: health, put"


def grpcio(address: str) -> str:
    """Calls and a watch by grpcio."""
    with grpc.insecure_channel(address) as channel:
        kv, watch = rpc_pb2_grpc.KVStub(channel), rpc_pb2_grpc.WatchStub(channel)  # type: ignore[no-untyped-call]
        create = rpc_pb2.WatchCreateRequest(key=b"foreign/grpcio", start_revision=1)
        answers = watch.Watch(iter([rpc_pb2.WatchRequest(create_request=create)]), timeout=20)
        kv.Put(rpc_pb2.PutRequest(key=b"foreign/grpcio", value=b"v" * 100_000), timeout=20)
        seen: list[Any] = []
        for answer in answers:
            seen += answer.events
            if seen:
                break
        answers.cancel()
        if seen[0].kv.value != b"v" * 100_000:
            raise ForeignFault("the watch told another value")
    return "put of 100 kB, watch"


def etcdctl(address: str) -> str:
    """etcd's own command."""
    told("etcdctl", f"--endpoints={address}", "put", "foreign/etcdctl", "a", within="OK")
    told("etcdctl", f"--endpoints={address}", "get", "foreign/etcdctl", within="a")
    told("etcdctl", f"--endpoints={address}", "endpoint", "health", within="is healthy")
    return "put, get, endpoint health"


def nghttp(address: str) -> str:
    """nghttp2's client, frames shown."""
    told("nghttp", "-nv", f"http://{address}/health", within=":status: 200")
    return "health"


def h2load(address: str) -> str:
    """nghttp2's load: every request must be answered with 2xx."""
    told("h2load", "-n", "2000", "-c", "10", "-m", "20", f"http://{address}/version",
         within="2000 succeeded, 0 failed, 0 errored, 0 timeout")  # fmt: skip
    return "2000 requests on 10 connections, all answered"


PREFACE: Final = "Sends invalid connection preface"


def h2spec(address: str) -> str:
    """The conformance suite. In plaintext an invalid preface is answered as bad HTTP/1.1."""
    host, port = address.split(":")
    try:
        told("h2spec", "-h", host, "-p", port, "-P", "/health", "--strict",
             "--max-header-length", "2000", within="0 failed")  # fmt: skip
    except ForeignFault as fault:
        text = str(fault)
    else:
        return "all passed"
    if ", 1 failed" in text and PREFACE in text:
        return "all passed but the invalid preface, which a shared port takes for HTTP/1.1"
    raise ForeignFault(text)


def grpc_js(address: str) -> str:
    """Node's gRPC."""
    told("node", str(CLIENTS_JS), "grpc-js", address)
    return "50 calls at once, an unknown method"


def etcd3(address: str) -> str:
    """Node's etcd client."""
    told("node", str(CLIENTS_JS), "etcd3", address)
    return "put, get, watch, lease"


CLIENTS: Final = (curl, grpcio, etcdctl, nghttp, h2load, h2spec, grpc_js, etcd3)


@contextmanager
def member(port: int) -> Iterator[str]:
    """A single plaintext member; yields its client address."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    with tempfile.TemporaryDirectory() as directory, (Path(directory) / "log").open("wb") as log:
        argv = [
            *(sys.executable, "-m", "configsvc.cli.configsvc", "--insecure-dev"),
            *("--data-dir", f"{directory}/data", "--initial-cluster", f"default={peer}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        ]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            until = time.monotonic() + START_S
            while b"ready to serve" not in (Path(directory) / "log").read_bytes():
                if process.poll() is not None or time.monotonic() > until:
                    raise ForeignFault((Path(directory) / "log").read_text()[-500:])
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def main() -> int:
    parser = argparse.ArgumentParser(description="clients that others wrote")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT_BASE", "23790")))
    parser.add_argument("--only", choices=[each.__name__ for each in CLIENTS], action="append")
    asked = parser.parse_args()
    failed = 0
    chosen = [each for each in CLIENTS if not asked.only or each.__name__ in asked.only]
    with member(asked.port) as address:
        for client in chosen:
            try:
                good, text = True, client(address)
            except (ForeignFault, grpc.RpcError, subprocess.TimeoutExpired) as fault:
                good, text = False, str(fault)
            failed += not good
            print(f"{client.__name__:10} {'ok    ' if good else 'FAILED'} {text}", flush=True)
    print(f"{len(chosen)} clients, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
