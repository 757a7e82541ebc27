"""The sealing seeds of one database: made, wrapped by the key file, found again (ENC-4, ENC-5).

A seed serves for 2^31 fields, or for 90 days and the rest of the run in which they end; a newer one
serves new rows, the older ones still open what they sealed. Changing the key file re-wraps the
seeds, which go on serving, and touches no row.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, insert, select, update

from configsvc.errors import ConfigError
from configsvc.limits import SEALED_PER_SEED_MAX, SEED_AGE_S_MAX
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.schema import PROGRESS, SEAL_BATCHES, SEEDS
from configsvc.storage.history.values import context_of
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.seal.rows import RowSealer

_SEED_BYTES: Final = 32


def load_sealers(
    connection: Connection, identity: StoreIdentity, key_file: KeyFile, path: Path
) -> dict[str, RowSealer]:
    """Unwrap every seed; reads only.

    Raises:
        ConfigError: exit 78, the key file is not the one the seeds were wrapped with.
    """
    sealers = {}
    for seed_id, key_id, wrapped in connection.execute(
        select(SEEDS.c.id, SEEDS.c.key_id, SEEDS.c.wrapped)
    ):
        if key_id != key_file.key_id:
            raise _wrong_key(path, f"wrapped by key {key_id}, the key file holds {key_file.key_id}")
        try:
            seed = key_file.unwrap(wrapped, _wrap_aad(identity, seed_id))
        except (SealBroken, ConfigError) as error:
            raise _wrong_key(path, f"seed {seed_id} does not unwrap") from error
        sealers[seed_id] = RowSealer(seed, seed_id, context_of(identity))
    return sealers


def choose_active(
    connection: Connection, identity: StoreIdentity, key_file: KeyFile, now_s: int
) -> str:
    """Id of the seed for new rows: the newest while it may serve, else a new one is written."""
    newest = connection.execute(
        select(SEEDS.c.id, SEEDS.c.created_s).order_by(SEEDS.c.created_s.desc(), SEEDS.c.id)
    ).first()
    sealed = connection.execute(select(PROGRESS.c.sealed)).scalar() or 0
    if newest and sealed < SEALED_PER_SEED_MAX and now_s - newest[1] < SEED_AGE_S_MAX:
        return str(newest[0])
    seed_id = os.urandom(8).hex()
    wrapped = key_file.wrap(os.urandom(_SEED_BYTES), _wrap_aad(identity, seed_id))
    # Never older than the seed it follows, whatever the wall clock says.
    created = max(now_s, newest[1] + 1 if newest else 0)
    connection.execute(
        insert(SEEDS).values(id=seed_id, key_id=key_file.key_id, wrapped=wrapped, created_s=created)
    )
    connection.execute(update(PROGRESS).values(sealed=0))
    return seed_id


def rewrap(connection: Connection, identity: StoreIdentity, old: KeyFile, new: KeyFile) -> int:
    """Wrap every seed with ``new`` instead of ``old``; the number of seeds. No row is touched.

    Raises:
        ConfigError: exit 78, ``old`` does not unwrap a seed; nothing has changed then.
    """
    seeds = connection.execute(select(SEEDS.c.id, SEEDS.c.wrapped)).all()
    for seed_id, wrapped in seeds:
        aad = _wrap_aad(identity, seed_id)
        try:
            seed = old.unwrap(wrapped, aad)
        except (SealBroken, ConfigError) as error:
            raise ConfigError(f"seed {seed_id} does not unwrap", "give the old key file") from error
        connection.execute(
            update(SEEDS)
            .where(SEEDS.c.id == seed_id)
            .values(key_id=new.key_id, wrapped=new.wrap(seed, aad))
        )
    return len(seeds)


def seed_users(connection: Connection) -> dict[str, int]:
    """Seed id to number of transactions that were sealed under it (an unused seed counts 0)."""
    counted = (
        select(SEEDS.c.id, func.count(SEAL_BATCHES.c.id))
        .outerjoin(SEAL_BATCHES, SEAL_BATCHES.c.seed == SEEDS.c.id)
        .group_by(SEEDS.c.id)
    )
    return {row[0]: row[1] for row in connection.execute(counted)}


def _wrap_aad(identity: StoreIdentity, seed_id: str) -> bytes:
    member = identity.member_id.to_bytes(8, "big")
    return b"configsvc/seed/v1" + context_of(identity) + member + seed_id.encode()


def _wrong_key(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path}: {what}", "start with the key file that this member was made with")
