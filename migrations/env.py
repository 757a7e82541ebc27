"""Alembic environment of the history database.

Runs only from ``configsvc.storage.history.migrate``, on the connection and inside the transaction
handed in there, so that a start that dies half-way leaves the old schema.
"""

from __future__ import annotations

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("migrations run when the server opens its history; there is no other way in")

context.configure(connection=connection, transactional_ddl=True)
context.run_migrations()
