"""Signed notes, checkpoints, proof texts: known answers and everything that must be refused."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from configsvc.audit.checkpoint import (
    Checkpoint,
    NoteKey,
    Signature,
    decode_checkpoint,
    decode_key,
    decode_note,
    encode_checkpoint,
    encode_key,
    encode_note,
    merge,
    sign,
    signers,
    verify_checkpoint,
)
from configsvc.audit.merkle import Frontier, NodeLog, root_of
from configsvc.audit.proof_text import (
    InclusionProof,
    TileName,
    decode_bundle,
    decode_proof,
    encode_bundle,
    encode_proof,
    tiles_of,
    verify_proof,
)
from configsvc.audit.proofs import inclusion_proof
from configsvc.errors import DecodeError

# Key and note that the signed-note text and Go's package print as their example.
EXAMPLE_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
EXAMPLE_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
EXAMPLE_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
EXAMPLE_NOTE = (
    EXAMPLE_TEXT + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSN"
    "XgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ORIGIN = "example.org/00000000000000aa/audit/1"
LEAVES = [b"leaf %d" % i for i in range(7)]
HEAD = Checkpoint(ORIGIN, 7, root_of(LEAVES))

PRIVATE = [Ed25519PrivateKey.from_private_bytes(bytes((i,)) * 32) for i in range(1, 5)]
KEYS = [NoteKey(ORIGIN, key.public_key().public_bytes_raw()) for key in PRIVATE]


def check(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def signed(*members: int, head: Checkpoint = HEAD) -> str:
    text = encode_checkpoint(head)
    return encode_note(text, [sign(text, KEYS[i], PRIVATE[i].sign) for i in members])


def test_known_answer_verifies_and_is_reproduced_byte_for_byte() -> None:
    key = decode_key(EXAMPLE_KEY)
    assert encode_key(key) == EXAMPLE_KEY
    assert signers(decode_note(EXAMPLE_NOTE), [key], check) == {key.public}
    private = Ed25519PrivateKey.from_private_bytes(b64decode(EXAMPLE_SEED)[1:])
    assert encode_note(EXAMPLE_TEXT, [sign(EXAMPLE_TEXT, key, private.sign)]) == EXAMPLE_NOTE
    altered = decode_note(EXAMPLE_NOTE.replace("answer", "Answer"))
    with pytest.raises(DecodeError):
        signers(altered, [key], check)


@pytest.mark.parametrize("cut", range(len(EXAMPLE_KEY)))
def test_mangled_keys_are_refused(cut: int) -> None:
    altered = EXAMPLE_KEY[:cut] + chr(ord(EXAMPLE_KEY[cut]) ^ 1) + EXAMPLE_KEY[cut + 1 :]
    for text in (EXAMPLE_KEY[:cut], EXAMPLE_KEY[cut + 1 :], altered):
        with pytest.raises(DecodeError):
            decode_key(text)


def test_a_checkpoint_has_three_lines() -> None:
    """TE-2."""
    root = b64encode(HEAD.root).decode()
    assert encode_checkpoint(HEAD) == f"{ORIGIN}\n7\n{root}\n"
    assert decode_checkpoint(encode_checkpoint(HEAD)) == HEAD


ROOT64 = b64encode(HEAD.root).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{ORIGIN}\n7\n{ROOT64}",
        f"{ORIGIN}\n7\n{ROOT64}\nextension\n",
        f"{ORIGIN}\n07\n{ROOT64}\n",
        f"{ORIGIN}\n-7\n{ROOT64}\n",
        f"{ORIGIN}\n+7\n{ROOT64}\n",
        f"{ORIGIN}\n٧\n{ROOT64}\n",
        f"{ORIGIN}\n{'9' * 30}\n{ROOT64}\n",
        f"{ORIGIN}\n\n{ROOT64}\n",
        f"\n7\n{ROOT64}\n",
        f"a b\n7\n{ROOT64}\n",
        f"a+b\n7\n{ROOT64}\n",
        f"{ORIGIN}\n7\n{ROOT64[:-4]}\n",
        f"{ORIGIN}\n7\n{ROOT64[:-1]}\n",
        f"{ORIGIN}\n7\n{bytes(32).hex()[:42]}B=\n",
        f"{ORIGIN}\n7\n {ROOT64}\n",
    ],
)
def test_other_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_checkpoint(text)


def test_te3_a_majority_of_distinct_keys_makes_it_good() -> None:
    for members in ((0, 1), (2, 0), (0, 1, 2)):
        assert verify_checkpoint(signed(*members), ORIGIN, KEYS[:3], 2, check) == HEAD
    with pytest.raises(DecodeError):
        verify_checkpoint(signed(0), ORIGIN, KEYS[:3], 2, check)


def test_v4_one_key_counts_once() -> None:
    text = encode_checkpoint(HEAD)
    twice = [sign(text, KEYS[0], PRIVATE[0].sign)] * 2
    alias = NoteKey("another/name", KEYS[0].public)
    renamed = [sign(text, key, PRIVATE[0].sign) for key in (KEYS[0], alias)]
    for signatures in (twice, renamed):
        with pytest.raises(DecodeError):
            verify_checkpoint(encode_note(text, signatures), ORIGIN, [*KEYS, alias], 2, check)


def test_v2_origin_and_keys_come_from_the_verifier() -> None:
    with pytest.raises(DecodeError):
        verify_checkpoint(signed(0, 1), "example.com/other/audit/1", KEYS, 2, check)
    with pytest.raises(DecodeError):
        verify_checkpoint(signed(0, 3), ORIGIN, KEYS[:3], 2, check)
    other = HEAD._replace(origin="example.com/other/audit/1")
    with pytest.raises(DecodeError):
        verify_checkpoint(signed(0, 1, head=other), ORIGIN, KEYS, 2, check)


def test_a_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    text = encode_checkpoint(HEAD)
    good = [sign(text, KEYS[i], PRIVATE[i].sign) for i in (0, 1)]
    for bad in (
        Signature(ORIGIN, KEYS[2].id, bytes(64)),
        Signature(ORIGIN, KEYS[2].id, b"short"),
        Signature(ORIGIN, KEYS[2].id, good[0].signature),
    ):
        with pytest.raises(DecodeError):
            verify_checkpoint(encode_note(text, [*good, bad]), ORIGIN, KEYS, 2, check)
    unknown = Signature("witness.example", b"abcd", bytes(72))
    assert verify_checkpoint(encode_note(text, [*good, unknown]), ORIGIN, KEYS, 2, check) == HEAD


def test_members_signatures_merge_into_one_note() -> None:
    text = encode_checkpoint(HEAD).encode()
    raw = {KEYS[i].public: PRIVATE[i].sign(text) for i in (2, 0)}
    note = merge(HEAD, raw)
    assert note == merge(HEAD, dict(reversed(raw.items())))
    assert verify_checkpoint(note, ORIGIN, KEYS, 2, check) == HEAD


NOTE = signed(0, 1)


@given(at=st.integers(0, len(NOTE) - 1), char=st.characters(max_codepoint=0x2100))
def test_v5_no_altered_note_is_good(at: int, char: str) -> None:
    altered = NOTE[:at] + char + NOTE[at + 1 :]
    if altered == NOTE:
        return
    with pytest.raises(DecodeError):
        verify_checkpoint(altered, ORIGIN, KEYS, 2, check)
    with pytest.raises(DecodeError):
        verify_checkpoint(NOTE[:at], ORIGIN, KEYS, 2, check)


@pytest.mark.parametrize(
    "note",
    ["", "\n\n", "text\n\n", "text\n\n— name", "text\n\n— a b c\n", "text\n\nname AAAAAA==\n",
     "text\n\n— name AAAA\n", "\x00text\n\n— name AAAAAAA=\n", "x" * 70_000,
     "text\n\n" + "— name AAAAAAA=\n" * 65],
)  # fmt: skip
def test_other_notes_are_refused(note: str) -> None:
    with pytest.raises(DecodeError):
        decode_note(note)


# --- proof texts and tiles -------------------------------------------------------------------


def proof_of(seq: int) -> InclusionProof:
    nodes = {}
    log = NodeLog(Frontier())
    for leaf in LEAVES:
        nodes.update({(node.level, node.place): node.hash for node in log.append(leaf)})
    path = inclusion_proof(seq, 7, lambda level, place: nodes[level, place])
    return InclusionProof(seq, tuple(path), signed(0, 1))


def test_te5_proof_text_has_the_published_form() -> None:
    text = encode_proof(InclusionProof(5, (bytes(32), b"\xff" * 32), "note\n"))
    zero, ones = (b64encode(node).decode() for node in (bytes(32), b"\xff" * 32))
    assert text == f"c2sp.org/tlog-proof@v1\nindex 5\n{zero}\n{ones}\n\nnote\n"
    assert decode_proof(text) == InclusionProof(5, (bytes(32), b"\xff" * 32), "note\n")
    extra = text.replace("index", "extra aGk=\nindex")
    assert decode_proof(extra) == decode_proof(text)


def test_v3_a_proof_is_about_exactly_this_record() -> None:
    for seq, leaf in enumerate(LEAVES):
        proof = decode_proof(encode_proof(proof_of(seq)))
        assert verify_proof(proof, leaf, ORIGIN, KEYS, 2, check)
        assert not verify_proof(proof, b"another", ORIGIN, KEYS, 2, check)
        assert not verify_proof(proof._replace(seq=(seq + 1) % 7), leaf, ORIGIN, KEYS, 2, check)
    with pytest.raises(DecodeError):
        verify_proof(proof_of(0), LEAVES[0], ORIGIN, KEYS, 3, check)


PROOF = encode_proof(proof_of(3))


@given(at=st.integers(0, len(PROOF) - 1), char=st.characters(max_codepoint=127))
def test_v5_no_altered_proof_is_good(at: int, char: str) -> None:
    for text in (PROOF[:at] + char + PROOF[at + 1 :], PROOF[:at]):
        if text == PROOF:
            continue
        try:
            assert not verify_proof(decode_proof(text), LEAVES[3], ORIGIN, KEYS, 2, check)
        except DecodeError:
            continue


@pytest.mark.parametrize(
    "text",
    ["", "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v1\n\nnote",
     "c2sp.org/tlog-proof@v2\nindex 1\n\nnote",
     "c2sp.org/tlog-proof@v1\nindex 01\n\nnote", "c2sp.org/tlog-proof@v1\nindex x\n\nnote",
     "c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\nnote", "x" * 200_000,
     "c2sp.org/tlog-proof@v1\nindex 1\n" + (b64encode(bytes(32)).decode() + "\n") * 65 + "\nnote"],
)  # fmt: skip
def test_other_proofs_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_proof(text)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (TileName(0, 0, 256), "tile/0/000"),
        (TileName(0, 273, 17), "tile/0/273.p/17"),
        (TileName(1, 1234067, 256), "tile/1/x001/x234/067"),
        (TileName(-1, 5, 256), "tile/entries/005"),
        (TileName(-1, 1000, 1), "tile/entries/x001/000.p/1"),
    ],
)
def test_tile_names(tile: TileName, path: str) -> None:
    assert tile.path == path


def test_tiles_of_a_tree() -> None:
    assert list(tiles_of(0)) == []
    assert [tile.path for tile in tiles_of(600)] == [
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
    ]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_entry_bundles_come_back(leaves: list[bytes]) -> None:
    data = encode_bundle(leaves)
    assert decode_bundle(data) == leaves
    with pytest.raises(DecodeError):
        decode_bundle(data + b"\0")
