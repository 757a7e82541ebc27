"""Another key-encryption key for a member that runs (ENC-5).

The operator puts the new key file beside the one in use, named with ``.new`` at its end, and sends
SIGHUP. Each store is wrapped anew by the thread that writes it, between two of its own writes; rows
and frames stay as they are. When all of it is on disk the log says so, and the new file may take
the old one's name.

Always true:
  * While the ``.new`` file is there, a start uses it, and first ends what was begun: a kill at any
    moment loses nothing.
  * "done" is said only when nothing on disk needs the older key any more.

Not here: a stopped member (``rekeying``), what a key file is (``storage.seal.keyfile``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from configsvc.audit.record import Resource
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ConfigServiceError
from configsvc.identity.files import PRIVATE, write_file
from configsvc.identity.tokens import TokenKey
from configsvc.runtime.member import Member
from configsvc.server.judging import KEY_NAMES, LOCAL_DIR
from configsvc.server.logs import Log
from configsvc.server.rekeying import rekey
from configsvc.server.stores import has_stores, new_key_path
from configsvc.storage.local.writer import LocalWriter
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.wal import Wal
from configsvc.storage.wal.writer import WalWriter

STEP_S_MAX: Final = 60.0  # for one store's turn; the disk may be busy
CHECKPOINT_TRIES: Final = 50
CHECKPOINT_EVERY_S: Final = 0.2  # readers that are open keep a checkpoint from completing
_END: Final = object()
_NOT_DONE: Final = "SIGHUP tries again, and so does a start"


def finish(config: ServerConfig, log: Log) -> None:
    """Before a start opens its stores: wrap under the new key whatever is not yet.

    Raises:
        ConfigError: 78, a key file cannot be used, or something opens under neither.
        FatalError: as a start, a store is damaged.
    """
    path = new_key_path(config)
    if not os.path.lexists(path) or not has_stores(config):
        return
    if not os.path.lexists(config.key_file):
        return  # the old one is gone already: the new one must do
    data = Path(os.path.abspath(config.data_dir))
    old, new = (KeyFile.load(each, data_dir=data) for each in (config.key_file, path))
    if old.key_id != new.key_id:
        rekey(data, old, new)
    _tell(log, config, new)


class KeyRotation:
    """Changes the key of one running member."""

    def __init__(
        self,
        config: ServerConfig,
        member: Member,
        wal: WalWriter,
        local: LocalWriter,
        key_file: KeyFile,
        log: Log,
    ) -> None:
        """``key_file``: in force now."""
        self._config = config
        self._member = member
        self._wal = wal
        self._local = local
        self._current = key_file
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Called on SIGHUP: change the key, if there is a new one and no change is under way."""
        if os.path.lexists(new_key_path(self._config)) and (
            self._task is None or self._task.done()
        ):
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        problem = ""
        try:
            new = KeyFile.load(new_key_path(self._config), data_dir=self._config.data_dir)
            await self._rotate(new)
            _tell(self._log, self._config, new)
        except TimeoutError:
            problem = "a store had no turn in time"
        except (ConfigServiceError, OSError) as error:
            problem = str(error) if isinstance(error, ConfigServiceError) else str(error.strerror)
        if problem:
            self._log.error("server", "the key was not changed", reason=problem, remedy=_NOT_DONE)
        self._member.audit.note(
            "reload",
            code="FAILED_PRECONDITION" if problem else "OK",
            detail=problem,
            resource=Resource(object="encryption key file"),
        )

    async def _rotate(self, new: KeyFile) -> None:
        """Each step may be done twice: a change that failed is tried again from its beginning."""
        member = self._member
        if member.installs.receiver.busy:
            raise ConfigError("an install is being received", "wait until it has ended")
        member.installs.use_key_file(new)
        member.reader.use_key_file(new)
        await self._turn(self._rewrap_log(new))
        await self._turn(self._rewrap_local(new))
        await self._turn(self._rewrap_history(new))
        await self._loop.run_in_executor(None, self._rewrap_signing_keys, new)
        self._current = new

    async def _turn(self, step: Awaitable[None]) -> None:
        async with asyncio.timeout(STEP_S_MAX):
            await step

    async def _rewrap_log(self, new: KeyFile) -> None:
        """A segment at a time: writes that wait must not be taken for a hanging disk (D1)."""
        steps: list[Iterator[None]] = []
        older = (self._current,)
        await self._in_log(lambda wal: steps.append(wal.rewrapping(new, older)))
        while await self._in_log(lambda _: next(steps[0], _END)) is not _END:
            pass

    async def _in_log(self, work: Callable[[Wal], object]) -> object:
        done: asyncio.Future[object] = self._loop.create_future()

        def job(wal: Wal) -> None:
            try:
                result = work(wal)
            except ConfigServiceError as error:
                result = error
            self._loop.call_soon_threadsafe(_settle, done, result)

        if not self._wal.run_job(job):
            raise ConfigError("the log has too much to do", "send SIGHUP later")
        return await done

    async def _rewrap_local(self, new: KeyFile) -> None:
        done: asyncio.Future[object] = self._loop.create_future()

        def finished(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, ConfigServiceError):
                what = f"the local audit log could not be written: {type(error).__name__}"
                error = ConfigError(what, "see to the disk")
            self._loop.call_soon_threadsafe(_settle, done, error)

        self._local.task(lambda store: store.rewrap(new), finished)
        await done

    async def _rewrap_history(self, new: KeyFile) -> None:
        """And wait until a checkpoint has it: SQL's own log is not synced by every commit."""
        history = self._member.history
        await self._in_history(lambda: history.rewrap(new))
        for _ in range(CHECKPOINT_TRIES):
            if await self._in_history(history.checkpoint_now):
                return
            await asyncio.sleep(CHECKPOINT_EVERY_S)
        raise ConfigError("readers keep the history from its checkpoint", "send SIGHUP later")

    async def _in_history(self, work: Callable[[], int]) -> int:
        done: asyncio.Future[int] = self._loop.create_future()

        def finished(result: int | ConfigServiceError) -> None:
            self._loop.call_soon_threadsafe(_settle, done, result)

        self._member.history.task(work, finished)
        return await done

    def _rewrap_signing_keys(self, new: KeyFile) -> None:
        folder = Path(os.path.abspath(self._config.data_dir)) / LOCAL_DIR
        for name in KEY_NAMES:
            path = folder / name
            try:
                TokenKey.load_or_create(path, new)
            except ConfigError:
                raw = TokenKey.load_or_create(path, self._current).private.private_bytes_raw()
                write_file(path, new.wrap(raw, name.encode()), PRIVATE)


def _settle(done: asyncio.Future[Any], result: object) -> None:
    if done.done():
        return  # its turn came too late
    if isinstance(result, BaseException):
        done.set_exception(result)
    else:
        done.set_result(result)


def _tell(log: Log, config: ServerConfig, new: KeyFile) -> None:
    log.info(
        "server",
        "all stores are under the new key: its file may take the old one's name",
        key_id=new.key_id,
        path=new_key_path(config),
        setting=f"--encryption-key-file {config.key_file}",
    )
