"""A slow, obvious model of the key space, and the effects that apply would have given for it."""

from __future__ import annotations

from pathlib import Path

from configsvc.apply.commands import CommitRow, Effects, TableChange
from configsvc.audit.merkle import leaf_hash
from configsvc.mvcc.messages import KeyValue, RangeOp, RangeResult, Row
from configsvc.storage.history.messages import StoreIdentity

IDENTITY = StoreIdentity(cluster_id=2**64 - 5, member_id=2**63 + 7, store_id=bytes(range(16)))


class World:
    """Every version of every key, by walking lists; and one ``Effects`` per change."""

    def __init__(self) -> None:
        self.index = 0
        self.revision = 1
        self.seq = 0
        self.time_ns = 1_000
        self.rows: list[Row] = []
        self.effects: list[Effects] = []

    # --- changes ----------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int = 0) -> Effects:
        return self.commit([("put", key, value, lease)])

    def delete(self, *keys: bytes) -> Effects:
        return self.commit([("delete", key, b"", 0) for key in keys])

    def commit(
        self,
        ops: list[tuple[str, bytes, bytes, int]],
        *,
        tables: tuple[TableChange, ...] = (),
        reason: str = "because",
        actor: bytes = b"",
    ) -> Effects:
        """One entry with a leaf. Deletes of keys that do not exist do nothing."""
        revision, rows, prevs = self.revision + 1, [], []
        for what, key, value, lease in ops:
            now = self._newest(key, revision, rows)
            alive = now is not None and not now.tombstone
            if what == "delete" and not alive:
                continue
            sub = len(rows)
            if what == "delete":
                row = Row(revision, sub, key, b"", 0, 0, 0, True)
            else:
                create, version = (now.create_revision, now.version + 1) if alive else (revision, 1)
                row = Row(revision, sub, key, value, create, version, lease, False)
            before = self._newest(key, self.revision, [])
            prevs.append(None if before is None or before.tombstone else as_kv(before))
            rows.append(row)
        if rows:
            self.revision = revision
        self.rows += rows
        self.index += 1
        self.time_ns += 10
        leaf = b"leaf %d" % self.seq
        record = b"record of " + actor if actor else b""
        commit = CommitRow(
            seq=self.seq,
            raft_index=self.index,
            raft_term=3,
            revision=self.revision,
            time_ns=self.time_ns,
            event="kv.put",
            actor=actor or b"a" * 32,
            actor_record=record,
            actor_salt=b"s" * 32 if record else b"",
            outcome="OK",
            salt=b"salt %d" % self.seq,
            reason=reason,
            ticket=f"T-{self.seq}",
            changes=b"changes %d" % self.seq,
        )
        self.seq += 1
        return self._effects(tuple(rows), tuple(prevs), tables, leaf, commit)

    def bookkeeping(self, *tables: TableChange) -> Effects:
        """One entry without a leaf."""
        self.index += 1
        return self._effects((), (), tables, b"", None)

    def _effects(self, rows, prevs, tables, leaf, commit) -> Effects:
        made = Effects(
            index=self.index,
            term=3,
            request_id=0,
            result=None,
            revision=self.revision,
            rows=rows,
            prevs=prevs,
            tables=tables,
            leaf=leaf,
            commit=commit,
            digest=self.index.to_bytes(16, "big"),
            leaf_hash=leaf_hash(leaf) if leaf else b"",
        )
        self.effects.append(made)
        return made

    # --- the past, slowly -------------------------------------------------------------------------

    def _newest(self, key: bytes, revision: int, pending: list[Row]) -> Row | None:
        found = None
        for row in (*self.rows, *pending):
            if row.key == key and row.revision <= revision:
                found = row
        return found

    def live(self, revision: int | None = None) -> dict[bytes, Row]:
        state: dict[bytes, Row] = {}
        for row in self.rows:
            if revision is None or row.revision <= revision:
                state[row.key] = row
        return {key: row for key, row in sorted(state.items()) if not row.tombstone}

    def range(self, op: RangeOp, revision: int) -> RangeResult:
        """``RangeOp`` by the sentences of wire/behaviour.md."""
        kvs = [as_kv(row) for key, row in self.live(revision).items() if op.span.holds(key)]
        count = len(kvs)
        if op.count_only:
            return RangeResult((), count, False, revision)
        if op.min_mod_revision:
            kvs = [kv for kv in kvs if kv.mod_revision >= op.min_mod_revision]
        if op.max_mod_revision:
            kvs = [kv for kv in kvs if kv.mod_revision <= op.max_mod_revision]
        if op.min_create_revision:
            kvs = [kv for kv in kvs if kv.create_revision >= op.min_create_revision]
        if op.max_create_revision:
            kvs = [kv for kv in kvs if kv.create_revision <= op.max_create_revision]
        if op.limit > 0 and op.sort_order == 0:
            kvs = kvs[: op.limit + 1]
        field = ("key", "version", "create_revision", "mod_revision", "value")[op.sort_target]
        if op.sort_order or op.sort_target:
            kvs.sort(key=lambda kv: getattr(kv, field), reverse=op.sort_order == 2)
        more = 0 < op.limit < len(kvs)
        kvs = kvs[: op.limit] if op.limit > 0 else kvs
        if op.keys_only:
            kvs = [kv._replace(value=b"", lease=kv.lease * (op.sort_target == 4)) for kv in kvs]
        return RangeResult(tuple(kvs), count, more, revision)


def as_kv(row: Row) -> KeyValue:
    return KeyValue(row.key, row.value, row.create_revision, row.revision, row.version, row.lease)


def files_of(path: Path) -> dict[str, bytes]:
    """Content of the database and its side files."""
    return {file.name: file.read_bytes() for file in path.parent.glob(path.name + "*")}


def small_world() -> World:
    world = World()
    world.put(b"/a", b"1")
    world.put(b"/b", b"2", lease=77)
    world.commit([("put", b"/a", b"3", 0), ("put", b"/c", b"", 0), ("delete", b"/b", b"", 0)])
    world.bookkeeping(TableChange("leases", (-5,), (10, "user", 3)))
    world.put(b"/b", b"again")
    return world
