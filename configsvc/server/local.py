"""What stream L needs of the composition root: its thread, its levels, its first record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from configsvc.audit.levels import Levels, parse_levels
from configsvc.config import ServerConfig
from configsvc.errors import ConfigError, PolicyInvalidError
from configsvc.runtime.local_audit import LocalAudit
from configsvc.storage.local.store import LocalStore
from configsvc.storage.local.writer import LocalWriter

# Settings that make a member weaker than it ships, and what they ship as (DEF-21).
DEFAULTS: Final = ServerConfig()
WEAKENING: Final = (
    "insecure_dev",
    "unsafe_no_fsync",
    "client_cert_auth",
    "listen_any",
    "allow_root",
    "force_new_cluster",
    "strict_reconfig_check",
    "tls_min_version",
)


def weakened(config: ServerConfig) -> list[str]:
    """Settings weaker than the defaults as ``name=value``; the first record of each boot."""
    found = [
        f"{name}={str(getattr(config, name)).lower()}"
        for name in WEAKENING
        if getattr(config, name) != getattr(DEFAULTS, name)
    ]
    if config.quota_backend_bytes < 0:
        found.append("quota_backend_bytes=off")
    return found


def audit_levels() -> Levels:
    """The audit levels that ship (AUD-1).

    Raises:
        ConfigError: exit 78, the file is missing or not valid.
    """
    package = Path(__file__).resolve().parent.parent
    path = package / "_policies" / "audit.toml"
    if not path.exists():
        path = package.parent / "policies" / "audit.toml"
    try:
        return parse_levels(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"audit levels {path} cannot be read", "install them again") from None
    except PolicyInvalidError as error:
        raise ConfigError(str(error), "correct the file") from None


def local_writer(
    store: LocalStore,
    audit: Callable[[], LocalAudit],
    on_loop: Callable[..., None],
    failed: Callable[[BaseException], None],
) -> LocalWriter:
    """The thread that writes the stream.

    Args:
        store: Opened.
        audit: The stream's other half, which exists once the member does.
        on_loop: ``(call, *args)``: calls on the loop, from another thread.
        failed: Ends the process.
    """

    def durable(size: int) -> None:
        on_loop(lambda: audit().on_durable(size))

    def trouble(why: str) -> None:
        on_loop(lambda: audit().on_failed(why))

    return LocalWriter(store, on_durable=durable, on_failed=trouble, on_fatal=failed)


def refusal_event(reason: str) -> str:
    """Event of a peer that was cut off: by TLS (``net.shell.reason_of``), or by a bound of ours."""
    by_tls = " " not in reason or reason.startswith("certificate refused:")
    return "tls.refused" if by_tls else "limit.hit"
