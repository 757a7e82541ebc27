"""From a snapshot to the bytes of every file of a set, through the render worker.

What each file read is remembered, so that a change to a key that nothing read renders nothing
(C7), and a changed key renders only the files that read it. The worker holds the keys of the set
that it rendered last, so that only differences travel; when it does not hold what we think (it was
restarted, another set had its turn) it says so and gets all of them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from configagent.child import Child, ChildLostError
from configagent.errors import HeldError, InsecureError, RenderError, WorkerError
from configagent.paths import SURE_NS, open_folder, read_regular
from configagent.settings import FileSpec, SetSpec
from configagent.snapshot import Snapshot, content_revision
from configsvc import limits


class Output(NamedTuple):
    """One rendered file."""

    spec: FileSpec
    content: bytes
    keys: frozenset[str]  # relative keys it looked at, found or not
    found: int  # how many of them exist
    spans: tuple[str, ...]  # and prefixes it listed
    secret: bool
    used_revision: bool
    revision: int  # of the newest key it read
    template_sha256: str

    def concerns(self, changed: Iterable[str]) -> bool:
        """Whether a change to one of these keys could change the file."""
        return any(
            key in self.keys or any(key.startswith(span) for span in self.spans) for key in changed
        )


class Rendered(NamedTuple):
    """All files of a set, from one revision."""

    outputs: tuple[Output, ...]
    content_revision: int
    target_revision: int


class _Source(NamedTuple):
    """A template as it was read last."""

    mark: object  # what must be the same for the text to be; None: read it again
    text: str
    sha256: str


class _Known(NamedTuple):
    """An output and what it was made for."""

    sha256: str  # of the template
    revision: int  # that it may have printed
    output: Output


class HeldKeys:
    """What the worker holds of one set's keys, as far as we know."""

    def __init__(self, set_name: str) -> None:
        self._set = set_name
        self._number = 0  # of what it holds; 0: nothing
        self._snapshot = Snapshot(0)

    def step(self, snapshot: Snapshot, *, whole: bool) -> dict[str, Any]:
        """What brings the worker to ``snapshot``; ``whole``: whatever it holds."""
        put: dict[str, bytes] = {}
        gone: list[str] = []
        base = 0 if whole else self._number
        if not base:
            put = snapshot.values()
        elif snapshot is not self._snapshot:
            old, new = self._snapshot.keys, snapshot.keys
            put = {name: entry.value for name, entry in new.items() if old.get(name) is not entry}
            gone = list(old.keys() - new.keys())
        if not base or put or gone:
            self._number += 1
        self._snapshot = snapshot
        return {"set": self._set, "base": base, "number": self._number, "put": put,
                "gone": gone, "count": len(snapshot.keys)}  # fmt: skip


