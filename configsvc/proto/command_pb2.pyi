from configsvc.proto import rpc_pb2 as _rpc_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Actor(_message.Message):
    __slots__ = ("kind", "name", "user", "uid", "cert_uri", "cert_serial", "cert_sha256", "method", "jti", "key_id", "auth_revision", "source_ip", "source_tls", "client_name", "client_version")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    CERT_URI_FIELD_NUMBER: _ClassVar[int]
    CERT_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CERT_SHA256_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    JTI_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    AUTH_REVISION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TLS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    user: str
    uid: str
    cert_uri: str
    cert_serial: str
    cert_sha256: str
    method: str
    jti: str
    key_id: str
    auth_revision: int
    source_ip: str
    source_tls: str
    client_name: str
    client_version: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., user: _Optional[str] = ..., uid: _Optional[str] = ..., cert_uri: _Optional[str] = ..., cert_serial: _Optional[str] = ..., cert_sha256: _Optional[str] = ..., method: _Optional[str] = ..., jti: _Optional[str] = ..., key_id: _Optional[str] = ..., auth_revision: _Optional[int] = ..., source_ip: _Optional[str] = ..., source_tls: _Optional[str] = ..., client_name: _Optional[str] = ..., client_version: _Optional[str] = ...) -> None: ...

class Fact(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("request_id", "actor", "reason", "ticket", "salt", "facts", "new_uid", "time_ns", "time_suspect", "accepted_by", "generated_id", "format", "min_reader", "put", "delete_range", "txn", "compaction", "lease_grant", "lease_revoke", "lease_checkpoint", "alarm", "auth_enable", "auth_disable", "user_add", "user_delete", "user_change_password", "user_grant_role", "user_revoke_role", "role_add", "role_delete", "role_grant_permission", "role_revoke_permission", "bootstrap", "policy_load", "member_attributes", "member_change", "cluster_version", "signing_key", "revoke", "audit_anchor", "checkpoint_signature", "unrevoke")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    NEW_UID_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    TIME_SUSPECT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_BY_FIELD_NUMBER: _ClassVar[int]
    GENERATED_ID_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MIN_READER_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETE_RANGE_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    COMPACTION_FIELD_NUMBER: _ClassVar[int]
    LEASE_GRANT_FIELD_NUMBER: _ClassVar[int]
    LEASE_REVOKE_FIELD_NUMBER: _ClassVar[int]
    LEASE_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    AUTH_ENABLE_FIELD_NUMBER: _ClassVar[int]
    AUTH_DISABLE_FIELD_NUMBER: _ClassVar[int]
    USER_ADD_FIELD_NUMBER: _ClassVar[int]
    USER_DELETE_FIELD_NUMBER: _ClassVar[int]
    USER_CHANGE_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    USER_GRANT_ROLE_FIELD_NUMBER: _ClassVar[int]
    USER_REVOKE_ROLE_FIELD_NUMBER: _ClassVar[int]
    ROLE_ADD_FIELD_NUMBER: _ClassVar[int]
    ROLE_DELETE_FIELD_NUMBER: _ClassVar[int]
    ROLE_GRANT_PERMISSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_REVOKE_PERMISSION_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_FIELD_NUMBER: _ClassVar[int]
    POLICY_LOAD_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MEMBER_CHANGE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    AUDIT_ANCHOR_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    UNREVOKE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    actor: Actor
    reason: str
    ticket: str
    salt: bytes
    facts: _containers.RepeatedCompositeFieldContainer[Fact]
    new_uid: str
    time_ns: int
    time_suspect: bool
    accepted_by: int
    generated_id: int
    format: int
    min_reader: int
    put: _rpc_pb2.PutRequest
    delete_range: _rpc_pb2.DeleteRangeRequest
    txn: _rpc_pb2.TxnRequest
    compaction: _rpc_pb2.CompactionRequest
    lease_grant: _rpc_pb2.LeaseGrantRequest
    lease_revoke: LeaseRevoke
    lease_checkpoint: LeaseCheckpoints
    alarm: _rpc_pb2.AlarmRequest
    auth_enable: _rpc_pb2.AuthEnableRequest
    auth_disable: _rpc_pb2.AuthDisableRequest
    user_add: UserAdd
    user_delete: _rpc_pb2.AuthUserDeleteRequest
    user_change_password: UserChangePassword
    user_grant_role: _rpc_pb2.AuthUserGrantRoleRequest
    user_revoke_role: _rpc_pb2.AuthUserRevokeRoleRequest
    role_add: _rpc_pb2.AuthRoleAddRequest
    role_delete: _rpc_pb2.AuthRoleDeleteRequest
    role_grant_permission: _rpc_pb2.AuthRoleGrantPermissionRequest
    role_revoke_permission: _rpc_pb2.AuthRoleRevokePermissionRequest
    bootstrap: Bootstrap
    policy_load: PolicyLoad
    member_attributes: MemberAttributes
    member_change: MemberChange
    cluster_version: ClusterVersion
    signing_key: SigningKey
    revoke: Revoke
    audit_anchor: AuditAnchor
    checkpoint_signature: CheckpointSignature
    unrevoke: Unrevoke
    def __init__(self, request_id: _Optional[int] = ..., actor: _Optional[_Union[Actor, _Mapping]] = ..., reason: _Optional[str] = ..., ticket: _Optional[str] = ..., salt: _Optional[bytes] = ..., facts: _Optional[_Iterable[_Union[Fact, _Mapping]]] = ..., new_uid: _Optional[str] = ..., time_ns: _Optional[int] = ..., time_suspect: _Optional[bool] = ..., accepted_by: _Optional[int] = ..., generated_id: _Optional[int] = ..., format: _Optional[int] = ..., min_reader: _Optional[int] = ..., put: _Optional[_Union[_rpc_pb2.PutRequest, _Mapping]] = ..., delete_range: _Optional[_Union[_rpc_pb2.DeleteRangeRequest, _Mapping]] = ..., txn: _Optional[_Union[_rpc_pb2.TxnRequest, _Mapping]] = ..., compaction: _Optional[_Union[_rpc_pb2.CompactionRequest, _Mapping]] = ..., lease_grant: _Optional[_Union[_rpc_pb2.LeaseGrantRequest, _Mapping]] = ..., lease_revoke: _Optional[_Union[LeaseRevoke, _Mapping]] = ..., lease_checkpoint: _Optional[_Union[LeaseCheckpoints, _Mapping]] = ..., alarm: _Optional[_Union[_rpc_pb2.AlarmRequest, _Mapping]] = ..., auth_enable: _Optional[_Union[_rpc_pb2.AuthEnableRequest, _Mapping]] = ..., auth_disable: _Optional[_Union[_rpc_pb2.AuthDisableRequest, _Mapping]] = ..., user_add: _Optional[_Union[UserAdd, _Mapping]] = ..., user_delete: _Optional[_Union[_rpc_pb2.AuthUserDeleteRequest, _Mapping]] = ..., user_change_password: _Optional[_Union[UserChangePassword, _Mapping]] = ..., user_grant_role: _Optional[_Union[_rpc_pb2.AuthUserGrantRoleRequest, _Mapping]] = ..., user_revoke_role: _Optional[_Union[_rpc_pb2.AuthUserRevokeRoleRequest, _Mapping]] = ..., role_add: _Optional[_Union[_rpc_pb2.AuthRoleAddRequest, _Mapping]] = ..., role_delete: _Optional[_Union[_rpc_pb2.AuthRoleDeleteRequest, _Mapping]] = ..., role_grant_permission: _Optional[_Union[_rpc_pb2.AuthRoleGrantPermissionRequest, _Mapping]] = ..., role_revoke_permission: _Optional[_Union[_rpc_pb2.AuthRoleRevokePermissionRequest, _Mapping]] = ..., bootstrap: _Optional[_Union[Bootstrap, _Mapping]] = ..., policy_load: _Optional[_Union[PolicyLoad, _Mapping]] = ..., member_attributes: _Optional[_Union[MemberAttributes, _Mapping]] = ..., member_change: _Optional[_Union[MemberChange, _Mapping]] = ..., cluster_version: _Optional[_Union[ClusterVersion, _Mapping]] = ..., signing_key: _Optional[_Union[SigningKey, _Mapping]] = ..., revoke: _Optional[_Union[Revoke, _Mapping]] = ..., audit_anchor: _Optional[_Union[AuditAnchor, _Mapping]] = ..., checkpoint_signature: _Optional[_Union[CheckpointSignature, _Mapping]] = ..., unrevoke: _Optional[_Union[Unrevoke, _Mapping]] = ...) -> None: ...

class LeaseRevoke(_message.Message):
    __slots__ = ("ids", "decided_term")
    IDS_FIELD_NUMBER: _ClassVar[int]
    DECIDED_TERM_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    decided_term: int
    def __init__(self, ids: _Optional[_Iterable[int]] = ..., decided_term: _Optional[int] = ...) -> None: ...

class LeaseCheckpoints(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[_rpc_pb2.LeaseCheckpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[_rpc_pb2.LeaseCheckpoint, _Mapping]]] = ...) -> None: ...

