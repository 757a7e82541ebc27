"""What is kept beside a generation: where each file came from, without any value (agent.md 6.3)."""

from __future__ import annotations

import hashlib
import stat
from typing import Any

from configagent.commits import Item
from configagent.disk import digest
from configagent.records import Record
from configagent.render import Output
from configagent.settings import SetSpec
from configsvc import __version__


def file_facts(
    item: Item, origin: dict[str, Any], spec: SetSpec, digest_key: bytes
) -> dict[str, Any]:
    """One file's entry. ``origin``: rendered outputs by name, or an older generation's sidecar."""
    facts: dict[str, Any] = {
        "name": item.name,
        "mode": f"{stat.S_IMODE(item.mode):04o}",
        "mode_bits": item.mode,
        "uid": item.uid,
        "gid": item.gid,
        "link": item.link,
        "bytes": len(item.content),
        "atomic": True,
    }
    output = origin.get(item.name)
    if isinstance(output, Output):
        secret = output.secret
        keys = [spec.prefix + key for key in sorted(output.keys)]
        template = {"src": output.spec.template or ("text" if not output.spec.key else ""),
                    "sha256": output.template_sha256}  # fmt: skip
        facts |= {"owner": output.spec.owner, "secret": secret, "keys": keys, "template": template}
    else:
        old = next(f for f in origin["files"] if f["name"] == item.name)
        secret = bool(old["secret"])
        facts |= {name: old[name] for name in ("owner", "secret", "keys", "template")}
    # A short secret could be guessed from a plain hash (J2).
    facts["sha256"] = (
        "hmac:" + digest(digest_key, item.content)
        if secret
        else hashlib.sha256(item.content).hexdigest()
    )
    return facts


def make_sidecar(
    record: Record, files: list[dict[str, Any]], node: str, cluster: str, previous_good: int
) -> dict[str, Any]:
    """The sidecar of a generation that is about to be committed."""
    return {
        "set": record.set,
        "generation": record.generation,
        "store": {"cluster": cluster},
        "node": node,
        "agent": __version__,
        "target_revision": record.target_revision,
        "content_revision": record.content_revision,
        "previous_good": previous_good,
        "rollout": None,
        "signed_by": None,
        "cause": record.cause,
        "files": files,
    }