class Renderer:
    """Renders one set; keeps the last outputs."""

    def __init__(self, spec: SetSpec, worker: Child, node: str, env: Mapping[str, str]) -> None:
        self._spec = spec
        self._worker = worker
        self._node = {"name": node, "labels": {}}
        self._env = dict(env)
        self._held = HeldKeys(spec.name)
        self._sources: dict[str, _Source] = {}  # by file
        # By file and whether it is the second pass, which knows the revision.
        self._known: dict[tuple[str, bool], _Known] = {}
        self._changed: set[str] | None = None  # since the last success; None: everything

    def note(self, changed: Iterable[str]) -> None:
        """Keys changed."""
        if self._changed is not None:
            self._changed.update(changed)

    def concerned(self, changed: set[str]) -> bool:
        """Whether a change to these keys can change any file."""
        if self._changed is None or any(
            (f.name, False) not in self._known for f in self._spec.files
        ):
            return True
        sources = {s.template[len("store:" + self._spec.prefix) :] for s in self._spec.files
                   if s.template.startswith("store:")}  # fmt: skip
        return bool(sources & changed) or any(
            known.output.concerns(changed) for known in self._known.values()
        )

    def forget(self) -> None:
        """Render everything next time."""
        self._changed = None
        self._known.clear()

    async def render(self, snapshot: Snapshot, *, fresh: bool = False) -> Rendered:
        """All files.

        Raises:
            RenderError: the first file that failed, with key and line.
            HeldError: a needed key is missing and the set says to wait for it.
        """
        if fresh:
            self.forget()
        # What changes while we render counts for the next time.
        changed, self._changed = self._changed, set()
        try:
            outputs = await self._all(snapshot, changed)
        except BaseException:
            if changed is None or self._changed is None:
                self._changed = None
            else:
                self._changed |= changed
            raise
        newest = max((output.revision for output in outputs), default=0)
        return Rendered(tuple(outputs), newest, snapshot.revision)

    async def _all(self, snapshot: Snapshot, changed: set[str] | None) -> list[Output]:
        outputs = [await self._one(file, snapshot, 0, changed) for file in self._spec.files]
        newest = max((output.revision for output in outputs), default=0)
        for place, output in enumerate(outputs):
            if output.used_revision:
                file = self._spec.files[place]
                outputs[place] = await self._one(file, snapshot, newest, changed, second=True)
        return outputs

    async def _one(
        self,
        file: FileSpec,
        snapshot: Snapshot,
        revision: int,
        changed: set[str] | None,
        *,
        second: bool = False,
    ) -> Output:
        source = _Source(None, "", "") if file.key else self._source(file, snapshot)
        known = self._known.get((file.name, second))
        if (
            known is not None
            and changed is not None
            and known.sha256 == source.sha256
            and (known.revision == revision or not known.output.used_revision)
            and not known.output.concerns(changed)
        ):
            return known.output
        self._known.pop((file.name, second), None)
        if file.key:
            output = await self._plain(file, snapshot)
        else:
            output = await self._rendered(file, snapshot, source, revision)
        self._known[file.name, second] = _Known(source.sha256, revision, output)
        return output

    async def _rendered(
        self, file: FileSpec, snapshot: Snapshot, source: _Source, revision: int
    ) -> Output:
        request = {
            "op": "render", "source": source.text, "scope": list(self._spec.keys),
            "set": self._spec.name, "revision": revision, "env": self._env, "node": self._node,
            "bytes_max": file.guard.max_bytes, "format": file.format,
        }  # fmt: skip
        answer = await self._ask(file, request | {"held": self._held.step(snapshot, whole=False)})
        if answer.get("stale"):
            answer = await self._ask(
                file, request | {"held": self._held.step(snapshot, whole=True)}
            )
        self._judge(file, answer)
        output = Output(
            file,
            str(answer["text"]).encode(),
            frozenset(answer["keys"]),
            sum(key in snapshot.keys for key in answer["keys"]),
            tuple(answer["spans"]),
            bool(answer["secret"]),
            bool(answer["used_revision"]),
            content_revision(snapshot.keys, answer["keys"]),
            source.sha256,
        )
        if output.secret and file.mode & ~0o640:
            raise RenderError(f"{file.name}: secret() in a file wider than 0640", file.name)
        return output

    def _judge(self, file: FileSpec, answer: dict[str, Any]) -> None:
        reason = answer.get("error")
        if reason is None:
            return
        line = answer.get("line", 0)
        where = f"{file.name}: {self._shown_source(file)}" + (f" line {line}" if line else "")
        text = f"{where}: {reason}"[: limits.AGENT_REASON_CHARS_MAX]
        if answer.get("missing") and self._spec.on_missing_key == "hold":
            raise HeldError(text, file.name)
        raise RenderError(text, file.name)

    async def _ask(self, file: FileSpec, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._worker.call(request, limits.AGENT_RENDER_SECONDS_MAX)
        except ChildLostError as error:
            raise WorkerError(f"{file.name}: the render worker {error}", file.name) from None

    async def _plain(self, file: FileSpec, snapshot: Snapshot) -> Output:
        """A file that is a key's value, byte for byte."""
        entry = snapshot.keys.get(file.key)
        if entry is None:
            text = f"{file.name}: key {file.key}: does not exist"
            if self._spec.on_missing_key == "hold":
                raise HeldError(text, file.name)
            raise RenderError(text, file.name)
        if file.format:
            request = {"op": "check", "format": file.format, "content": entry.value}
            reason = (await self._ask(file, request)).get("error")
            if reason:
                raise RenderError(f"{file.name}: key {file.key}: {reason}", file.name)
        read = frozenset((file.key,))
        return Output(file, entry.value, read, 1, (), False, False, entry.mod_revision, "")

    # --- sources ----------------------------------------------------------------------------------

    def _shown_source(self, file: FileSpec) -> str:
        kind, _, rest = file.template.partition(":")
        return "text" if not kind else (os.path.basename(rest) if kind == "file" else rest)

    def _source(self, file: FileSpec, snapshot: Snapshot) -> _Source:
        """The template; read and digested again only where it may have changed."""
        kind, _, rest = file.template.partition(":")
        mark: object = file.text
        if kind == "file":
            mark = template_mark(rest)
        elif kind:
            mark = snapshot.keys.get(rest.removeprefix(self._spec.prefix))
        known = self._sources.get(file.name)
        if known is not None and mark is not None and known.mark == mark:
            return known
        if kind == "file":
            text = read_template(rest)
        else:
            text = self._stored_source(file, snapshot, rest) if kind else file.text
        source = _Source(mark, text, hashlib.sha256(text.encode()).hexdigest())
        self._sources[file.name] = source
        return source

    def _stored_source(self, file: FileSpec, snapshot: Snapshot, key: str) -> str:
        entry = snapshot.keys.get(key.removeprefix(self._spec.prefix))
        if entry is None:
            raise RenderError(f"{file.name}: template {key} does not exist", file.name)
        if len(entry.value) > limits.AGENT_TEMPLATE_BYTES_MAX:
            raise RenderError(f"{file.name}: template {key} is too large", file.name)
        try:
            return entry.value.decode()
        except UnicodeDecodeError:
            raise RenderError(f"{file.name}: template {key} is not UTF-8", file.name) from None


def template_mark(path: str) -> object:
    """What changes whenever a local template or its rights do; None: not to be relied on (yet).

    A change within the same tick of the clock as the one before leaves the same marks: who looks
    right after a change looks again.
    """
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) < SURE_NS:
        return None
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns,
            info.st_mode, info.st_uid)  # fmt: skip


