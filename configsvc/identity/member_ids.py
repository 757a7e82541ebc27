"""Member and cluster ids, as etcd derives them (compat.md P11), and the name in a member's leaf.

A static bootstrap knows every id beforehand: genesis is a function of the initial cluster and its
token. The hash is not a security boundary: members are authenticated by their certificates.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from configsvc.types import ClusterId, NodeId

_TEXT: Final = re.compile(r"[0-9a-f]{1,16}", re.ASCII)


def member_id(peer_urls: Iterable[str], token: str, unix_time: int | None = None) -> NodeId:
    """Id of the member that is reached under ``peer_urls``.

    Args:
        peer_urls: the advertised URLs, in any order.
        token: ``--initial-cluster-token``.
        unix_time: seconds; only for a member added at run time.
    """
    text = "".join(sorted(peer_urls)) + token
    if unix_time is not None:
        text += str(unix_time)
    return NodeId(_first_eight(text.encode()) or 1)


def cluster_id(member_ids: Iterable[int]) -> ClusterId:
    """Id of the cluster whose initial members are ``member_ids``, in any order."""
    data = b"".join(i.to_bytes(8, "big") for i in sorted(member_ids))
    return ClusterId(_first_eight(data) or 1)  # 0 means "none"


def member_name(member: int) -> str:
    """The name part of a member's URI: its id in 16 hex digits, the one spelling (PKI-9)."""
    return format(member, "016x")


def member_of_text(text: str) -> NodeId | None:
    """The id that people write in hex, leading zeros or not; None when it is none."""
    return NodeId(int(text, 16)) if _TEXT.fullmatch(text) else None


def _first_eight(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")
