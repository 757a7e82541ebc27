"""The tree and its proofs against the RFC's own recursive definition (TE-1, V1, V3)."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeLog,
    leaf_hash,
    node_hash,
    root_of,
    root_of_hashes,
)
from configsvc.audit.proofs import (
    consistency_proof,
    inclusion_proof,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from configsvc.errors import DecodeError, InvariantViolationError

SIZES = range(1, 70)
LEAVES = [b"leaf %d" % i for i in range(70)]

# Leaves and roots that certificate-transparency implementations share.
KNOWN_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + mth(leaves[:split]) + mth(leaves[split:])).digest()


class Kept:
    """Nodes by (level, place), as a store would hold them."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        log = NodeLog(Frontier())
        for leaf in leaves:
            for node in log.append(leaf):
                assert (node.level, node.place) not in self.nodes
                self.nodes[node.level, node.place] = node.hash
        self.root = log.frontier.root()

    def read(self, level: int, place: int) -> bytes:
        return self.nodes[level, place]


ALL = Kept(LEAVES)


def test_known_answers() -> None:
    leaves = [bytes.fromhex(text) for text in KNOWN_LEAVES]
    for size, root in enumerate(KNOWN_ROOTS, start=1):
        assert root_of(leaves[:size]).hex() == root
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_roots_agree_with_the_definition(leaves: list[bytes]) -> None:
    assert root_of(leaves) == mth(leaves)
    assert root_of_hashes([leaf_hash(leaf) for leaf in leaves]) == mth(leaves)
    kept = Kept(leaves)
    assert kept.root == mth(leaves)
    assert root_at(len(leaves), kept.read) == mth(leaves)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 31])
@pytest.mark.parametrize("run", [0, 1, 2, 3, 4, 5, 8, 13, 33])
def test_a_run_is_one_after_the_other(size: int, run: int) -> None:
    single, together = Frontier(), Frontier()
    for leaf in LEAVES[:size]:
        single.append(leaf)
        together.append(leaf)
    hashes = [leaf_hash(leaf) for leaf in LEAVES[size : size + run]]
    for hashed in hashes:
        single.append_hash(hashed)
    together.append_hashes(hashes)
    assert together.state() == single.state()
    assert together.root() == single.root()


@pytest.mark.parametrize("size", [0, *SIZES])
def test_a_frontier_survives_a_restart(size: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier.append(leaf)
    restored = Frontier.restore(*frontier.state())
    copied = frontier.copy()
    for each in (frontier, restored):
        each.append(b"more")
    assert restored.root() == frontier.root() == mth([*LEAVES[:size], b"more"])
    assert copied.root() == mth(LEAVES[:size])


@pytest.mark.parametrize(
    ("size", "roots"),
    [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (1, [b"short"]), (-1, [bytes(32)])],
)
def test_a_frontier_that_does_not_fit_is_refused(size: int, roots: list[bytes]) -> None:
    with pytest.raises(DecodeError):
        Frontier.restore(size, roots)


def forgeries(path: list[bytes]) -> list[list[bytes]]:
    """Each node altered, dropped, doubled; neighbours swapped; ends lengthened."""
    made = [[*path, bytes(32)], [bytes(32), *path]]
    for i in range(len(path)):
        made.append([*path[:i], bytes(32), *path[i + 1 :]])
        made.append([*path[:i], path[i][:31], *path[i + 1 :]])
        made.append(path[:i] + path[i + 1 :])
        made.append([*path[: i + 1], *path[i:]])
        if i and path[i] != path[i - 1]:
            made.append([*path[: i - 1], path[i], path[i - 1], *path[i + 1 :]])
    return made


@pytest.mark.parametrize("size", SIZES)
def test_v1_v3_inclusion_proofs(size: int) -> None:
    root = mth(LEAVES[:size])
    for seq in range(size):
        path = inclusion_proof(seq, size, ALL.read)
        hashed = leaf_hash(LEAVES[seq])
        assert verify_inclusion(seq, size, hashed, path, root)
        assert not verify_inclusion(seq, size, leaf_hash(b"another"), path, root)
        assert not verify_inclusion(seq, size, hashed, path, bytes(32))
        for other in {seq - 1, seq + 1, size} - {seq}:
            assert not verify_inclusion(other, size, hashed, path, root)
        for forged in forgeries(path):
            assert not verify_inclusion(seq, size, hashed, forged, root)


@pytest.mark.parametrize("size", SIZES)
def test_v1_consistency_proofs(size: int) -> None:
    root = mth(LEAVES[:size])
    for old in range(1, size + 1):
        old_root = mth(LEAVES[:old])
        path = consistency_proof(old, size, ALL.read)
        assert verify_consistency(old, size, old_root, root, path)
        assert not verify_consistency(old, size, bytes(32), root, path)
        assert not verify_consistency(old, size, old_root, bytes(32), path)
        assert not verify_consistency(old, size, mth([b"x", *LEAVES[1:old]]), root, path)
        if size % 8 in (0, 3) or size < 9:  # all forms of trees, a part of the sizes: time
            for forged in forgeries(path):
                assert not verify_consistency(old, size, old_root, root, forged)


def test_edges_of_consistency() -> None:
    root = mth(LEAVES[:5])
    assert verify_consistency(0, 5, EMPTY_ROOT, root, [])
    assert not verify_consistency(0, 5, bytes(32), root, [])
    assert not verify_consistency(0, 5, EMPTY_ROOT, root, [bytes(32)])
    assert not verify_consistency(6, 5, root, root, [bytes(32)])
    assert not verify_consistency(-1, 5, root, root, [bytes(32)])
    assert not verify_consistency(3, 5, mth(LEAVES[:3]), root, [])


def test_proofs_are_asked_for_what_exists() -> None:
    for seq, size in ((5, 5), (-1, 5)):
        with pytest.raises(InvariantViolationError):
            inclusion_proof(seq, size, ALL.read)
    for old, size in ((0, 5), (6, 5)):
        with pytest.raises(InvariantViolationError):
            consistency_proof(old, size, ALL.read)


def test_leaves_are_no_nodes() -> None:
    """Second preimages: the two prefixes keep them apart."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) != leaf_hash(left + right)
