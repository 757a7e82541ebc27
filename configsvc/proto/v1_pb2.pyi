from configsvc.proto import rpc_pb2 as _rpc_pb2
from configsvc.proto import kv_pb2 as _kv_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Record(_message.Message):
    __slots__ = ("revision", "key", "event", "actor", "method", "source", "time_ns", "reason", "ticket", "seq", "raft_index", "outcome", "client", "cert_uri", "cert_serial", "accepted_by", "has_value", "value", "version", "lease", "tombstone", "create_revision", "roles")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RAFT_INDEX_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CERT_URI_FIELD_NUMBER: _ClassVar[int]
    CERT_SERIAL_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_BY_FIELD_NUMBER: _ClassVar[int]
    HAS_VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONE_FIELD_NUMBER: _ClassVar[int]
    CREATE_REVISION_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    key: bytes
    event: str
    actor: str
    method: str
    source: str
    time_ns: int
    reason: str
    ticket: str
    seq: int
    raft_index: int
    outcome: str
    client: str
    cert_uri: str
    cert_serial: str
    accepted_by: int
    has_value: bool
    value: bytes
    version: int
    lease: int
    tombstone: bool
    create_revision: int
    roles: str
    def __init__(self, revision: _Optional[int] = ..., key: _Optional[bytes] = ..., event: _Optional[str] = ..., actor: _Optional[str] = ..., method: _Optional[str] = ..., source: _Optional[str] = ..., time_ns: _Optional[int] = ..., reason: _Optional[str] = ..., ticket: _Optional[str] = ..., seq: _Optional[int] = ..., raft_index: _Optional[int] = ..., outcome: _Optional[str] = ..., client: _Optional[str] = ..., cert_uri: _Optional[str] = ..., cert_serial: _Optional[str] = ..., accepted_by: _Optional[int] = ..., has_value: _Optional[bool] = ..., value: _Optional[bytes] = ..., version: _Optional[int] = ..., lease: _Optional[int] = ..., tombstone: _Optional[bool] = ..., create_revision: _Optional[int] = ..., roles: _Optional[str] = ...) -> None: ...

class LogRequest(_message.Message):
    __slots__ = ("key", "range_end", "limit", "before_revision", "after_revision", "ascending", "values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_REVISION_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    ASCENDING_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    limit: int
    before_revision: int
    after_revision: int
    ascending: bool
    values: bool
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., limit: _Optional[int] = ..., before_revision: _Optional[int] = ..., after_revision: _Optional[int] = ..., ascending: _Optional[bool] = ..., values: _Optional[bool] = ...) -> None: ...

class LogResponse(_message.Message):
    __slots__ = ("header", "records", "more")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    records: _containers.RepeatedCompositeFieldContainer[Record]
    more: bool
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class BlameRequest(_message.Message):
    __slots__ = ("key", "range_end", "revision", "limit")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    revision: int
    limit: int
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., revision: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class DiffRequest(_message.Message):
    __slots__ = ("key", "range_end", "from_revision", "to_revision")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    from_revision: int
    to_revision: int
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("key", "before", "after")
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    before: _kv_pb2.KeyValue
    after: _kv_pb2.KeyValue
    def __init__(self, key: _Optional[bytes] = ..., before: _Optional[_Union[_kv_pb2.KeyValue, _Mapping]] = ..., after: _Optional[_Union[_kv_pb2.KeyValue, _Mapping]] = ...) -> None: ...

class DiffResponse(_message.Message):
    __slots__ = ("header", "differences", "from_revision", "to_revision")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    from_revision: int
    to_revision: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ..., from_revision: _Optional[int] = ..., to_revision: _Optional[int] = ...) -> None: ...

class AtRequest(_message.Message):
    __slots__ = ("key", "range_end", "revision", "time_ns", "limit", "keys_only")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    KEYS_ONLY_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    range_end: bytes
    revision: int
    time_ns: int
    limit: int
    keys_only: bool
    def __init__(self, key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., revision: _Optional[int] = ..., time_ns: _Optional[int] = ..., limit: _Optional[int] = ..., keys_only: _Optional[bool] = ...) -> None: ...

class AtResponse(_message.Message):
    __slots__ = ("header", "revision", "time_ns", "kvs", "more", "count")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    KVS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    revision: int
    time_ns: int
    kvs: _containers.RepeatedCompositeFieldContainer[_kv_pb2.KeyValue]
    more: bool
    count: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., revision: _Optional[int] = ..., time_ns: _Optional[int] = ..., kvs: _Optional[_Iterable[_Union[_kv_pb2.KeyValue, _Mapping]]] = ..., more: _Optional[bool] = ..., count: _Optional[int] = ...) -> None: ...

class CheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointResponse(_message.Message):
    __slots__ = ("note", "size", "root", "applied_index")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    note: str
    size: int
    root: bytes
    applied_index: int
    def __init__(self, note: _Optional[str] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ..., applied_index: _Optional[int] = ...) -> None: ...

class InclusionRequest(_message.Message):
    __slots__ = ("seq", "tree_size")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    tree_size: int
    def __init__(self, seq: _Optional[int] = ..., tree_size: _Optional[int] = ...) -> None: ...

class InclusionResponse(_message.Message):
    __slots__ = ("leaf", "tree_size", "hashes", "proof")
    LEAF_FIELD_NUMBER: _ClassVar[int]
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    leaf: bytes
    tree_size: int
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    proof: str
    def __init__(self, leaf: _Optional[bytes] = ..., tree_size: _Optional[int] = ..., hashes: _Optional[_Iterable[bytes]] = ..., proof: _Optional[str] = ...) -> None: ...

class ConsistencyRequest(_message.Message):
    __slots__ = ("old_size", "new_size")
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    NEW_SIZE_FIELD_NUMBER: _ClassVar[int]
    old_size: int
    new_size: int
    def __init__(self, old_size: _Optional[int] = ..., new_size: _Optional[int] = ...) -> None: ...

class ConsistencyResponse(_message.Message):
    __slots__ = ("hashes", "old_size", "new_size")
    HASHES_FIELD_NUMBER: _ClassVar[int]
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    NEW_SIZE_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    old_size: int
    new_size: int
    def __init__(self, hashes: _Optional[_Iterable[bytes]] = ..., old_size: _Optional[int] = ..., new_size: _Optional[int] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("from_seq", "limit")
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    from_seq: int
    limit: int
    def __init__(self, from_seq: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ExportChunk(_message.Message):
    __slots__ = ("leaves", "actors", "checkpoint", "keys", "origin", "size", "root")
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    leaves: _containers.RepeatedCompositeFieldContainer[ExportedLeaf]
    actors: _containers.RepeatedCompositeFieldContainer[ExportedActor]
    checkpoint: str
    keys: _containers.RepeatedCompositeFieldContainer[ExportedKey]
    origin: str
    size: int
    root: bytes
    def __init__(self, leaves: _Optional[_Iterable[_Union[ExportedLeaf, _Mapping]]] = ..., actors: _Optional[_Iterable[_Union[ExportedActor, _Mapping]]] = ..., checkpoint: _Optional[str] = ..., keys: _Optional[_Iterable[_Union[ExportedKey, _Mapping]]] = ..., origin: _Optional[str] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class ExportedLeaf(_message.Message):
    __slots__ = ("seq", "leaf", "salt", "reason", "ticket", "changes", "columns")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    leaf: bytes
    salt: bytes
    reason: str
    ticket: str
    changes: bytes
    columns: ExportedColumns
    def __init__(self, seq: _Optional[int] = ..., leaf: _Optional[bytes] = ..., salt: _Optional[bytes] = ..., reason: _Optional[str] = ..., ticket: _Optional[str] = ..., changes: _Optional[bytes] = ..., columns: _Optional[_Union[ExportedColumns, _Mapping]] = ...) -> None: ...

class ExportedColumns(_message.Message):
    __slots__ = ("raft_index", "raft_term", "revision", "time_ns", "event", "actor", "outcome")
    RAFT_INDEX_FIELD_NUMBER: _ClassVar[int]
    RAFT_TERM_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    raft_index: int
    raft_term: int
    revision: int
    time_ns: int
    event: str
    actor: bytes
    outcome: str
    def __init__(self, raft_index: _Optional[int] = ..., raft_term: _Optional[int] = ..., revision: _Optional[int] = ..., time_ns: _Optional[int] = ..., event: _Optional[str] = ..., actor: _Optional[bytes] = ..., outcome: _Optional[str] = ...) -> None: ...

class ExportedActor(_message.Message):
    __slots__ = ("hash", "record", "salt")
    HASH_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    record: bytes
    salt: bytes
    def __init__(self, hash: _Optional[bytes] = ..., record: _Optional[bytes] = ..., salt: _Optional[bytes] = ...) -> None: ...

class ExportedKey(_message.Message):
    __slots__ = ("name", "member", "public", "state")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    member: int
    public: bytes
    state: str
    def __init__(self, name: _Optional[str] = ..., member: _Optional[int] = ..., public: _Optional[bytes] = ..., state: _Optional[str] = ...) -> None: ...

class FileReport(_message.Message):
    __slots__ = ("path", "sha256", "outcome", "reason")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    outcome: str
    reason: str
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Durations(_message.Message):
    __slots__ = ("render_us", "check_us", "commit_us", "reload_us", "total_us")
    RENDER_US_FIELD_NUMBER: _ClassVar[int]
    CHECK_US_FIELD_NUMBER: _ClassVar[int]
    COMMIT_US_FIELD_NUMBER: _ClassVar[int]
    RELOAD_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    render_us: int
    check_us: int
    commit_us: int
    reload_us: int
    total_us: int
    def __init__(self, render_us: _Optional[int] = ..., check_us: _Optional[int] = ..., commit_us: _Optional[int] = ..., reload_us: _Optional[int] = ..., total_us: _Optional[int] = ...) -> None: ...

class SetReport(_message.Message):
    __slots__ = ("name", "target_revision", "content_revision", "generation", "outcome", "reason", "attempts", "changed_ns", "files", "lag_ms", "root", "durations")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_REVISION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CHANGED_NS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    DURATIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    target_revision: int
    content_revision: int
    generation: int
    outcome: str
    reason: str
    attempts: int
    changed_ns: int
    files: _containers.RepeatedCompositeFieldContainer[FileReport]
    lag_ms: int
    root: str
    durations: Durations
    def __init__(self, name: _Optional[str] = ..., target_revision: _Optional[int] = ..., content_revision: _Optional[int] = ..., generation: _Optional[int] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., attempts: _Optional[int] = ..., changed_ns: _Optional[int] = ..., files: _Optional[_Iterable[_Union[FileReport, _Mapping]]] = ..., lag_ms: _Optional[int] = ..., root: _Optional[str] = ..., durations: _Optional[_Union[Durations, _Mapping]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("node", "start_counter", "seq", "agent_version", "link", "certificate_expires_ns", "sets", "trust_bundle")
    NODE_FIELD_NUMBER: _ClassVar[int]
    START_COUNTER_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    TRUST_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    node: str
    start_counter: int
    seq: int
    agent_version: str
    link: str
    certificate_expires_ns: int
    sets: _containers.RepeatedCompositeFieldContainer[SetReport]
    trust_bundle: str
    def __init__(self, node: _Optional[str] = ..., start_counter: _Optional[int] = ..., seq: _Optional[int] = ..., agent_version: _Optional[str] = ..., link: _Optional[str] = ..., certificate_expires_ns: _Optional[int] = ..., sets: _Optional[_Iterable[_Union[SetReport, _Mapping]]] = ..., trust_bundle: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("header", "heartbeat_ms", "retry_after_ms")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    heartbeat_ms: int
    retry_after_ms: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., heartbeat_ms: _Optional[int] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class FleetStatusRequest(_message.Message):
    __slots__ = ("set", "node", "behind")
    SET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    set: str
    node: str
    behind: bool
    def __init__(self, set: _Optional[str] = ..., node: _Optional[str] = ..., behind: _Optional[bool] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "link", "agent_version", "reported_ns", "certificate_expires_ns", "sets", "member", "start_counter", "seq", "trust_bundle")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    REPORTED_NS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_NS_FIELD_NUMBER: _ClassVar[int]
    SETS_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    START_COUNTER_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TRUST_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    node: str
    link: str
    agent_version: str
    reported_ns: int
    certificate_expires_ns: int
    sets: _containers.RepeatedCompositeFieldContainer[SetReport]
    member: int
    start_counter: int
    seq: int
    trust_bundle: str
    def __init__(self, node: _Optional[str] = ..., link: _Optional[str] = ..., agent_version: _Optional[str] = ..., reported_ns: _Optional[int] = ..., certificate_expires_ns: _Optional[int] = ..., sets: _Optional[_Iterable[_Union[SetReport, _Mapping]]] = ..., member: _Optional[int] = ..., start_counter: _Optional[int] = ..., seq: _Optional[int] = ..., trust_bundle: _Optional[str] = ...) -> None: ...

class FleetStatusResponse(_message.Message):
    __slots__ = ("header", "as_of_ns", "nodes", "partial")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    AS_OF_NS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    as_of_ns: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    partial: bool
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., as_of_ns: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., partial: _Optional[bool] = ...) -> None: ...

class PolicyShowRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PolicyShowResponse(_message.Message):
    __slots__ = ("header", "name", "version", "source", "auth_revision")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    name: str
    version: int
    source: str
    auth_revision: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., source: _Optional[str] = ..., auth_revision: _Optional[int] = ...) -> None: ...

class PolicyLoadRequest(_message.Message):
    __slots__ = ("source", "allow_lockout")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_LOCKOUT_FIELD_NUMBER: _ClassVar[int]
    source: str
    allow_lockout: bool
    def __init__(self, source: _Optional[str] = ..., allow_lockout: _Optional[bool] = ...) -> None: ...

class PolicyLoadResponse(_message.Message):
    __slots__ = ("header", "name", "version")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    name: str
    version: int
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class CanIRequest(_message.Message):
    __slots__ = ("action", "key", "range_end", "reason", "ticket", "value_bytes", "explain", "value_format", "source_ip")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    RANGE_END_FIELD_NUMBER: _ClassVar[int]
    AS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    VALUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    VALUE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    action: str
    key: bytes
    range_end: bytes
    reason: str
    ticket: str
    value_bytes: int
    explain: bool
    value_format: str
    source_ip: str
    def __init__(self, action: _Optional[str] = ..., key: _Optional[bytes] = ..., range_end: _Optional[bytes] = ..., reason: _Optional[str] = ..., ticket: _Optional[str] = ..., value_bytes: _Optional[int] = ..., explain: _Optional[bool] = ..., value_format: _Optional[str] = ..., source_ip: _Optional[str] = ..., **kwargs) -> None: ...

class CanIStep(_message.Message):
    __slots__ = ("kind", "rule", "verdict")
    KIND_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    rule: str
    verdict: str
    def __init__(self, kind: _Optional[str] = ..., rule: _Optional[str] = ..., verdict: _Optional[str] = ...) -> None: ...

class CanIResponse(_message.Message):
    __slots__ = ("header", "allowed", "rule", "auth_revision", "policy", "steps")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    allowed: bool
    rule: str
    auth_revision: int
    policy: str
    steps: _containers.RepeatedCompositeFieldContainer[CanIStep]
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., allowed: _Optional[bool] = ..., rule: _Optional[str] = ..., auth_revision: _Optional[int] = ..., policy: _Optional[str] = ..., steps: _Optional[_Iterable[_Union[CanIStep, _Mapping]]] = ...) -> None: ...

class Denial(_message.Message):
    __slots__ = ("what", "value", "until_ns")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    what: str
    value: str
    until_ns: int
    def __init__(self, what: _Optional[str] = ..., value: _Optional[str] = ..., until_ns: _Optional[int] = ...) -> None: ...

class DenyAddRequest(_message.Message):
    __slots__ = ("what", "value", "until_ns", "allow_lockout")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_LOCKOUT_FIELD_NUMBER: _ClassVar[int]
    what: str
    value: str
    until_ns: int
    allow_lockout: bool
    def __init__(self, what: _Optional[str] = ..., value: _Optional[str] = ..., until_ns: _Optional[int] = ..., allow_lockout: _Optional[bool] = ...) -> None: ...

class DenyAddResponse(_message.Message):
    __slots__ = ("header", "entry")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    entry: Denial
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., entry: _Optional[_Union[Denial, _Mapping]] = ...) -> None: ...

class DenyRemoveRequest(_message.Message):
    __slots__ = ("what", "value")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    what: str
    value: str
    def __init__(self, what: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class DenyRemoveResponse(_message.Message):
    __slots__ = ("header", "entry")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    entry: Denial
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., entry: _Optional[_Union[Denial, _Mapping]] = ...) -> None: ...

class DenyListRequest(_message.Message):
    __slots__ = ("limit", "after")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    limit: int
    after: Denial
    def __init__(self, limit: _Optional[int] = ..., after: _Optional[_Union[Denial, _Mapping]] = ...) -> None: ...

class DenyListResponse(_message.Message):
    __slots__ = ("header", "entries", "more")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    header: _rpc_pb2.ResponseHeader
    entries: _containers.RepeatedCompositeFieldContainer[Denial]
    more: bool
    def __init__(self, header: _Optional[_Union[_rpc_pb2.ResponseHeader, _Mapping]] = ..., entries: _Optional[_Iterable[_Union[Denial, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...
