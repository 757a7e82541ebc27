"""What a member has in memory before its first pass: the state out of SQL, the core, the policy."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from configsvc.apply.state import ApplyState
from configsvc.auth.bundle import parse_bundle
from configsvc.codec.publishing import bootstrap_op
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.window import ROW_BYTES
from configsvc.raft.config import product_config
from configsvc.raft.node import RawNode
from configsvc.runtime.restore import adopt, read_stored
from configsvc.server.stores import Stores


class Random:
    """Jitter of elections."""

    def randrange(self, n: int) -> int:
        return int.from_bytes(os.urandom(4), "big") % n


def load_state(config: ServerConfig, stores: Stores) -> ApplyState:
    """The replicated state as SQL holds it; the log's rest follows by being applied (Q3)."""
    state = ApplyState(quota_bytes=config.quota_backend_bytes or 2 << 30)
    meta = stores.history.meta()
    if not meta.applied:
        return state
    gc.disable()
    stored = read_stored(stores.history, measure=False)
    with ThreadPoolExecutor(1, thread_name_prefix="window-bytes") as pool:
        # SQL's work alone, while opening the live rows is Python's.
        size = pool.submit(stores.reader.window_bytes, stored.floor, ROW_BYTES)
        live = LiveRows(stores.history.load_live())
        adopt(state, stored._replace(window_bytes=size.result()), live)
    gc.enable()
    return state


def load_raft(config: ServerConfig, stores: Stores) -> RawNode:
    """The consensus core as the log holds it."""
    return RawNode(
        product_config(stores.self_id, config.election_ticks, 2),
        stores.log,
        Random(),
        hard_state=stores.hard_state,
        conf_state=stores.conf_state,
        applied=stores.applied,
    )


def bootstrap(config: ServerConfig, stores: Stores) -> bytes:
    """The first entry of a new cluster, for whoever leads it first."""
    source = policy_source(config)
    bundle = parse_bundle(source)
    return bootstrap_op(
        trust_domain=config.trust_domain,
        policy_source=source,
        policy_compiled=bundle.compiled,
        policy_name=bundle.policy.name,
        policy_version=bundle.policy.version,
        members=sorted(stores.genesis.items()),
        insecure=config.insecure_dev,
    )


def policy_source(config: ServerConfig) -> str:
    """The bundle for the bootstrap entry: --policy-file, or the one that ships.

    Raises:
        ConfigError: 78, it cannot be read.
    """
    if config.policy_file:
        path = Path(config.policy_file)
    else:
        package = Path(__file__).resolve().parent.parent
        path = package / "_policies" / "default.toml"
        if not path.exists():
            path = package.parent / "policies" / "default.toml"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"policy file {path} cannot be read", "name one: --policy-file") from None