class UserAdd(_message.Message):
    __slots__ = ("name", "password_hash", "no_password")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_HASH_FIELD_NUMBER: _ClassVar[int]
    NO_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    name: str
    password_hash: str
    no_password: bool
    def __init__(self, name: _Optional[str] = ..., password_hash: _Optional[str] = ..., no_password: _Optional[bool] = ...) -> None: ...

class UserChangePassword(_message.Message):
    __slots__ = ("name", "password_hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_HASH_FIELD_NUMBER: _ClassVar[int]
    name: str
    password_hash: str
    def __init__(self, name: _Optional[str] = ..., password_hash: _Optional[str] = ...) -> None: ...

class Bootstrap(_message.Message):
    __slots__ = ("trust_domain", "policy_source", "policy_compiled", "policy_name", "policy_version", "insecure", "members")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    POLICY_SOURCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_COMPILED_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSECURE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    policy_source: str
    policy_compiled: bytes
    policy_name: str
    policy_version: int
    insecure: bool
    members: _containers.RepeatedCompositeFieldContainer[MemberChange]
    def __init__(self, trust_domain: _Optional[str] = ..., policy_source: _Optional[str] = ..., policy_compiled: _Optional[bytes] = ..., policy_name: _Optional[str] = ..., policy_version: _Optional[int] = ..., insecure: _Optional[bool] = ..., members: _Optional[_Iterable[_Union[MemberChange, _Mapping]]] = ...) -> None: ...

class PolicyLoad(_message.Message):
    __slots__ = ("source", "compiled", "version", "name")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    source: str
    compiled: bytes
    version: int
    name: str
    def __init__(self, source: _Optional[str] = ..., compiled: _Optional[bytes] = ..., version: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class MemberAttributes(_message.Message):
    __slots__ = ("member", "name", "client_urls", "store_id", "version")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_URLS_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    member: int
    name: str
    client_urls: _containers.RepeatedScalarFieldContainer[str]
    store_id: bytes
    version: str
    def __init__(self, member: _Optional[int] = ..., name: _Optional[str] = ..., client_urls: _Optional[_Iterable[str]] = ..., store_id: _Optional[bytes] = ..., version: _Optional[str] = ...) -> None: ...

class MemberChange(_message.Message):
    __slots__ = ("action", "member", "peer_urls", "is_learner")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PEER_URLS_FIELD_NUMBER: _ClassVar[int]
    IS_LEARNER_FIELD_NUMBER: _ClassVar[int]
    action: str
    member: int
    peer_urls: _containers.RepeatedScalarFieldContainer[str]
    is_learner: bool
    def __init__(self, action: _Optional[str] = ..., member: _Optional[int] = ..., peer_urls: _Optional[_Iterable[str]] = ..., is_learner: _Optional[bool] = ...) -> None: ...

class ClusterVersion(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class SigningKey(_message.Message):
    __slots__ = ("kid", "use", "member", "public", "state")
    KID_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    kid: str
    use: str
    member: int
    public: bytes
    state: str
    def __init__(self, kid: _Optional[str] = ..., use: _Optional[str] = ..., member: _Optional[int] = ..., public: _Optional[bytes] = ..., state: _Optional[str] = ...) -> None: ...

class Revoke(_message.Message):
    __slots__ = ("what", "value", "until_ns")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_NS_FIELD_NUMBER: _ClassVar[int]
    what: str
    value: str
    until_ns: int
    def __init__(self, what: _Optional[str] = ..., value: _Optional[str] = ..., until_ns: _Optional[int] = ...) -> None: ...

class Unrevoke(_message.Message):
    __slots__ = ("what", "value")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    what: str
    value: str
    def __init__(self, what: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class AuditAnchor(_message.Message):
    __slots__ = ("member", "origin", "size", "root")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    member: int
    origin: str
    size: int
    root: bytes
    def __init__(self, member: _Optional[int] = ..., origin: _Optional[str] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class CheckpointSignature(_message.Message):
    __slots__ = ("member", "size", "root", "signature")
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    member: int
    size: int
    root: bytes
    signature: bytes
    def __init__(self, member: _Optional[int] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...
