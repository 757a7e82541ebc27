"""A set's check command on a tree of its own: what ``plan --check`` runs.

The daemon's check runs on what the writer staged. Here nothing is staged: the tree is made in a
private folder, beside the state where there is one, and goes away with the answer.
"""

from __future__ import annotations

import os
import tempfile

from configagent import commands
from configagent.commits import Item, make_tree
from configagent.errors import CheckError, WriteError
from configagent.settings import SetSpec
from configagent.snapshot import Snapshot, redact
from configsvc import limits


def check_error(ran: commands.Ran, snapshot: Snapshot | None) -> CheckError:
    """How a check failed, with what it said but for the set's values."""
    said = redact(ran.output, snapshot or Snapshot(0), limits.AGENT_REASON_CHARS_MAX // 2)
    return CheckError(f"check: {ran.explain()}: {said}".rstrip(": "))


async def try_check(
    spec: SetSpec, items: tuple[Item, ...], snapshot: Snapshot, state_dir: str
) -> None:
    """Run the check of a set on what it would become; a set without one passes.

    Raises:
        CheckError: it did not accept the files.
        WriteError: there is no place for the tree.
    """
    if spec.check is None:
        return
    usable = os.access(state_dir, os.W_OK | os.X_OK)
    try:
        with tempfile.TemporaryDirectory(
            prefix=".plan-", dir=state_dir if usable else None
        ) as base:
            ran = await commands.run(spec.check, make_tree(base, list(items)))
    except OSError as error:
        raise WriteError(f"plan: {error.strerror}") from None
    if not ran.ok:
        raise check_error(ran, snapshot)
