"""A JSON client that shows what is on the wire: status, fields, raw chunks."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HOST = "127.0.0.1"


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class JsonClient:
    """One identity; a kept connection for whole answers, one of its own per stream."""

    def __init__(self, port: int, pki: Path, pair: Path) -> None:
        self.port = port
        chain = (pki / "ca-server.pem").read_text() + (pki / "root.pem").read_text()
        self.tls = ssl.create_default_context(cadata=chain)
        self.tls.load_cert_chain(f"{pair}.pem", f"{pair}.key")
        self._kept = http.client.HTTPSConnection(HOST, port, timeout=10, context=self.tls)

    def call(
        self,
        path: str,
        body: Any = "",
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        data = body if isinstance(body, str) else json.dumps(body)
        fields = {"Content-Type": "application/x-www-form-urlencoded"} | (headers or {})
        self._kept.request(method, path, data.encode() or None, fields)
        answer = self._kept.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read().decode())

    def get(self, path: str, **headers: str) -> Answer:
        return self.call(path, method="GET", headers=headers)

    def stream(self, path: str, body: str, **headers: str) -> Stream:
        return Stream(self, path, body, headers)

    def close(self) -> None:
        self._kept.close()


class Stream:
    """A POST whose answer comes in chunks; each is shown as it was framed."""

    def __init__(self, client: JsonClient, path: str, body: str, headers: dict[str, str]) -> None:
        raw = socket.create_connection((HOST, client.port), timeout=10)
        self._socket = client.tls.wrap_socket(raw, server_hostname=HOST)
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = body.encode()
        self._socket.sendall(
            f"POST {path} HTTP/1.1\r\nHost: {HOST}:{client.port}\r\n{extra}"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        self._file = self._socket.makefile("rb")
        self._status = 0
        self.headers: dict[str, str] = {}

    @property
    def status(self) -> int:
        """Status of the answer, which may take its time."""
        if not self._status:
            self._status = int(self._file.readline().split()[1])
            while line := self._file.readline().strip():
                name, _, value = line.decode().partition(":")
                self.headers[name.lower()] = value.strip()
        return self._status

    def chunk(self) -> str:
        """The next chunk; "" at the end of the answer."""
        assert self.status
        assert self.headers.get("transfer-encoding") == "chunked"
        size = int(self._file.readline(), 16)
        data = self._file.read(size)
        assert self._file.readline() == b"\r\n"
        return data.decode()

    def result(self) -> Any:
        return json.loads(self.chunk())["result"]

    def chunks(self) -> Iterator[str]:
        while text := self.chunk():
            yield text

    def body(self) -> str:
        """A whole answer that is not chunked."""
        assert self.status
        return self._file.read(int(self.headers["content-length"])).decode()

    def quiet(self, seconds: float) -> bool:
        """Whether nothing arrives for so long."""
        self._socket.settimeout(seconds)
        try:
            self._file.peek(1)
        except TimeoutError:
            self._file = self._socket.makefile("rb")  # the old one reads nothing any more
            return True
        finally:
            self._socket.settimeout(10)
        return False

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
