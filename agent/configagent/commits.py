"""The two commit protocols (agent.md 4.3): scattered files, and one folder per generation.

Always true:
  * Nothing that a service could see changes before the record with ``swap`` is on disk.
  * After it, ``finish`` can be repeated from any point and ends at the same place.
  * A staged file lies in the folder of its destination, under a reserved name.

``mark`` is called between steps, so that a test can stop the world at each of them.
Not here: what to commit (``pipeline``), the process around this (``writer``).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from configagent.disk import Seen, Together, Wanted, digest
from configagent.errors import RefusedError
from configagent.paths import (
    OpenFolders,
    Roots,
    look_at,
    read_regular,
    step_error,
    write_new,
    write_unsynced,
)
from configagent.records import Record
from configsvc import limits

CURRENT: Final = "current"
GENERATIONS: Final = "generations"
SIDECAR: Final = ".configagent.json"
Mark = Callable[[str], None]


class Item(NamedTuple):
    """One file to be committed."""

    name: str
    content: bytes
    mode: int
    uid: int
    gid: int
    link: str
    digest: str

    def facts(self) -> dict[str, Any]:
        """What the record keeps."""
        return {
            "name": self.name, "digest": self.digest, "mode": self.mode,
            "uid": self.uid, "gid": self.gid, "link": self.link, "size": len(self.content),
        }  # fmt: skip


def root_digest(items: Iterable[tuple[str, str, int, int, int]]) -> str:
    """Digest over (name, digest, mode, uid, gid) of all files of a generation."""
    whole = hashlib.sha256()
    for one in sorted(items):
        whole.update(repr(one).encode() + b"\n")
    return whole.hexdigest()


def staged_name(set_name: str, generation: int, place: int) -> str:
    """The reserved name of a staged file."""
    return f".configagent-{set_name}-{generation}-{place}.new"


class FilesProtocol:
    """``commit = "files"``: staged beside each destination, renamed one after the other."""

    def __init__(self, roots: Roots, set_name: str, key: bytes, mark: Mark, seen: Seen) -> None:
        self._roots = roots
        self._set = set_name
        self._key = key
        self._mark = mark
        self._seen = seen

    def stage(self, generation: int, items: list[Item], written: Together) -> list[dict[str, Any]]:
        """Put changed files beside their destinations; returns the moves that will be needed.

        They are on disk once ``written`` was synced.
        """
        moves: list[dict[str, Any]] = []
        try:
            with OpenFolders(self._roots) as folders:
                for place, item in enumerate(items):
                    staged = staged_name(self._set, generation, place)
                    descriptor = self._stage_one(folders, staged, item)
                    if descriptor is not None:
                        moves.append({"to": item.name, "staged": staged})
                        written.add(descriptor, item.name)
                        self._mark("stage.file")
                for path in dict.fromkeys(os.path.dirname(move["to"]) for move in moves):
                    written.add_folder(folders.of(f"{path}/{CURRENT}")[0], path)
        except BaseException:
            self.unstage(moves)
            raise
        return moves

    def _stage_one(self, folders: OpenFolders, staged: str, item: Item) -> int | None:
        """Descriptor of the file beside its destination; None where nothing changes."""
        folder, leaf = folders.of(item.name)
        try:
            wanted = Wanted(len(item.content), item.mode, item.uid, item.gid, item.digest)
            if self._seen.is_same(folder, leaf, item.name, wanted, self._key):
                return None
            return write_unsynced(folder, staged, item.content, item.mode, item.uid, item.gid)
        except OSError as error:
            raise step_error(error, item.name) from None

    def unstage(self, moves: list[dict[str, Any]]) -> None:
        """Remove staged files."""
        for move in moves:
            with self._roots.folder_of(move["to"]) as (folder, _):
                _unlink(folder, move["staged"])

    def finish(self, record: Record) -> None:
        """Carry out the moves of ``record.swap``; those already done are passed over.

        Raises:
            StepError: a move failed; all others were tried.
        """
        folders: dict[str, bool] = {}
        swap = record.swap or {}
        problem: Exception | None = None
        for move in swap.get("moves", []):
            try:
                with self._roots.folder_of(move["to"]) as (folder, leaf):
                    look_at(folder, leaf, move["to"])
                    os.rename(move["staged"], leaf, src_dir_fd=folder, dst_dir_fd=folder)
                folders[os.path.dirname(move["to"])] = True
            except FileNotFoundError:
                folders[os.path.dirname(move["to"])] = True  # done before a crash
            except OSError as error:
                problem = step_error(error, move["to"])
            except RefusedError as error:
                problem = error
            self._mark("swap.file")
        for path in folders:
            with self._roots.folder(path) as folder:
                os.fsync(folder)
        if problem is not None:
            raise problem

    def sweep(self, destinations: Iterable[str]) -> int:
        """Remove staged files that no record knows; returns how many."""
        removed = 0
        start = f".configagent-{self._set}-"
        for path in sorted({os.path.dirname(one) for one in destinations}):
            try:
                with self._roots.folder(path) as folder:
                    for name in os.listdir(folder):
                        if name.startswith(start) and name.endswith(".new"):
                            removed += _unlink(folder, name)
            except (OSError, RefusedError):
                continue  # its set will be refused with the reason
        return removed


class DirProtocol:
    """``commit = "dir"``: a folder per generation, and one symlink that says which is current."""

    def __init__(self, roots: Roots, path: str, key: bytes, mark: Mark) -> None:
        self._roots = roots
        self._path = path
        self._key = key
        self._mark = mark

    def stage(
        self,
        generation: int,
        items: list[Item],
        sidecar: bytes,
        written: Together,
        present: Record | None = None,
    ) -> str:
        """Make ``generations/<n>/`` under its final name; returns its path.

        It is on disk once ``written`` was synced. Files that are the same in the ``present``
        generation get a second name here instead of a copy.
        """
        target = f"{self._path}/{GENERATIONS}/{generation}"
        self._make_folders(written)
        try:
            with self._roots.folder(f"{self._path}/{GENERATIONS}") as folder:
                _remove_tree(folder, str(generation))  # of an attempt that crashed
                os.mkdir(str(generation), 0o755, dir_fd=folder)
                with OpenFolders(self._roots) as folders:
                    self._fill(folders, target, items, written, present)
                    inner, leaf = folders.of(f"{target}/{SIDECAR}")
                    own = (os.geteuid(), os.getegid())
                    written.add(write_unsynced(inner, leaf, sidecar, 0o640, *own), leaf)
                    for path in sorted(_folders_of(target, items)):
                        written.add_folder(folders.of(f"{path}/{SIDECAR}")[0], path)
                written.add_folder(folder, target)
        except OSError as error:
            self.unstage(generation)
            raise step_error(error, target) from None
        except BaseException:
            self.unstage(generation)
            raise
        return target

    def _fill(
        self,
        folders: OpenFolders,
        target: str,
        items: list[Item],
        written: Together,
        present: Record | None,
    ) -> None:
        known = {} if present is None else {facts["name"]: facts for facts in present.files}
        number = 0 if present is None else present.generation
        with OpenFolders(self._roots) as earlier:
            for item in items:
                path = target
                for part in item.name.split("/")[:-1]:
                    _mkdir(folders.of(f"{path}/{part}")[0], part, path)
                    path += "/" + part
                folder, leaf = folders.of(f"{target}/{item.name}")
                if known.get(item.name) == item.facts():
                    old = f"{self._path}/{GENERATIONS}/{number}/{item.name}"
                    if self._link(earlier, old, folder, leaf, item):
                        continue
                content = write_unsynced(folder, leaf, item.content, item.mode, item.uid, item.gid)
                written.add(content, item.name)
                self._mark("stage.file")

    def _link(self, earlier: OpenFolders, old: str, folder: int, leaf: str, item: Item) -> bool:
        """Name a file of the present generation here, too, unless somebody changed it there."""
        try:
            source, name = earlier.of(old)
            os.link(name, leaf, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except (OSError, RefusedError):
            return False  # gone, of an owner whose files we may not link, too many names
        with contextlib.suppress(OSError):
            found, info = read_regular(folder, leaf, len(item.content) + 1)
            rights = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
            if (
                rights == (item.mode, item.uid, item.gid)
                and digest(self._key, found) == item.digest
            ):
                return True
        os.unlink(leaf, dir_fd=folder)
        return False

    def _make_folders(self, written: Together) -> None:
        if self._path not in self._roots.roots:
            with self._roots.folder_of(self._path) as (folder, leaf):
                if _mkdir(folder, leaf, self._path):
                    written.add_folder(folder, self._path)
        with self._roots.folder_of(f"{self._path}/{GENERATIONS}") as (folder, leaf):
            if _mkdir(folder, leaf, self._path):
                written.add_folder(folder, self._path)
            inner = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
            if inner.st_dev != os.fstat(folder).st_dev:
                raise RefusedError(f"{self._path}: generations lie on another filesystem")

    def unstage(self, generation: int) -> None:
        """Remove a generation that was not committed."""
        try:
            with self._roots.folder(f"{self._path}/{GENERATIONS}") as folder:
                _remove_tree(folder, str(generation))
        except RefusedError:
            return  # never made

    def finish(self, record: Record) -> None:
        """Point ``current`` at the record's generation, and make the outer links.

        Raises:
            StepError: something foreign is in the way.
        """
        wanted = f"{GENERATIONS}/{record.generation}"
        with self._roots.folder(self._path) as folder:
            try:
                _point(folder, CURRENT, wanted, f"{self._path}/{CURRENT}")
                self._mark("swap.current")
            except OSError as error:
                raise step_error(error, self._path) from None
        self.links(record)

    def links(self, record: Record) -> int:
        """Make or repair outer links; returns how many were not right."""
        repaired = 0
        for facts in record.files:
            if not facts["link"]:
                continue
            with self._roots.folder_of(facts["link"]) as (folder, leaf):
                wanted = f"{self._path}/{CURRENT}/{facts['name']}"
                try:
                    self._only_ours(folder, leaf, facts["link"])
                    repaired += _point(folder, leaf, wanted, facts["link"])
                except OSError as error:
                    raise step_error(error, facts["link"]) from None
            self._mark("swap.link")
        return repaired

    def _only_ours(self, folder: int, leaf: str, path: str) -> None:
        try:
            target = os.readlink(leaf, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError:
            raise RefusedError(f"{path}: something that is no symlink is there", path) from None
        if not target.startswith(self._path + "/"):
            raise RefusedError(f"{path}: is a symlink to somewhere else", path)

    def sweep(self, known: Iterable[int]) -> int:
        """Remove generations that no record knows; returns how many."""
        keep = {str(one) for one in known}
        removed = 0
        try:
            with self._roots.folder(f"{self._path}/{GENERATIONS}") as folder:
                for name in os.listdir(folder):
                    if name not in keep:
                        _remove_tree(folder, name)
                        removed += 1
            with self._roots.folder(self._path) as folder:
                removed += _unlink(folder, f".{CURRENT}.new")
        except RefusedError:
            return removed
        return removed


# --- small steps ----------------------------------------------------------------------------------


def _unlink(folder: int, leaf: str) -> int:
    try:
        os.unlink(leaf, dir_fd=folder)
    except FileNotFoundError:
        return 0
    return 1


def _folders_of(target: str, items: list[Item]) -> set[str]:
    """Every folder of a generation: a file is on disk when all names on its way are."""
    found = {target}
    for item in items:
        path = target
        for part in item.name.split("/")[:-1]:
            path += "/" + part
            found.add(path)
    return found


def _mkdir(folder: int, leaf: str, path: str) -> bool:
    """Make a folder unless it is there; whether it is new."""
    try:
        os.mkdir(leaf, 0o755, dir_fd=folder)
    except FileExistsError:
        info = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            raise RefusedError(f"{path}: {leaf} is no folder", path) from None
        return False
    except OSError as error:
        raise step_error(error, path) from None
    return True


def _point(folder: int, leaf: str, target: str, path: str) -> int:
    """Make ``leaf`` a symlink to ``target`` by one rename; 0 when it already was."""
    try:
        if os.readlink(leaf, dir_fd=folder) == target:
            return 0
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise RefusedError(f"{path}: something that is no symlink is there", path) from None
        raise
    fresh = f".{leaf}.new"
    _unlink(folder, fresh)
    os.symlink(target, fresh, dir_fd=folder)
    os.rename(fresh, leaf, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
    return 1


def _remove_tree(folder: int, leaf: str) -> None:
    """Remove a folder of ours and what is in it; symlinks in it are removed, never followed."""
    try:
        inner = os.open(
            leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
        )
    except FileNotFoundError:
        return
    except OSError:
        _unlink(folder, leaf)
        return
    try:
        for name in os.listdir(inner):
            _remove_tree(inner, name)
    finally:
        os.close(inner)
    os.rmdir(leaf, dir_fd=folder)


def remove_tree(folder: int, leaf: str) -> None:
    """Remove ``leaf`` below a folder, whatever it is; nothing is followed."""
    _remove_tree(folder, leaf)


def make_tree(base: str, items: list[Item]) -> dict[str, str]:
    """All files below ``base`` under their final names, for a check command.

    Returns the values of its placeholders. Raises OSError: what was made stays.
    """
    for item in items:
        path = os.path.join(base, item.name.lstrip("/"))
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            leaf = os.path.basename(path)
            write_new(folder, leaf, item.content, item.mode, item.uid, item.gid)
        finally:
            os.close(folder)
    if not items[0].name.startswith("/"):
        return {"dir": base, "file": os.path.join(base, items[0].name)}
    common = os.path.commonpath([os.path.dirname(item.name) for item in items])
    return {"dir": base + common.rstrip("/"), "file": base + items[0].name}


def deviation(
    roots: Roots, path: str, facts: dict[str, Any], key: bytes
) -> tuple[str, bytes] | None:
    """How a file on disk differs from what was committed, and what is there; None: not at all."""
    try:
        with roots.folder_of(path) as (folder, leaf):
            info = os.stat(leaf, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode):
                return "is no regular file", b""
            content, info = read_regular(folder, leaf, limits.AGENT_OUTPUT_BYTES_LIMIT + 1)
    except FileNotFoundError:
        return "is gone", b""
    except OSError as error:
        return f"cannot be read ({error.strerror})", b""
    except RefusedError as error:
        return str(error).removeprefix(f"{path}: "), b""
    if digest(key, content) != facts["digest"]:
        return "was edited", content
    if stat.S_IMODE(info.st_mode) != facts["mode"]:
        return "has another mode", content
    if (info.st_uid, info.st_gid) != (facts["uid"], facts["gid"]):
        return "has another owner", content
    return None
