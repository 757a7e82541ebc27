"""Whether what a member keeps fits together, its certificate and its settings (2.2, Q3).

Every refusal of a start is judged here, by reading only: when one store refuses, none has changed.

Not here: opening for good (``stores``), damage within the log (``storage.wal.recovery``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, ExitCode, FatalError
from configsvc.identity.member_ids import cluster_id, member_id
from configsvc.identity.tokens import TokenKey
from configsvc.server.joining import certificate_id
from configsvc.storage.disk import OsDisk
from configsvc.storage.history.looking import Found, look
from configsvc.storage.local.looking import judge as judge_local
from configsvc.storage.local.messages import LocalIdentity
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot.generations import FIRST_GENERATION
from configsvc.storage.wal.format import FLAG_INSECURE, Installed
from configsvc.storage.wal.recovery import WalIdentity, read_log
from configsvc.storage.wal.segments import read_header, segment_numbers
from configsvc.types import NodeId

LOCAL_DIR: Final = "local"
AUDIT_NAME: Final = "audit.db"
KEY_NAMES: Final = ("token.key", "log.key")


class Judge:
    """Looks at everything beside the log while ``Wal.open`` has written nothing yet."""

    def __init__(
        self, config: ServerConfig, data: Path, disk: OsDisk, key_file: KeyFile, *, born_empty: bool
    ) -> None:
        """``born_empty``: the member was added to a cluster; no flags name its configuration.

        Raises:
            FatalError: 85, the store was not born as it is started.
        """
        self._config = config
        self._data = data
        self._disk = disk
        self._key_file = key_file
        self._born_empty = born_empty
        self.expected = _expected(config, disk)

    def others(self, installed: Installed | None) -> int:
        """The index that the history named by the log holds; 0: a first start got not that far.

        Raises:
            ConfigError: 78, a key is another one, or the first configuration is not known.
            FatalError: 84 to 86, history or audit stream.
        """
        generation = installed.generation if installed is not None else FIRST_GENERATION
        path = generations.generation_path(self._data, generation)
        found = look(path, self._key_file)
        if found is None:
            self._must_be_new(path, installed)
        else:
            self._must_be_ours(path, found)
        if (found is None or not found.configured) and not self._born_empty:
            self._first_configuration_known()
        local = self._data / LOCAL_DIR
        own = self.expected
        stream = LocalIdentity(own.cluster_id, own.member_id, own.store_id)
        judge_local(local / AUDIT_NAME, stream, self._key_file)
        for name in KEY_NAMES:
            if (local / name).exists():
                TokenKey.load_or_create(local / name, self._key_file)
        return found.applied if found is not None else 0

    def _must_be_new(self, path: Path, installed: Installed | None) -> None:
        """A history is made, synced, before the log takes its first vote or entry."""
        image = read_log(self._disk, (self._key_file,))
        if installed is not None or image.last_index or image.hard_state.term:
            raise FatalError(
                ExitCode.STORES_DISAGREE,
                f"{path} is missing, and the log says that it holds this member's history",
                "wipe the data directory and let the member join again, or restore a backup",
            )

    def _must_be_ours(self, path: Path, found: Found) -> None:
        own = self.expected
        if found.identity[:4] != (own.cluster_id, own.member_id, own.store_id, own.insecure):
            raise FatalError(
                ExitCode.WRONG_IDENTITY,
                f"wrong identity: {path} and the log belong to different stores",
                "name the data directory that belongs to this member",
            )

    def _first_configuration_known(self) -> None:
        """Until the first entry is applied, only the flags of the first start name the members."""
        given = self._config.initial_cluster
        if not given or cluster_id(genesis_ids(self._config)) != self.expected.cluster_id:
            raise ConfigError(
                "--initial-cluster: needed until the first entry is applied",
                "give the same as before, with the same --initial-cluster-token",
            )


def _expected(config: ServerConfig, disk: OsDisk) -> WalIdentity:
    """Who this member is by its certificate and settings; what they do not say is the log's."""
    header = read_header(disk, segment_numbers(disk)[-1], newest=True)
    if bool(header.flags & FLAG_INSECURE) != config.insecure_dev:
        raise FatalError(
            ExitCode.WRONG_IDENTITY,
            "this store was not born under --insecure-dev"
            if config.insecure_dev
            else "this store was born under --insecure-dev",
            "start it as what it is; throwaway data stays throwaway data",
        )
    return WalIdentity(
        header.cluster_id,
        certificate_id(config) or header.member_id,
        header.store_id,
        config.insecure_dev,
    )


def genesis_ids(config: ServerConfig) -> dict[int, tuple[str, ...]]:
    """Members of --initial-cluster by id (P11)."""
    token = config.initial_cluster_token
    return {member_id(urls, token): urls for _, urls in config.genesis}


def own_genesis_id(config: ServerConfig) -> NodeId:
    """This member's id at a static bootstrap. Its certificate, if it has one, names the same.

    Raises:
        ConfigError: 78, the certificate names another member.
    """
    urls = dict(config.genesis)[config.name]
    own = member_id(urls, config.initial_cluster_token)
    named = certificate_id(config)
    if named and named != own:
        raise ConfigError(
            f"--peer-cert-file names member {named:016x}, --initial-cluster makes it {own:016x}",
            "issue a certificate for this id, or correct the URLs or the token",
        )
    return own
