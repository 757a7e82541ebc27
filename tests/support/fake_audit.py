"""A signed audit log behind the fake cluster, honest unless a test alters it."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc import StatusCode

from configsvc.audit.checkpoint import (
    Checkpoint,
    NoteKey,
    encode_checkpoint,
    encode_key,
    encode_note,
    sign,
)
from configsvc.audit.merkle import Frontier, NodeLog, root_of
from configsvc.audit.proof_text import InclusionProof, encode_proof
from configsvc.audit.proofs import inclusion_proof
from configsvc.audit.verify import Entry
from configsvc.proto import v1_pb2
from tests.support.audit_cases import ORIGIN, Log
from tests.support.fake_cluster import Abort
from tests.support.fake_store import page_of


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class SignedLog:
    """Two members with the same log; each signs by its own key."""

    def __init__(self, log: Log) -> None:
        self.log_ = log
        self.entries: dict[int, list[Entry]] = {1: list(log.entries), 2: list(log.entries)}
        self.secrets = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
        self.heads: dict[int, Checkpoint] = {1: log.checkpoint(), 2: log.checkpoint()}
        self.signers: dict[int, tuple[int, ...]] = {1: (0, 1), 2: (0, 1)}
        self.show_openings = True
        self.show_values = True
        self.unreadable = -1  # seq of a record that members cannot read back
        self.retired: list[bytes] = []  # keys of members that left

    @property
    def keys(self) -> list[NoteKey]:
        return [NoteKey(ORIGIN, public(secret)) for secret in self.secrets]

    @property
    def pins(self) -> str:
        return "# pinned\n" + "".join(f"{encode_key(key)}\n" for key in self.keys)

    def note(self, member: int, size: int = 0) -> str:
        head = self.heads[member]
        if size:
            root = root_of(entry.leaf for entry in self.entries[member][:size])
            head = Checkpoint(ORIGIN, size, root)
        text = encode_checkpoint(head)
        return encode_note(
            text,
            [sign(text, self.keys[n], self.secrets[n].sign) for n in self.signers[member]],
        )

    # --- what the fake members ask ----------------------------------------------------------------

    def checkpoint(self, member: int) -> v1_pb2.CheckpointResponse:
        head = self.heads[member]
        return v1_pb2.CheckpointResponse(note=self.note(member), size=head.size, root=head.root)

    def inclusion(self, member: int, seq: int, size: int) -> v1_pb2.InclusionResponse:
        nodes = {}
        log = NodeLog(Frontier())
        entries = self.entries[member]
        for entry in entries:
            for node in log.append(entry.leaf):
                nodes[node.level, node.place] = node.hash
        path = inclusion_proof(seq, size or len(entries), lambda *place: nodes[place])
        proof = encode_proof(InclusionProof(seq, tuple(path), self.note(member, size)))
        return v1_pb2.InclusionResponse(leaf=entries[seq].leaf, hashes=path, proof=proof)

    def export(self, member: int, first: int, limit: int) -> Iterator[v1_pb2.ExportChunk]:
        yield v1_pb2.ExportChunk(
            keys=[
                v1_pb2.ExportedKey(name=ORIGIN, member=n, public=key.public, state="active")
                for n, key in enumerate(self.keys, start=1)
            ]
            + [
                v1_pb2.ExportedKey(name=ORIGIN, member=90 + n, public=gone, state="retired")
                for n, gone in enumerate(self.retired)
            ]
        )
        sent: set[bytes] = set()
        entries = self.entries[member][first:][: limit or None]
        for start in range(0, len(entries), 4):
            chunk = v1_pb2.ExportChunk()
            for entry in entries[start : start + 4]:
                if entry.seq == self.unreadable:
                    raise Abort(StatusCode.DATA_LOSS, "etcdserver: corrupt cluster")
                for hashed, row in self.log_.actors.items():
                    if hashed in entry.leaf and hashed not in sent:
                        sent.add(hashed)
                        chunk.actors.add(hash=hashed, record=row.record, salt=row.salt)
                leaf = chunk.leaves.add(seq=entry.seq, leaf=entry.leaf)
                if self.show_openings and entry.opening is not None:
                    leaf.salt = entry.opening.salt
                    leaf.reason, leaf.ticket = entry.opening.reason, entry.opening.ticket
                leaf.changes = entry.changes
            yield chunk

    def log(self, request: v1_pb2.LogRequest) -> v1_pb2.LogResponse:
        rows = [
            row
            for entry in self.entries[1]
            for row in entry.rows or ()
            if row.revision > request.after_revision
        ]
        records = [
            v1_pb2.Record(
                revision=row.revision,
                key=row.key,
                value=row.value,
                has_value=not row.tombstone,
                lease=row.lease,
                tombstone=row.tombstone,
            )
            for row in rows
            if self.show_values
        ]
        return page_of(records, request.limit)
