"""An HTTP/2 session without a socket, its client, and a clock that stands still."""

from __future__ import annotations

from configsvc.frontend.http2_session import Http2Session
from configsvc.frontend.shared import Shared, judge
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.http2_frames import Answer, Client


class Rig:
    """A session, its client, a clock that stands still, and what it was answered."""

    def __init__(self, *, refuse: bool = False, serves_grpc: bool = True, **settings: int) -> None:
        self.api = FakeApi()
        self.api.refuse = refuse
        self.http = FakeHttp()
        self.now = 50.0
        self.dirty = 0
        self.shared = Shared(self.api, self.http, lambda: self.now, serves_grpc=serves_grpc)
        identity = judge(self.shared, None, "127.0.0.1", "")
        tally = self.shared.admission.join(identity.key)
        assert tally is not None
        self.tally = tally
        self.session = Http2Session(self.shared, identity, tally, self._on_dirty)
        self.client = Client()
        self.session.receive(Client.hello(**settings) + h2.SETTINGS_ACK)
        self.session.take()

    def _on_dirty(self) -> None:
        self.dirty += 1

    def send(self, data: bytes) -> dict[int, Answer]:
        self.session.receive(data)
        return self.answers()

    def answers(self) -> dict[int, Answer]:
        out = b""
        while part := self.session.take():
            out += part
        return self.client.answers(out)


def http(rig: Rig, stream: int, path: str, method: str = "GET", **options: bool) -> bytes:
    return rig.client.headers(stream, path, method=method, content_type=None, **options)
