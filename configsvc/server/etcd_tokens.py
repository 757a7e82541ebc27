"""--auth-token of a member under --insecure-dev: which of etcd's kinds of tokens, from which keys.

Not here: the tokens themselves (``identity.etcd_tokens``, ``identity.etcd_jwt``).
"""

from __future__ import annotations

import time

from configsvc.config import SIMPLE_TOKENS, ServerConfig
from configsvc.errors import ConfigError
from configsvc.identity.etcd_jwt import KIND, EtcdJwts
from configsvc.identity.etcd_tokens import EtcdTokens, SimpleTokens


def open_etcd_tokens(config: ServerConfig) -> EtcdTokens | None:
    """What ``--auth-token`` asks for; ``None`` in the secure mode, whose tokens are our own.

    Raises:
        ConfigError: 78, no such kind, or keys that cannot be used.
    """
    if not config.insecure_dev:
        return None
    kind, _, options = config.auth_token.partition(",")
    if kind == KIND:
        return EtcdJwts(options)
    if kind == SIMPLE_TOKENS:
        return SimpleTokens(config.auth_token_ttl, time.time_ns())
    raise ConfigError(f"--auth-token: no kind of tokens is {kind[:40]!r}", "use simple or jwt,...")
