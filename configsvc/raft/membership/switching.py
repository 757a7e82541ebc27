"""Taking a configuration into use, when its entry is applied or a snapshot brings one.

Not here: whether a change is legal (``raft.membership.confchange``), when it may be proposed
(``raft.proposing``).
"""

from __future__ import annotations

from configsvc.raft import reads
from configsvc.raft.membership import confchange
from configsvc.raft.messages import ConfChange, ConfState, Role, Snapshot
from configsvc.raft.roles import become_follower
from configsvc.raft.sending import broadcast_append, maybe_commit, peers, send_append
from configsvc.raft.state import NOBODY, Raft


def apply_conf_change(raft: Raft, change: ConfChange) -> ConfState:
    """Put ``change`` into force; the new configuration.

    Raises:
        ConfChangeInvalid: illegal in the present configuration; nothing was changed.
    """
    _switch(raft, confchange.next_conf_state(raft.conf, change))
    return raft.conf


def restore_conf_state(raft: Raft, snapshot: Snapshot) -> None:
    """Replace log and configuration by those of ``snapshot``, which names this member."""
    raft.log.restore(snapshot)
    conf = confchange.normalized(snapshot.conf_state)
    _switch(raft, confchange.Changed(conf, confchange.members(conf)))
    own = raft.progress[raft.id]
    own.acknowledge(own.next - 1)


def _switch(raft: Raft, changed: confchange.Changed) -> None:
    raft.set_conf(changed)
    if raft.role is not Role.LEADER:
        return
    own = raft.progress.get(raft.id)
    if raft.config.step_down_on_removal and (own is None or own.is_learner):
        become_follower(raft, raft.term, NOBODY)
        return
    if maybe_commit(raft):  # a smaller quorum may hold more
        reads.on_commit(raft)
        broadcast_append(raft)
    else:
        for peer, progress in peers(raft):
            send_append(raft, peer, progress, if_empty=False)
    reads.answer_confirmed(raft)
    if raft.transferee not in raft.voters:
        raft.transferee = NOBODY
