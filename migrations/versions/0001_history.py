"""The tables of the first release. Frozen: later changes are later steps."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TYPES = {"int": _INT, "blob": sa.LargeBinary(), "text": sa.Text()}


def _create(name: str, columns: str, primary: str, *, rowid: bool = False) -> None:
    """``columns`` is "name:type …"; all are NOT NULL, tables are STRICT."""
    parts: list[Any] = []
    for part in columns.split():
        column, _, kind = part.partition(":")
        parts.append(sa.Column(column, _TYPES[kind], nullable=False, autoincrement=False))
    parts.append(sa.PrimaryKeyConstraint(*primary.split()))
    op.create_table(name, *parts, sqlite_strict=True, sqlite_with_rowid=rowid)


def upgrade() -> None:
    _create(
        "revisions",
        "revision:int sub:int key:blob value:blob create_revision:int version:int lease:int"
        " tombstone:int seq:int",
        "revision sub",
    )
    op.create_index("revisions_by_key", "revisions", ["key", "revision", "sub", "tombstone"])
    _create("live", "key:blob revision:int sub:int", "key")
    _create(
        "commits",
        "seq:int raft_index:int raft_term:int revision:int time_ns:int event:text actor:blob"
        " outcome:text leaf:blob",
        "seq",
        rowid=True,
    )
    _create("openings", "seq:int sealed:blob", "seq", rowid=True)
    _create("actors", "seq:int hash:blob record:blob salt:blob", "seq", rowid=True)
    op.create_index("actors_by_hash", "actors", ["hash"], unique=True)
    _create("tiles", "level:int number:int hashes:blob", "level number", rowid=True)
    _create("seeds", "id:text key_id:text wrapped:blob created_s:int", "id")
    _create("seal_batches", "id:int seed:text info:blob", "id", rowid=True)
    _create(
        "store",
        "id:int format:int minimum_reader:int cluster_id:blob member_id:blob store_id:blob"
        " insecure:int epoch:int generation:int",
        "id",
        rowid=True,
    )
    _create(
        "progress",
        "id:int applied:int term:int visible_revision:int conf_state:blob digest:blob"
        " tree_size:int last_batch:int sealed:int folded:int owner_epoch:int",
        "id",
        rowid=True,
    )
    _create_small_tables()


def _create_small_tables() -> None:
    _create("leases", "id:int ttl:int creator:text remaining:int", "id")
    _create(
        "users",
        "name:text uid:text password_hash:blob no_password:int roles:text min_arev:int",
        "name",
    )
    _create("roles", "name:text", "name")
    _create("permissions", "role:text key:blob range_end:blob perm_type:int", "role key range_end")
    _create(
        "members",
        "id:int name:text peer_urls:text client_urls:text is_learner:int store_id:blob"
        " version:text",
        "id",
    )
    _create("removed_members", "id:int", "id")
    _create("alarms", "member:int alarm:int", "member alarm")
    _create(
        "signing_keys",
        "kid:text use:text member:int public:blob state:text since_index:int",
        "kid",
    )
    _create("revocations", "what:text value:text until_ns:int", "what value")
    _create(
        "policy_bundles",
        "version:int name:text source:text compiled:blob active:int",
        "version",
    )
    _create("anchors", "member:int origin:text size:int root:blob", "member")
    _create("signatures", "member:int size:int root:blob signature:blob", "member size")
    _create("meta", "name:text value:blob", "name")


def downgrade() -> None:
    raise NotImplementedError("history is never downgraded in place: restore a backup")
