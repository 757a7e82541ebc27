"""Operations on the cluster's own small tables: alarms, keys, anchors, policy, versions, bootstrap.

Each function validates first and changes afterwards, and returns the table rows it changed.
Rights have been judged before (``applier``).

Not here: members (``members``), users and roles (``auth``), leases (``lease``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from configsvc.apply.commands import (
    AlarmOp,
    AuditAnchorOp,
    BootstrapOp,
    CheckpointSignatureOp,
    ClusterVersionOp,
    PolicyLoadOp,
    SigningKeyOp,
    TableChange,
)
from configsvc.apply.state import (
    CORRUPT,
    META_CLUSTER_VERSION,
    META_POLICY_VERSION,
    META_TRUST_DOMAIN,
    NO_SPACE,
    ApplyState,
    SigningKey,
    meta_change,
)
from configsvc.auth.messages import Change
from configsvc.auth.rules import decode_policy
from configsvc.errors import (
    ConflictError,
    DecodeError,
    InvalidArgumentError,
    MemberNotFoundError,
    NotFoundError,
    PolicyInvalidError,
)
from configsvc.limits import SIGNATURES_PER_MEMBER_MAX, SIGNING_KEYS_MAX, URL_CHARS_MAX

Changes = tuple[TableChange, ...]

KEY_USES: Final = ("token", "log")
KEY_STATES: Final = ("pending", "active", "retired", "removed")  # only ever forward
_KEY_BYTES: Final = 32
_ROOT_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64


def table_changes(changes: Iterable[Change]) -> Changes:
    """The auth room's rows as apply's."""
    return tuple(TableChange(*change) for change in changes)


def bootstrap(state: ApplyState, op: BootstrapOp, root_uid: str) -> Changes:
    """First entry of a new cluster (BOOT-1).

    Raises:
        ConflictError: the cluster has had its first entry.
        InvalidArgumentError: no trust domain, or no uid for root, in a secure store.
        PolicyInvalidError: the shipped bundle cannot be read.
        MemberBadURLsError, MemberExistError, PeerURLExistError: the genesis members.
    """
    if state.bootstrapped or state.auth.users or state.members.by_id:
        raise ConflictError("configsvc: the cluster was bootstrapped before")
    if not op.insecure and not (op.trust_domain and root_uid and op.policy_compiled):
        raise InvalidArgumentError("configsvc: bootstrap lacks trust domain, root uid or policy")
    if op.policy_compiled:
        _check_bundle(op.policy_compiled, op.policy_name, op.policy_version)
    changes = list(state.members.genesis(op.members))
    auth = state.auth
    changes += table_changes(auth.bootstrap(insecure=op.insecure, root_uid=root_uid))
    if op.policy_compiled:
        changes += _activate(
            state, op.policy_name, op.policy_version, op.policy_source, op.policy_compiled
        )
    state.lessor.limited = not op.insecure
    state.trust_domain = op.trust_domain
    changes.append(meta_change(META_TRUST_DOMAIN, op.trust_domain.encode()))
    return tuple(changes)


def _check_bundle(compiled: bytes, name: str, version: int) -> None:
    try:
        policy = decode_policy(compiled)
    except DecodeError as error:
        raise PolicyInvalidError(str(error)) from error
    if (policy.name, policy.version) != (name, version) or version < 1:
        raise PolicyInvalidError("compiled policy is of another name or version")


def _activate(state: ApplyState, name: str, version: int, source: str, compiled: bytes) -> Changes:
    changes = state.auth.load_policy(name=name, version=version, source=source, compiled=compiled)
    return (*table_changes(changes), meta_change(META_POLICY_VERSION, b"%d" % version))


def load_policy(state: ApplyState, op: PolicyLoadOp) -> Changes:
    """Raises ``ConflictError`` (version not above) or ``PolicyInvalidError``."""
    return _activate(state, op.name, op.version, op.source, op.compiled)


def alarm(state: ApplyState, op: AlarmOp) -> tuple[Changes, tuple[tuple[int, int], ...]]:
    """Raise or clear one alarm (N5).

    Returns:
        Changed rows, and the alarms that the answer lists: none for type NONE or a miss.

    Raises:
        InvalidArgumentError: a type outside the enum.
        MemberNotFoundError: in a secure store, raising it for an id that is no member.
    """
    if op.alarm not in (0, NO_SPACE, CORRUPT):
        raise InvalidArgumentError("configsvc: unknown alarm")
    entry = (op.member, op.alarm)
    if not op.alarm:
        return (), ()
    if op.activate:
        if not state.auth.insecure and op.member not in state.members.by_id:
            raise MemberNotFoundError
        if entry in state.alarms:
            return (), (entry,)
        state.alarms.add(entry)
        return (TableChange("alarms", entry, ()),), (entry,)
    if entry not in state.alarms:
        return (), ()
    state.alarms.remove(entry)
    return (TableChange("alarms", entry, None),), (entry,)


def signing_key(state: ApplyState, op: SigningKeyOp, index: int) -> Changes:
    """Publish a key, or move it on (JWT-8). Repeating a state changes nothing.

    Raises:
        InvalidArgumentError: use, state, id or key that cannot be; too many keys.
        MemberNotFoundError: of an id that is no member.
        ConflictError: the id stands for another key, or the state would go back.
    """
    known = state.signing_keys.get(op.kid)
    if op.use not in KEY_USES or op.state not in KEY_STATES or not op.kid:
        raise InvalidArgumentError("configsvc: signing key of unknown use, state or id")
    if len(op.public) != _KEY_BYTES or len(op.kid) > URL_CHARS_MAX:
        raise InvalidArgumentError("configsvc: signing key of wrong length")
    if known is None:
        if op.member not in state.members.by_id:
            raise MemberNotFoundError
        if len(state.signing_keys) >= SIGNING_KEYS_MAX:
            raise InvalidArgumentError("configsvc: too many signing keys")
    else:
        if (known.use, known.member, known.public) != (op.use, op.member, op.public):
            raise ConflictError("configsvc: key id stands for another key")
        if KEY_STATES.index(op.state) < KEY_STATES.index(known.state):
            raise ConflictError("configsvc: a signing key never goes back")
        if known.state == op.state:
            return ()
    return _put_key(state, SigningKey(op.kid, op.use, op.member, op.public, op.state, index))


def drop_keys_of(state: ApplyState, member: int, index: int) -> Changes:
    """A removed member's keys: its tokens end, its old checkpoints stay verifiable."""
    changes: list[TableChange] = []
    for kid in sorted(state.signing_keys):
        key = state.signing_keys[kid]
        after = "removed" if key.use == "token" else "retired"
        if key.member == member and KEY_STATES.index(key.state) < KEY_STATES.index(after):
            changes += _put_key(state, key._replace(state=after, since_index=index))
    return tuple(changes)


