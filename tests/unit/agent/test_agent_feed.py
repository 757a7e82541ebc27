"""What the feed remembers while a list fails."""

from __future__ import annotations

import asyncio
import io
from typing import Any, cast

from configagent.feed import Feed, Link
from configagent.log import Log
from configagent.settings import Store
from configagent.snapshot import Entry, Snapshot

from configsvc.errors import ConfigServiceError

STORE = Store(
    endpoints=("http://127.0.0.1:1",), ca="", cert="", key="",
    backoff_min_s=0.001, backoff_max_s=0.002, heartbeat_s=1.0, reconcile_s=1.0,
)  # fmt: skip


class ScriptedFeed(Feed):
    """Lists what it is told to; an exception in the script is raised."""

    def __init__(self, script: list[Snapshot | Exception], heard: list[set[str]]) -> None:
        super().__init__(
            cast(Any, type("Spec", (), {"name": "web"})), STORE, cast(Any, None),
            Link(lambda: None), Log("debug", io.StringIO()), floor=0, on_change=heard.append,
        )  # fmt: skip
        self.script = script

    async def _list(self, *, keys_only: bool = False, at: int = 0) -> Snapshot:
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_key_that_went_while_a_list_failed_is_said_to_have_changed() -> None:
    heard: list[set[str]] = []
    both = Snapshot(5, {"/a": Entry(b"1", 4), "/b": Entry(b"1", 5)})
    one = Snapshot(9, {"/a": Entry(b"1", 4)})
    feed = ScriptedFeed([both, ConfigServiceError("away"), one], heard)

    async def story() -> None:
        feed._accept(await feed._list())
        await feed._relist()
        assert feed.snapshot is None  # so that the next life lists again
        feed._accept(await feed._list())

    asyncio.run(story())
    assert heard == [{"/a", "/b"}, {"/b"}]