def read_template(path: str) -> str:
    """A local template; only root or the agent may be able to write it.

    Raises:
        RenderError: missing, foreign, too large, not UTF-8.
    """
    shown = os.path.basename(path)
    try:
        folder = open_folder(os.path.dirname(path))
        try:
            content, info = read_regular(folder, shown, limits.AGENT_TEMPLATE_BYTES_MAX + 1)
        finally:
            os.close(folder)
    except OSError as error:
        raise RenderError(f"template {path}: {error.strerror}", path) from None
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RenderError(f"template {path}: others may write it", path)
    if len(content) > limits.AGENT_TEMPLATE_BYTES_MAX:
        raise RenderError(f"template {path}: larger than the bound", path)
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RenderError(f"template {path}: not UTF-8", path) from None


def allowed_environment(names: Iterable[str]) -> dict[str, str]:
    """The variables that templates may read, as they are now."""
    return {name: os.environ[name] for name in names if name in os.environ}


def check_version() -> None:
    """Refuse a jinja2 with known ways out of its sandbox (I11).

    Raises:
        InsecureError: older than 3.1.6.
    """
    from importlib.metadata import version

    found = version("jinja2")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < (3, 1, 6):
        raise InsecureError(f"jinja2 {found}: 3.1.6 or newer is needed")
