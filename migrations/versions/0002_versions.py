"""The key index as a table of its own, which is filled in key order now and then.

Its rows reach exactly as far as ``progress.folded`` says for ``live``; the start that runs this
step folds the rest in.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INT = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "versions",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        *(sa.Column(name, _INT, nullable=False) for name in ("revision", "sub", "tombstone")),
        sa.PrimaryKeyConstraint("key", "revision", "sub"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    # Walks the old index in its own order: nothing is sorted, however long the history.
    op.execute(
        "INSERT INTO versions (key, revision, sub, tombstone)"
        " SELECT key, revision, sub, tombstone FROM revisions INDEXED BY revisions_by_key"
        " WHERE revision <= (SELECT folded FROM progress) ORDER BY key, revision, sub"
    )
    op.drop_index("revisions_by_key", "revisions")
    # Programs that write the old index would leave the new one behind.
    op.execute("UPDATE store SET format = 2, minimum_reader = 2")


def downgrade() -> None:
    raise NotImplementedError("history is never downgraded in place: restore a backup")
