"""Single calls over the generator's own frames: set-up, questions, retries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.frames import BenchFault, grpc_message
from bench.link import Link, Links, Target
from configsvc.proto import rpc_pb2

CALL_S = 5.0


class CallLink(Link):
    """Keeps the answers of its calls."""

    answers: dict[int, tuple[bytes, str]]

    def on_answer(self, stream: int, message: bytes, trouble: str) -> None:
        self.answers[stream] = (message, trouble)

    def ask(self, path: str, body: bytes) -> int:
        """Send one request; its answer will be in ``answers``."""
        stream = self.take_stream()
        self.reader.send_window -= len(grpc_message(body))
        template_free(self, stream, path, body)
        return stream


def template_free(link: Link, stream: int, path: str, body: bytes) -> None:
    """One request that is not worth a template."""
    from bench import frames

    block = link.blocks.encode(frames.request_fields(path, link.target.authority))
    link.send(
        frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
        + frames.frame(frames.DATA, frames.END_STREAM, stream, grpc_message(body))
    )


@contextlib.contextmanager
def calling(target: Target) -> Iterator[tuple[Links, CallLink]]:
    """One open connection.

    Raises:
        BenchFault: it cannot be opened.
    """
    links = Links()
    try:
        try:
            link = CallLink(target, target.context())
        except OSError as error:
            raise BenchFault(f"{target.authority}: {error.strerror or error}") from None
        link.answers = {}
        links.open([link])
        yield links, link
    finally:
        links.close()


def call(target: Target, path: str, body: bytes = b"", seconds: float = CALL_S) -> bytes:
    """One call on a connection of its own.

    Raises:
        BenchFault: no answer in time, or not status OK.
    """
    with calling(target) as (links, link):
        stream = link.ask(path, body)
        if not links.run_until(lambda: stream in link.answers, seconds):
            raise BenchFault(f"{path}: no answer")
        message, trouble = link.answers[stream]
    if trouble:
        raise BenchFault(f"{path}: {trouble}")
    return message


def status(target: Target) -> rpc_pb2.StatusResponse:
    """Maintenance.Status of one member."""
    return rpc_pb2.StatusResponse.FromString(call(target, "/etcdserverpb.Maintenance/Status"))
