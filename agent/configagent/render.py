"""From a snapshot to the bytes of every file of a set, through the render worker.

What each file read is remembered, so that a change to a key that nothing read renders nothing
(C7), and a changed key renders only the files that read it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from configagent.child import Child, ChildLostError
from configagent.errors import HeldError, InsecureError, RenderError, WorkerError
from configagent.paths import open_folder, read_regular
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


class Renderer:
    """Renders one set; keeps the last outputs."""

    def __init__(self, spec: SetSpec, worker: Child, node: str, env: Mapping[str, str]) -> None:
        self._spec = spec
        self._worker = worker
        self._node = {"name": node, "labels": {}}
        self._env = dict(env)
        self._known: dict[str, tuple[str, Output]] = {}  # file -> (template digest, output)
        self._changed: set[str] | None = None  # since the last success; None: everything

    def note(self, changed: Iterable[str]) -> None:
        """Keys changed."""
        if self._changed is not None:
            self._changed.update(changed)

    def concerned(self, changed: set[str]) -> bool:
        """Whether a change to these keys can change any file."""
        if self._changed is None or len(self._known) != len(self._spec.files):
            return True
        sources = {s.template[len("store:" + self._spec.prefix) :] for s in self._spec.files
                   if s.template.startswith("store:")}  # fmt: skip
        return bool(sources & changed) or any(
            output.concerns(changed) for _, output in self._known.values()
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
        values = snapshot.values()
        outputs = [await self._one(f, snapshot, values, 0, changed) for f in self._spec.files]
        newest = max((output.revision for output in outputs), default=0)
        for place, output in enumerate(outputs):
            if output.used_revision:
                file = self._spec.files[place]
                outputs[place] = await self._one(file, snapshot, values, newest, changed)
        return outputs

    async def _one(
        self,
        file: FileSpec,
        snapshot: Snapshot,
        values: dict[str, bytes],
        revision: int,
        changed: set[str] | None,
    ) -> Output:
        if file.key:
            return await self._plain(file, snapshot)
        source = self._source(file, snapshot)
        digest = hashlib.sha256(source.encode()).hexdigest()
        known = self._known.get(file.name)
        if (
            known is not None
            and known[0] == digest
            and changed is not None
            and not known[1].concerns(changed)
            and not known[1].used_revision
        ):
            return known[1]
        request = {
            "op": "render", "source": source, "keys": values, "scope": list(self._spec.keys),
            "set": self._spec.name, "revision": revision, "env": self._env, "node": self._node,
            "bytes_max": file.guard.max_bytes, "format": file.format,
        }  # fmt: skip
        answer = await self._ask(file, request)
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
            digest,
        )
        if output.secret and file.mode & ~0o640:
            raise RenderError(f"{file.name}: secret() in a file wider than 0640", file.name)
        self._known[file.name] = (digest, output)
        return output

    def _judge(self, file: FileSpec, answer: dict[str, Any]) -> None:
        reason = answer.get("error")
        if reason is None:
            return
        self._known.pop(file.name, None)
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
        output = Output(file, entry.value, read, 1, (), False, False, entry.mod_revision, "")
        self._known[file.name] = ("", output)
        return output

    # --- sources ----------------------------------------------------------------------------------

    def _shown_source(self, file: FileSpec) -> str:
        kind, _, rest = file.template.partition(":")
        return "text" if not kind else (os.path.basename(rest) if kind == "file" else rest)

    def _source(self, file: FileSpec, snapshot: Snapshot) -> str:
        kind, _, rest = file.template.partition(":")
        if not kind:
            return file.text
        if kind == "file":
            return read_template(rest)
        entry = snapshot.keys.get(rest.removeprefix(self._spec.prefix))
        if entry is None:
            raise RenderError(f"{file.name}: template {rest} does not exist", file.name)
        if len(entry.value) > limits.AGENT_TEMPLATE_BYTES_MAX:
            raise RenderError(f"{file.name}: template {rest} is too large", file.name)
        try:
            return entry.value.decode()
        except UnicodeDecodeError:
            raise RenderError(f"{file.name}: template {rest} is not UTF-8", file.name) from None


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
