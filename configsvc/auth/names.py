"""Which names and grants are acceptable (security.md N29, N51, N66; wire/behaviour.md A7, A10).

User names are strict, because they come out of certificates and must have one spelling only:
``name``, ``agent/name`` or ``service/name``. A store born under --insecure-dev takes what etcd
takes, short of control characters.
"""

from __future__ import annotations

from typing import Final

from configsvc.auth.messages import READ, READWRITE
from configsvc.errors import (
    InvalidArgumentError,
    InvalidAuthMgmtError,
    RoleEmptyError,
    UserEmptyError,
)
from configsvc.limits import KEY_BYTES_MAX, NAME_CHARS_MAX

_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_REST: Final = _FIRST | frozenset("._-")
_USER_PREFIXES: Final = ("agent/", "service/")


def is_name(text: str) -> bool:
    """Whether ``text`` is a name part: ``[a-z0-9][a-z0-9._-]{0,62}``."""
    return 0 < len(text) <= NAME_CHARS_MAX and text[0] in _FIRST and _REST.issuperset(text)


def check_user_name(name: str, *, insecure: bool) -> None:
    """Raise unless a user may be called ``name``; the text never echoes it."""
    if not name:
        raise UserEmptyError
    part = name
    for prefix in _USER_PREFIXES:
        part = part.removeprefix(prefix) if part is name else part
    if not (_is_plain(name) if insecure else is_name(part)):
        raise InvalidArgumentError("configsvc: user name is not acceptable")


def check_role_name(name: str) -> None:
    """Raise unless a role may be called ``name``; the text never echoes it."""
    if not name:
        raise RoleEmptyError
    if not _is_plain(name):
        raise InvalidArgumentError("configsvc: role name is not acceptable")


def check_permission(perm_type: int, key: bytes, range_end: bytes) -> None:
    """Raise ``InvalidAuthMgmtError`` unless the grant means a span that is not empty."""
    known = READ <= perm_type <= READWRITE
    # A lone zero byte as end is "from key on"; otherwise the end lies above the start.
    ordered = range_end in (b"", b"\0") or range_end > key
    short = len(key) <= KEY_BYTES_MAX and len(range_end) <= KEY_BYTES_MAX
    if not (known and key and ordered and short):
        raise InvalidAuthMgmtError


def _is_plain(name: str) -> bool:
    return len(name) <= 4 * NAME_CHARS_MAX and name.isprintable()
