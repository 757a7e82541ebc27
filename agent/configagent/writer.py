"""The writer: the one process that changes files below the roots.

Confined by Landlock to the roots and the state directory, without programs and network (I6, B3).
It decides nothing: the agent asks for one step at a time, and every answer is either a fact or
the outcome of a failed step.

Always true: a set with an unfinished swap is rolled forward before its next step.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from configagent import confine, frames
from configagent.commits import (
    CURRENT,
    DirProtocol,
    FilesProtocol,
    Item,
    Mark,
    deviation,
    make_tree,
    remove_tree,
    root_digest,
)
from configagent.disk import Mounts, Seen, Together, digest
from configagent.errors import RefusedError, StepError, WriteError
from configagent.paths import Roots, look_at, read_regular, write_new, write_unsynced
from configagent.records import (
    RECORD,
    Record,
    generation_numbers,
    load_record,
    open_state,
    pack_record,
    save_record,
    set_folder,
    write_beside,
)
from configsvc import limits
from configsvc.errors import ensure


def _nothing(step: str) -> None:
    """No fail point."""


class Writer:
    """Carries out steps. ``mark`` is called between them (tests stop the world there)."""

    def __init__(
        self, roots: tuple[str, ...], state_dir: str, key: bytes, mark: Mark = _nothing
    ) -> None:
        self._roots = Roots(roots)
        self._state_dir = state_dir
        self._key = key
        self._mark = mark
        self._staged: dict[str, dict[str, Any]] = {}
        self._seen = Seen()
        self._mounts = Mounts()

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """One step; the answer holds "error" and "kind" when it failed."""
        step = {
            "stage": self.stage, "commit": self.commit, "abandon": self.abandon,
            "recover": self.recover, "scan": self.scan, "save": self.save, "links": self.links,
            "copy": self.copy, "prune": self.prune,
        }.get(request["op"])  # fmt: skip
        if step is None:
            return {}
        try:
            return step(request)
        except StepError as error:
            return {"error": str(error), "kind": error.outcome, "path": error.path}
        except OSError as error:
            shown = f"{error.filename or self._state_dir}: {error.strerror}"
            return {"error": shown, "kind": WriteError.outcome, "path": ""}

    # --- stage, commit, abandon -------------------------------------------------------------------

    def stage(self, request: dict[str, Any]) -> dict[str, Any]:
        """Put new content where it can be checked; with "record" in it commit at once."""
        name = request["set"]
        self._roll_forward(request)
        self._forget(name)
        items = [Item(*one) for one in request["items"]]
        with Together() as written:
            answer = self._stage(request, items, written)
            try:
                self._mark("stage.done")
                if "record" in request:
                    self._commit(request, written)
                else:
                    written.sync()
            except (StepError, OSError):
                # A record that may be on disk needs what was staged: that is kept for ``recover``.
                with contextlib.suppress(StepError, OSError):
                    self._forget(name)
                raise
        return answer

    def _stage(
        self, request: dict[str, Any], items: list[Item], written: Together
    ) -> dict[str, Any]:
        name, generation = request["set"], request["generation"]
        answer: dict[str, Any] = {}
        moves: list[dict[str, Any]] = []
        if request["commit"] == "dir":
            record = load_record(self._state_dir, name)
            here = record.where == ["dir", request["dir"]]
            folder = self._dir(request).stage(
                generation, items, request["sidecar"], written, record if here else None
            )
            answer = {"dir": folder, "file": f"{folder}/{items[0].name}"}
        else:
            self._refuse_mounted(items)
            moves = self._files(name).stage(generation, items, written)
            self._staged[name] = request | {"moves": moves}
            if request["tree"]:
                tree = os.path.join(set_folder(self._state_dir, name), "tree")
                answer = dict(make_tree(tree, items))
        self._staged[name] = request | {"moves": moves, "items": [i.facts() for i in items]}
        return answer

    def _refuse_mounted(self, items: list[Item]) -> None:
        """Before anything is decided: else half of the set is in place when a rename fails (A7)."""
        points = self._mounts.points()
        for item in items:
            if item.name in points:
                why = "it is a mount point: mount its folder instead"
                raise RefusedError(f"{item.name}: {why}", item.name)

    def commit(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make what was staged the present generation.

        ``record`` is the set's new record, ``sidecar`` and ``sealed`` what is kept of it.
        """
        with Together() as written:
            self._commit(request, written)
        return {}

    def _commit(self, request: dict[str, Any], written: Together) -> None:
        """All that is new goes to disk in one turn, then the record decides, then it is done.

        The record that says "done" is the agent's to save: it has more to say by then.
        """
        name = request["set"]
        staged = self._staged.get(name)
        if staged is None:
            raise WriteError("nothing is staged: the writer was restarted")
        record = Record(**request["record"])
        ensure(record.generation == staged["generation"], "another generation was staged")
        self._store(name, record.generation, request["sidecar"], request["sealed"], written)
        record.files = staged["items"]
        record.where = [staged["commit"], staged["dir"]]
        record.swap = {"moves": staged["moves"]}
        folder = open_state(set_folder(self._state_dir, name))
        try:
            descriptor, fresh = write_beside(folder, RECORD, pack_record(record))
            written.add(descriptor, RECORD)
            written.sync()
            self._staged.pop(name)
            os.rename(fresh, RECORD, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)
        self._mark("record.written")
        self._finish(record)
        self._drop_tree(name)
        self._trim(record, request["keep"])

    def abandon(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove what was staged."""
        self._forget(request["set"])
        return {}

    def _forget(self, name: str) -> None:
        staged = self._staged.pop(name, None)
        if staged is not None:
            if staged["commit"] == "dir":
                self._dir(staged).unstage(staged["generation"])
            else:
                self._files(name).unstage(staged["moves"])
        self._drop_tree(name)

    def _drop_tree(self, name: str) -> None:
        path = set_folder(self._state_dir, name)
        if os.path.isdir(os.path.join(path, "tree")):
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                remove_tree(folder, "tree")
            finally:
                os.close(folder)

    def _finish(self, record: Record) -> None:
        if record.where[0] == "dir":
            self._dir({"set": record.set, "dir": record.where[1]}).finish(record)
        else:
            self._files(record.set).finish(record)
        record.swap = None
        self._mark("swap.done")

    def _store(
        self, name: str, generation: int, sidecar: bytes, sealed: bytes, written: Together
    ) -> None:
        path = os.path.join(set_folder(self._state_dir, name), "gen")
        folder = open_state(path)
        leaf = f"{generation}.gen"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leaf, dir_fd=folder)
            content = sidecar + b"\n" + sealed
            own = (os.geteuid(), os.getegid())
            written.add(write_unsynced(folder, leaf, content, 0o600, *own), leaf)
            written.add_folder(folder, path)
        finally:
            os.close(folder)

    def _trim(self, record: Record, keep: int) -> None:
        """Drop old generations, never the present or the good one (A10)."""
        numbers = generation_numbers(self._state_dir, record.set)
        earlier = [number for number in record.goods if number != record.generation]
        kept = {record.generation, record.good, *earlier[-1:], *numbers[-keep:]}
        for number in numbers:
            if number not in kept:
                path = os.path.join(set_folder(self._state_dir, record.set), "gen")
                os.unlink(os.path.join(path, f"{number}.gen"))
        if record.where[0] == "dir":
            self._dir({"set": record.set, "dir": record.where[1]}).sweep(kept)

    # --- start, drift -----------------------------------------------------------------------------

    def recover(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make the set's folders, roll an unfinished swap forward, remove strays."""
        name = request["set"]
        path = set_folder(self._state_dir, name)
        os.makedirs(os.path.join(path, "gen"), mode=0o700, exist_ok=True)
        self._drop_tree(name)
        rolled = self._roll_forward(request)
        record = load_record(self._state_dir, name)
        if request["commit"] == "dir":
            known = generation_numbers(self._state_dir, name)
            swept = self._dir(request).sweep({*known, record.generation})
        else:
            old = [facts["name"] for facts in record.files if facts["name"].startswith("/")]
            swept = self._files(name).sweep([*request["destinations"], *old])
        return {"rolled_forward": rolled, "swept": swept}

    def _roll_forward(self, request: dict[str, Any]) -> bool:
        record = load_record(self._state_dir, request["set"])
        if record.swap is None:
            return False
        self._finish(record)
        # Not synced: after a crash the swap is found done and passed over.
        save_record(self._state_dir, record, durable=False)
        return True

    def scan(self, request: dict[str, Any]) -> dict[str, Any]:
        """Compare the present generation with the disk (H1)."""
        record = load_record(self._state_dir, request["set"])
        found = []
        for facts in record.files:
            path = self._present_path(record, facts)
            differs = deviation(self._roots, path, facts, self._key)
            if differs is not None:
                found.append({"name": facts["name"], "path": path, "what": differs[0]})
        if record.where and record.where[0] == "dir" and record.generation:
            found += self._scan_links(record)
        return {"found": found}

    def _present_path(self, record: Record, facts: dict[str, Any]) -> str:
        if record.where[0] == "dir":
            return f"{record.where[1]}/generations/{record.generation}/{facts['name']}"
        return str(facts["name"])

    def _scan_links(self, record: Record) -> list[dict[str, Any]]:
        folder = record.where[1]
        wanted = {f"{folder}/{CURRENT}": f"generations/{record.generation}"}
        wanted |= {f["link"]: f"{folder}/{CURRENT}/{f['name']}" for f in record.files if f["link"]}
        found = []
        for path, target in wanted.items():
            try:
                with self._roots.folder_of(path) as (parent, leaf):
                    right = os.readlink(leaf, dir_fd=parent) == target
            except (OSError, RefusedError):
                right = False
            if not right:
                found.append({"name": "", "path": path, "what": "link is not as it was made"})
        return found

    def links(self, request: dict[str, Any]) -> dict[str, Any]:
        """Make ``current`` and the outer links right again (A4)."""
        record = load_record(self._state_dir, request["set"])
        if record.generation and record.where[0] == "dir":
            self._dir({"set": record.set, "dir": record.where[1]}).finish(record)
        return {}

    def copy(self, request: dict[str, Any]) -> dict[str, Any]:
        """Keep a copy of what a repair is about to replace (H3)."""
        base = os.path.join(set_folder(self._state_dir, request["set"]), "drift")
        os.makedirs(base, mode=0o700, exist_ok=True)
        with self._roots.folder_of(request["path"]) as (folder, leaf):
            try:
                content, _ = read_regular(folder, leaf, limits.AGENT_DRIFT_COPY_BYTES_MAX)
            except OSError:
                return {}  # gone, or nothing that has content
        name = f"{time.time_ns()}-{os.path.basename(request['path'])[:100]}"
        target = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            write_new(target, name, content, 0o600, os.geteuid(), os.getegid())
            for old in sorted(os.listdir(base))[: -limits.AGENT_DRIFT_COPIES_MAX]:
                os.unlink(old, dir_fd=target)
        finally:
            os.close(target)
        return {}

    def prune(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove files that left the configuration, while they are still as we wrote them (B7)."""
        removed, kept = [], []
        for facts in request["files"]:
            path = facts["name"]
            with self._roots.folder_of(path) as (folder, leaf):
                if look_at(folder, leaf, path) is None:
                    continue
                if deviation(self._roots, path, facts, self._key) is None:
                    os.unlink(leaf, dir_fd=folder)
                    os.fsync(folder)
                    removed.append(path)
                else:
                    kept.append(path)
        return {"removed": removed, "kept": kept}

    def save(self, request: dict[str, Any]) -> dict[str, Any]:
        """Replace the record."""
        save_record(self._state_dir, Record(**request["record"]), durable=request["durable"])
        return {}

    def _files(self, name: str) -> FilesProtocol:
        return FilesProtocol(self._roots, name, self._key, self._mark, self._seen)

    def _dir(self, request: dict[str, Any]) -> DirProtocol:
        return DirProtocol(self._roots, request["dir"], self._key, self._mark)


def items_root(items: list[Item]) -> str:
    """Root digest of a set of items."""
    return root_digest((i.name, i.digest, i.mode, i.uid, i.gid) for i in items)


def make_item(
    key: bytes, name: str, content: bytes, mode: int, owner: tuple[int, int], link: str
) -> Item:
    """An item with its digest."""
    return Item(name, content, mode, *owner, link, digest(key, content))


def main() -> None:
    """Serve; the first request says what this process may touch."""
    writers: list[Writer] = []

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "open":
            existing = [path for path in request["roots"] if os.path.isdir(path)]
            writers[:] = [Writer(tuple(request["roots"]), request["state_dir"], request["key"])]
            level = confine.confine_writer([*existing, request["state_dir"]])
            return {"level": list(level)}
        return writers[0].handle(request)

    frames.serve(handle)


if __name__ == "__main__":
    main()
