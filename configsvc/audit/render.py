"""Records as JSON-ready values, for people and exports. Never hashed, never parsed back."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from configsvc.audit.actors import decode_actor
from configsvc.audit.events import CODES, EVENT_NAMES
from configsvc.audit.leaf import FIELDS, HASH, SIZED_HASH, decode_leaf

_HEX = frozenset(field.name for field in FIELDS if field.kind in (HASH, SIZED_HASH))


def to_json(
    leaf: bytes, actor: bytes = b"", opened: Mapping[str, str] | None = None
) -> dict[str, object]:
    """A leaf for display: names, hashes in hex, other bytes in base64.

    Args:
        leaf: the exact bytes.
        actor: its actor record, shown in place under "who".
        opened: texts from the openings, e.g. the reason.
    """
    shown: dict[str, object] = {}
    for name, value in decode_leaf(leaf).items():
        if isinstance(value, bytes):
            shown[name] = value.hex() if name in _HEX else b64encode(value).decode()
        elif name == "event":
            shown[name] = EVENT_NAMES.get(int(value), str(value))
        elif name == "code":
            shown[name] = CODES[int(value)] if int(value) < len(CODES) else str(value)
        else:
            shown[name] = value
    if actor:
        shown["who"] = dict(decode_actor(actor))
    shown.update(opened or {})
    return dict(sorted(shown.items()))
