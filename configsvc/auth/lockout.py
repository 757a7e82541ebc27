"""Would a new bundle lock its people out? (security.md POL-11)

Judged before the bundle is proposed. ``--allow-lockout`` skips this, nothing else does.
"""

from __future__ import annotations

from configsvc.auth.conditions import CHANGE
from configsvc.auth.decide import View, decide
from configsvc.auth.messages import Request
from configsvc.auth.rules import Policy, Rule
from configsvc.auth.state import AuthState
from configsvc.types import KIND_USER, NO_SOURCE, Principal, Source

LOAD = "policy.load"


def check_lockout(policy: Policy, state: AuthState, loader: Request) -> list[str]:
    """What speaks against making ``policy`` the active one; empty when nothing does.

    Args:
        policy: the rules of the new bundle.
        state: users and roles as they are now.
        loader: the request that loads it (action "policy.load").
    """
    after = _with_policy(state, policy)
    problems = []
    found = decide(after, loader._replace(action=LOAD, span=None))
    if not found.allowed:
        problems.append(f"it would deny its loader's next load (rule {found.rule})")
    easier = _with_policy(state, Policy(policy.name, policy.version, _obeyed(policy.rules)))
    if not any(_may_load(easier, name, loader.source) for name in sorted(state.users)):
        problems.append("under it nobody could load a policy")
    return problems


def _may_load(state: AuthState, user: str, source: Source) -> bool:
    kind, _, name = user.rpartition("/")
    uid = state.users[user].uid
    for origin in (source, NO_SOURCE):
        for method in ("certificate", "token"):
            who = Principal(kind or KIND_USER, name, user, uid, "", "", "", method, "", "", 0)
            if View(state, who, origin).judge(Request(who, origin, LOAD)).allowed:
                return True
    return False


def _obeyed(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """``rules`` as they meet somebody who gives every reason and ticket they ask for.

    A condition on the change holds where that helps; a deny that can be avoided so is left out.
    """
    kept = []
    for rule in rules:
        avoidable = rule.effect == "deny" and (
            any(c.attribute in CHANGE for c in rule.when)
            or (rule.unless and all(c.attribute in CHANGE for c in rule.unless))
        )
        if not avoidable:
            kept.append(
                rule._replace(
                    when=tuple(c for c in rule.when if c.attribute not in CHANGE),
                    unless=tuple(c for c in rule.unless if c.attribute not in CHANGE),
                )
            )
    return tuple(kept)


def _with_policy(state: AuthState, policy: Policy) -> AuthState:
    changed = AuthState(insecure=state.insecure)
    changed.enabled = state.enabled
    changed.users, changed.roles, changed.policy = state.users, state.roles, policy
    return changed
