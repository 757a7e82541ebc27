"""What ``plan`` says is what ``apply`` does (agent.md M6): predicted digest, applied digest, disk.

The prediction comes from a pipeline that saw nothing but the present snapshot; the one that applies
keeps what it rendered before and sends only differences to the worker. Both must agree, always.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from configagent.child import Child
from configagent.config import parse
from configagent.errors import StepError
from configagent.pipeline import Pipeline, WriterDoor
from configagent.plan import Result, Step
from configagent.records import load_record
from configagent.render import Renderer
from configagent.seal import NodeKey
from configagent.services import Services
from configagent.settings import Settings
from configagent.snapshot import Change, Entry, Snapshot

from tests.support.agent_config import configuration

CASES = int(os.environ.get("AGENT_PLAN_CASES", "400"))
KEYS = [f"/{area}/{leaf}" for area in ("app", "web") for leaf in ("a", "b", "c", "d")]
NEEDED = ("/web/b", "/web/d")  # some file fails without them
SEED = 20

CONFIG = """\
[security]
allow_roots = ["{base}/root"]
[defaults]
guard = {{ max_shrink = "95%", max_grow = "0%" }}
[[set]]
name = "web"
prefix = "/prod"
{place}
  [[set.file]]
  {a}
  text = '''{{% for kv in gets("/app/*") %}}{{{{ kv.key }}}}={{{{ kv.value | tojson }}}}
{{% endfor %}}end
'''
  [[set.file]]
  {b}
  text = '''{{{{ banner() }}}} {{{{ getv("/web/a", "none") | tojson }}}}
'''
  [[set.file]]
  {c}
  src = "file:c.j2"
  [[set.file]]
  {d}
  key = "/prod/web/d"
"""


def settings(base: Path, commit: str) -> Settings:
    at = 'name = "{0}"' if commit == "dir" else 'dest = "{base}/root/{0}"'
    place = f'commit = "dir"\ndir = "{base}/root/d"' if commit == "dir" else ""
    names = {name: at.format(name, base=base) for name in "abcd"}
    text = configuration(CONFIG, base, ["http://127.0.0.1:1"], place=place, **names)
    return parse(text, str(base / "agent.toml"))


def next_snapshot(chance: random.Random, now: Snapshot) -> Snapshot:
    """Some keys set, changed or deleted; sometimes the same again, sometimes a fresh list."""
    revision = now.revision + chance.randint(1, 3)
    changes = []
    lost = [key for key in NEEDED if key not in now.keys and chance.random() < 0.5]
    for key in chance.sample(KEYS, chance.choice((0, 1, 1, 1, 2, 5))) + lost:
        value = chance.randbytes(chance.choice((1, 6, 30, chance.choice((0, 90))))).hex().encode()
        gone = chance.random() < (0.05 if key in NEEDED else 0.3)
        changes.append(Change(key, None if gone else Entry(value, revision)))
    after = now.after(changes, revision)
    if chance.random() < 0.1:
        return Snapshot(revision, {key: Entry(*entry) for key, entry in after.keys.items()})
    return after


class Bench:
    """One set, a pipeline that applies, and a fresh one for each prediction."""

    def __init__(self, base: Path, commit: str) -> None:
        self.settings = settings(base, commit)
        self.spec = self.settings.sets[0]
        self.root = base / "root"
        self.key = NodeKey(b"k" * 32, "n1")
        self.worker = Child("configagent.render_worker", jobs_max=700)
        self.other = Child("configagent.render_worker")
        self.child = Child("configagent.writer")
        self.door = WriterDoor(self.child)
        self.renderer = self.new_renderer(self.worker)
        self.pipeline = self.new_pipeline(self.renderer)

    def new_renderer(self, worker: Child) -> Renderer:
        return Renderer(self.spec, worker, "n1", {})

    def new_pipeline(self, renderer: Renderer) -> Pipeline:
        state = self.settings.state_dir
        return Pipeline(
            self.spec, load_record(state, "web"), node="n1", state_dir=state, key=self.key,
            renderer=renderer, writer=self.door, services=Services(),
        )  # fmt: skip

    async def start(self) -> None:
        opening: dict[str, Any] = {
            "op": "open", "roots": list(self.settings.allow_roots),
            "state_dir": self.settings.state_dir, "key": self.key.digest_key,
        }  # fmt: skip
        await asyncio.gather(self.worker.start(), self.other.start(), self.child.start(opening))
        await self.pipeline.recover()

    async def stop(self) -> None:
        await asyncio.gather(self.worker.close(), self.other.close(), self.child.close())

    async def predicted(self, snapshot: Snapshot) -> str:
        """The root of what ``plan`` would show, or the kind of its failure."""
        pipeline = self.new_pipeline(self.new_renderer(self.other))
        try:
            return (await pipeline.prepare(snapshot, bounds="")).root
        except StepError as error:
            return f"{type(error).__name__}: {error}"

    async def applied(self, snapshot: Snapshot, changed: set[str]) -> str:
        self.renderer.note(changed)
        result = await self.pipeline.carry_out(Step.APPLY, snapshot, bounds="", restart=False)
        record = self.pipeline.record
        if result in (Result.COMMITTED, Result.UNCHANGED):
            await self.door.ask("save", set="web", record=record.as_dict(), durable=False)
            return record.root
        kind = {Result.RENDER_FAILED: "RenderError", Result.HELD: "HeldError"}[result]
        return f"{kind}: {self.pipeline.reason}"

    def on_disk(self) -> str:
        base = self.root / "d" / "current" if self.spec.commit == "dir" else self.root
        whole = hashlib.sha256()
        for facts in self.pipeline.record.files:
            whole.update((base / os.path.basename(facts["name"])).read_bytes() + b"\0")
        return whole.hexdigest()

    async def shown(self, snapshot: Snapshot) -> str:
        prepared = await self.new_pipeline(self.new_renderer(self.other)).prepare(
            snapshot, bounds=""
        )
        return hashlib.sha256(b"".join(item.content + b"\0" for item in prepared.items)).hexdigest()


@pytest.mark.timeout(60 + CASES)
@pytest.mark.parametrize("commit", ["files", "dir"])
def test_the_predicted_digest_is_the_applied_one(tmp_path: Path, commit: str) -> None:
    for name in ("root", "state", "state/sets"):
        (tmp_path / name).mkdir(mode=0o700)
    source = tmp_path / "c.j2"
    source.write_text("{{ getv('/web/b') | tojson }} {{ exists('/app/a') }}\n")
    source.chmod(0o600)
    chance = random.Random(SEED)

    async def story() -> dict[str, int]:
        bench = Bench(tmp_path, commit)
        await bench.start()
        seen = dict.fromkeys(("committed", "unchanged", "failed"), 0)
        snapshot = Snapshot(1, {key: Entry(b"first", 1) for key in KEYS})
        try:
            for _ in range(CASES // 2):
                before, snapshot = snapshot, next_snapshot(chance, snapshot)
                if chance.random() < 0.03:
                    text = f"{{{{ getv('/web/b') | tojson }}}} {chance.random()}\n"
                    source.write_text(text)
                generation = bench.pipeline.record.generation
                wanted = await bench.predicted(snapshot)
                got = await bench.applied(snapshot, snapshot.differing(before))
                assert got == wanted
                if " " in got:
                    seen["failed"] += 1
                    continue
                assert bench.on_disk() == await bench.shown(snapshot)
                grown = bench.pipeline.record.generation != generation
                seen["committed" if grown else "unchanged"] += 1
        finally:
            await bench.stop()
        return seen

    seen = asyncio.run(story())
    assert min(seen.values()) > CASES // 40, seen
