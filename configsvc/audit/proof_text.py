"""What leaves the house as evidence: C2SP tlog-proof texts and tlog-tiles names and bundles.

A proof text carries leaf index, audit path and the signed checkpoint; it is verified without the
server. The tile layout is a directory that any static file server can offer: hash tiles of up to
256 nodes per level group, and entry bundles of up to 256 leaves with two bytes of length each.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from configsvc.audit.checkpoint import CheckSignature, NoteKey, decode_base64, verify_checkpoint
from configsvc.audit.merkle import HASH_BYTES, leaf_hash
from configsvc.audit.proofs import verify_inclusion
from configsvc.errors import DecodeError, ensure
from configsvc.limits import CHECKPOINT_BYTES_MAX

HEADER: Final = "c2sp.org/tlog-proof@v1"
TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8  # levels of the tree in one tile
PATH_MAX: Final = 64


class InclusionProof(NamedTuple):
    seq: int
    path: tuple[bytes, ...]
    note: str  # the signed checkpoint


class TileName(NamedTuple):
    """A file of the tile directory; ``width`` 256 is a full one."""

    level: int  # of tiles; -1 is entries
    place: int
    width: int

    @property
    def path(self) -> str:
        """Relative path, e.g. ``tile/0/x001/234.p/17``."""
        level = "entries" if self.level < 0 else str(self.level)
        groups = f"{self.place:0{-(-len(str(self.place)) // 3) * 3}d}"
        parts = [groups[i : i + 3] for i in range(0, len(groups), 3)]
        name = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{name}{partial}"


def encode_proof(proof: InclusionProof) -> str:
    """The text of a proof."""
    hashes = "".join(f"{b64encode(node).decode()}\n" for node in proof.path)
    return f"{HEADER}\nindex {proof.seq}\n{hashes}\n{proof.note}"


def decode_proof(text: str) -> InclusionProof:
    """Inverse of ``encode_proof``; an ``extra`` line is passed over. Raises ``DecodeError``."""
    if len(text) > 2 * CHECKPOINT_BYTES_MAX:
        raise DecodeError("proof is too long")
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != HEADER or not blank:
        raise DecodeError("proof does not have its header")
    if lines and lines[0].startswith("extra "):
        decode_base64(lines.pop(0).removeprefix("extra "))
    word, _, digits = (lines.pop(0) if lines else "").partition(" ")
    plain = digits.isascii() and digits.isdecimal() and len(digits) <= 20
    if word != "index" or not plain or (digits[0] == "0" and digits != "0"):
        raise DecodeError("proof does not have its index")
    path = tuple(decode_base64(line) for line in lines)
    if len(path) > PATH_MAX or any(len(node) != HASH_BYTES for node in path):
        raise DecodeError("proof's path is not a path")
    return InclusionProof(int(digits), path, note)


def verify_proof(
    proof: InclusionProof,
    leaf: bytes,
    origin: str,
    keys: Sequence[NoteKey],
    threshold: int,
    check: CheckSignature,
) -> bool:
    """Whether exactly ``leaf`` stands at the proof's index in a properly signed tree (V3).

    Raises:
        DecodeError: the checkpoint is not acceptable; see ``verify_checkpoint``.
    """
    checkpoint = verify_checkpoint(proof.note, origin, keys, threshold, check)
    return verify_inclusion(
        proof.seq, checkpoint.size, leaf_hash(leaf), proof.path, checkpoint.root
    )


def tiles_of(size: int) -> Iterator[TileName]:
    """Every file that a tree of ``size`` leaves has, partial ones at the right edge included."""
    for level in (-1, *range(_levels(size))):
        nodes = size >> TILE_HEIGHT * max(level, 0)
        for place in range(-(-nodes // TILE_WIDTH)):
            yield TileName(level, place, min(TILE_WIDTH, nodes - place * TILE_WIDTH))


def encode_bundle(leaves: Sequence[bytes]) -> bytes:
    """An entry bundle: each leaf with two bytes of length before it."""
    ensure(0 < len(leaves) <= TILE_WIDTH, "a bundle has 1 to 256 leaves")
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def decode_bundle(data: bytes) -> list[bytes]:
    """Inverse of ``encode_bundle``. Raises ``DecodeError``."""
    leaves: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or len(leaves) == TILE_WIDTH:
            raise DecodeError("entry bundle is cut or too long")
        leaves.append(data[at + 2 : end])
        at = end
    return leaves


def _levels(size: int) -> int:
    """Tile levels that have a node: level L holds the tree's nodes of level 8 * L."""
    levels = 0
    while size >> TILE_HEIGHT * levels:
        levels += 1
    return levels
