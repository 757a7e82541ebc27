"""Member and cluster ids, derived as etcd derives them (compat.md P11)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from configsvc.types import ClusterId, NodeId


def member_id(peer_urls: Iterable[str], token: str, unix_time: int | None = None) -> NodeId:
    """First 8 bytes, big-endian, of SHA-1 over the sorted URLs, the token and, for a member added
    at run time, the Unix time in decimal. 0 is never handed out: it means "nobody".
    """
    text = "".join(sorted(peer_urls)) + token + ("" if unix_time is None else str(unix_time))
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return NodeId(int.from_bytes(digest[:8], "big") or 1)


def cluster_id(members: Iterable[int]) -> ClusterId:
    """First 8 bytes of SHA-1 over the initial members' ids, 8 bytes each, ascending."""
    data = b"".join(i.to_bytes(8, "big") for i in sorted(members))
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return ClusterId(int.from_bytes(digest[:8], "big") or 1)
