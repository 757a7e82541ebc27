"""A mark over the progress row and the small tables; the start that runs this step makes it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "progress",
        sa.Column("mark", sa.LargeBinary(), nullable=False, server_default=sa.text("x'00'")),
    )


def downgrade() -> None:
    raise NotImplementedError("history is never downgraded in place: restore a backup")