def _put_key(state: ApplyState, key: SigningKey) -> Changes:
    state.signing_keys[key.kid] = key
    return (TableChange("signing_keys", (key.kid,), key[1:]),)


def audit_anchor(state: ApplyState, op: AuditAnchorOp) -> Changes:
    """Note size and root of a member's local stream (AUD-6).

    Raises:
        MemberNotFoundError: of an id that is no member.
        InvalidArgumentError: a root that is none.
        ConflictError: the stream shrank, or has another root at the same size.
    """
    if op.member not in state.members.by_id:
        raise MemberNotFoundError
    if len(op.root) != _ROOT_BYTES or not op.origin or len(op.origin) > URL_CHARS_MAX:
        raise InvalidArgumentError("configsvc: anchor without origin or root")
    known = state.anchors.get(op.member)
    after = (op.origin, op.size, op.root)
    if known == after:
        return ()
    if known is not None and known[0] == op.origin and op.size <= known[1]:
        raise ConflictError("configsvc: local audit stream went back")
    state.anchors[op.member] = after
    return (TableChange("anchors", (op.member,), after),)


def checkpoint_signature(state: ApplyState, op: CheckpointSignatureOp) -> Changes:
    """Keep a member's signature; the oldest of that member goes beyond the bound.

    Raises as ``audit_anchor``, and ``NotFoundError`` for a size that the tree has not reached.
    """
    if op.member not in state.members.by_id:
        raise MemberNotFoundError
    if len(op.root) != _ROOT_BYTES or len(op.signature) != _SIGNATURE_BYTES:
        raise InvalidArgumentError("configsvc: signature or root of wrong length")
    if not 0 < op.size <= state.recorder.frontier.size:
        raise NotFoundError("configsvc: the audit log has not that size")
    entry = (op.member, op.size)
    after = (op.root, op.signature)
    if state.signatures.get(entry) == after:
        return ()
    state.signatures[entry] = after
    changes = [TableChange("signatures", entry, after)]
    own = sorted(size for member, size in state.signatures if member == op.member)
    for size in own[:-SIGNATURES_PER_MEMBER_MAX]:
        del state.signatures[op.member, size]
        changes.append(TableChange("signatures", (op.member, size), None))
    return tuple(changes)


def cluster_version(state: ApplyState, op: ClusterVersionOp, *, may_lower: bool) -> Changes:
    """Set the version that all members speak (V1).

    Raises:
        InvalidArgumentError: not ``x.y.z``.
        ConflictError: lower than the present one, without the right to lower it.
    """
    numbers = version_numbers(op.version)
    before = state.cluster_version
    if before == op.version:
        return ()
    if before and not may_lower and numbers < version_numbers(before):
        raise ConflictError("configsvc: the cluster version does not go back")
    state.cluster_version = op.version
    return (meta_change(META_CLUSTER_VERSION, op.version.encode()),)


def version_numbers(version: str) -> tuple[int, ...]:
    """``x.y.z`` as numbers. Raises ``InvalidArgumentError``."""
    parts = version.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
        raise InvalidArgumentError("configsvc: version is not x.y.z")
    return tuple(int(part) for part in parts)
