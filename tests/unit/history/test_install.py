"""Installs: a stream from one member makes the same history in another, or nothing at all."""

from __future__ import annotations

import os
import sqlite3
from hashlib import sha256
from pathlib import Path

import pytest
from history_world import IDENTITY, World, files_of
from hypothesis import given
from hypothesis import strategies as st

from configsvc.apply.commands import TableChange
from configsvc.errors import ConfigError, DecodeError, ExitCode, FatalError, InvariantViolationError
from configsvc.limits import INSTALL_CHUNK_BYTES_MAX
from configsvc.storage.history.messages import StoreIdentity
from configsvc.storage.history.reader import HistoryReader
from configsvc.storage.history.store import History
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.snapshot import generations
from configsvc.storage.snapshot import source as source_module
from configsvc.storage.snapshot.sink import InstallSink
from configsvc.storage.snapshot.source import InstallSource
from configsvc.storage.snapshot.stream import (
    ChunkKind,
    decode_chunk,
    encode_chunk,
    encode_records,
    expect,
)

OTHER = IDENTITY._replace(member_id=99, store_id=b"another store id")


def source_world() -> World:
    world = World()
    for number in range(700):
        if number % 10 == 3:
            world.delete(b"k%d" % (number % 40))
        elif number % 100 == 7:
            world.bookkeeping(TableChange("meta", ("n",), (b"%d" % number,)))
        else:
            actor = b"%032d" % number if number % 90 == 0 else b""
            world.commit([("put", b"k%d" % (number % 50), b"v%d" % number, 5)], actor=actor)
    user = ("0f", "$argon2id$x", False, '["root"]', 4)
    world.bookkeeping(
        TableChange("users", ("ann",), user),
        TableChange("members", (2**64 - 1,), ("m", "[]", "[]", False, b"s" * 16, "0.1")),
        TableChange("alarms", (2**63, 1), ()),
    )
    return world


@pytest.fixture
def world(history: History) -> World:
    world = source_world()
    history.write(world.effects[:400])
    history.write(world.effects[400:], b"conf state")
    return world


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "receiver"
    directory.mkdir(mode=0o700)
    generations.prepare(directory)
    return directory


@pytest.fixture
def other_key(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "receiver.key")


@pytest.fixture
def sink(data_dir: Path, other_key: KeyFile):
    sink = InstallSink(data_dir, OTHER, other_key, 2)
    yield sink
    sink.discard()


def take(chunks, sink: InstallSink) -> None:
    for chunk in chunks:
        sink.feed(chunk)
    sink.finish()


def pour(chunks, sink: InstallSink) -> None:
    ended = [sink.feed(chunk) for chunk in chunks]
    assert ended == [False] * (len(ended) - 1) + [True]


# --- the whole ------------------------------------------------------------------------------------


def test_an_install_is_the_same_history(world, history, reader, sink, other_key) -> None:
    source = InstallSource(reader)
    chunks = list(source.chunks())
    assert max(map(len, chunks)) <= INSTALL_CHUNK_BYTES_MAX
    pour(chunks, sink)
    installed = sink.finish()
    assert installed == (701, 3, b"conf state", (701).to_bytes(16, "big"), world.revision, 2)
    copy = sink.history
    assert {row.key: row for row in copy.load_live()} == world.live()
    assert copy.load_tables() == history.load_tables()
    assert copy.load_tree() == history.load_tree()
    assert copy.load_actors() == history.load_actors()
    twin = HistoryReader(sink.path, OTHER, other_key)
    assert list(twin.verify_entries(0, 10**6)) == list(reader.verify_entries(0, 10**6))
    assert twin.hash_kv(world.revision, 0) == reader.hash_kv(world.revision, 0)
    assert twin.meta()._replace(owner_epoch=0) == reader.meta()._replace(
        owner_epoch=0, generation=2, identity=OTHER
    )
    twin.close()


def test_the_installed_history_goes_on(world, reader, sink, other_key) -> None:
    pour(InstallSource(reader).chunks(), sink)
    sink.finish()
    sink.history.close()
    copy = History.open(sink.path, OTHER, other_key, create=False)
    more = world.put(b"more", b"x")
    copy.write([more])
    assert copy.meta().applied == 702
    copy.abandon()


def test_values_are_sealed_again_by_the_receiver(world, reader, sink) -> None:
    pour(InstallSource(reader).chunks(), sink)
    sink.finish()
    stored = b"".join(files_of(sink.path).values())
    assert b"argon2id" not in stored
    assert b"v699" not in stored


def test_an_empty_history_can_be_installed(history, reader, sink) -> None:
    pour(InstallSource(reader).chunks(), sink)
    assert sink.finish().index == 0
    assert list(sink.history.load_live()) == []


def test_what_is_written_while_streaming_comes_along(world, history, reader, sink) -> None:
    source = InstallSource(reader)
    for chunk in source.chunks():
        if world.index < 720:
            history.write([world.put(b"late%d" % world.index, b"x")])
        sink.feed(chunk)
    installed = sink.finish()
    assert installed.index > 701
    assert installed.index == source.end.index
    assert {row.key: row for row in sink.history.load_live()} == world.live(
        installed.visible_revision
    )


def test_a_value_larger_than_a_chunk_travels_alone(history, reader, sink) -> None:
    world = World()
    world.put(b"big", bytes(INSTALL_CHUNK_BYTES_MAX + 100))
    world.put(b"small", b"x")
    history.write(world.effects)
    pour(InstallSource(reader).chunks(), sink)
    sink.finish()
    assert {row.key: row for row in sink.history.load_live()} == world.live()


def test_many_large_values_are_not_read_at_once(history, reader, sink) -> None:
    world = World()
    for number in range(40):
        world.put(b"k%d" % number, bytes(INSTALL_CHUNK_BYTES_MAX // 4))
    history.write(world.effects)
    read: list[int] = []
    source = InstallSource(reader, lambda: read.append(source._place[0]))
    pour(source.chunks(), sink)
    sink.finish()
    assert {row.key: row for row in sink.history.load_live()} == world.live()
    assert {17, 33} <= set(read), "sixteen rows, and what they make is sent"
    assert read.index(33) > read.index(17) + 2


def test_large_records_travel_alone(history, reader) -> None:
    """Many at a time are encoded, and yet no chunk passes its bound but for a record that does."""
    world = World()
    for number in range(6):
        world.put(b"k%d" % number, bytes(INSTALL_CHUNK_BYTES_MAX * number // 4))
    history.write(world.effects)
    source = InstallSource(reader)
    chunks = [chunk for chunk in source.chunks() if len(chunk) > INSTALL_CHUNK_BYTES_MAX]
    assert [len(decode_chunk(chunk).records) for chunk in chunks] == [1, 1]


def test_the_reader_breathes_all_the_time(world, history, reader) -> None:
    breaths: list[int] = []
    source = InstallSource(reader, lambda: breaths.append(1))
    records = sum(len(decode_chunk(chunk).records) for chunk in source.chunks())
    assert len(breaths) > records / 16 + records / 64, "reading sixteen, encoding sixty-four"


def test_the_last_transaction_ends_in_time(world, history, reader, monkeypatch) -> None:
    """Who rests too long within it stops resting: the receiver waits, and so does SQLite's log."""
    monkeypatch.setattr(source_module, "INSTALL_LAST_S", 0.0)
    monkeypatch.setattr(source_module, "_PASSES", 0)
    breaths: list[int] = []
    assert list(InstallSource(reader, lambda: breaths.append(1)).chunks())
    assert breaths == []


def test_a_damaged_sender_sends_nothing_wrong(world, history, reader) -> None:
    with history._connection.begin():
        history._connection.exec_driver_sql("UPDATE revisions SET value = x'' WHERE revision = 300")
    with pytest.raises(SealBroken):
        list(InstallSource(reader).chunks())


# --- what must not become a history ---------------------------------------------------------------


def mutated(chunks: list[bytes], how: str) -> list[bytes]:
    """The stream with one thing wrong that the CRC of a single chunk does not tell."""
    decoded = [decode_chunk(chunk) for chunk in chunks]
    rows = next(at for at, chunk in enumerate(decoded) if chunk.kind is ChunkKind.ROWS)
    commits = next(at for at, chunk in enumerate(decoded) if chunk.kind is ChunkKind.COMMITS)
    end = decoded[-1].records[0]

    def rebuilt(at: int, records) -> bytes:
        payload = encode_records(records)
        return encode_chunk(decoded[at].kind, decoded[at].number, len(records), payload)

    if how == "truncated":
        return chunks[:-1]
    if how == "reordered":
        return [chunks[1], chunks[0], *chunks[2:]]
    if how == "twice":
        return [chunks[0], *chunks]
    if how == "bit":
        return [chunks[0][:-3] + bytes([chunks[0][-3] ^ 1]) + chunks[0][-2:], *chunks[1:]]
    if how == "row dropped":
        return [*chunks[:rows], rebuilt(rows, decoded[rows].records[1:]), *chunks[rows + 1 :]]
    if how == "leaf edited":
        first = decoded[commits].records[0]
        records = [(*first[:8], b"another", *first[9:]), *decoded[commits].records[1:]]
        return [*chunks[:commits], rebuilt(commits, records), *chunks[commits + 1 :]]
    if how == "another cluster":
        return [*chunks[:-1], rebuilt(-1, [(7, *end[1:])])]
    if how == "another hash":
        return [*chunks[:-1], rebuilt(-1, [(*end[:-1], bytes(32))])]
    if how == "after the end":
        return [*chunks, chunks[0]]
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "reordered",
        "twice",
        "bit",
        "row dropped",
        "leaf edited",
        "another cluster",
        "another hash",
        "after the end",
    ],
)
def test_a_wrong_stream_never_finishes(world, reader, sink, how: str) -> None:
    chunks = mutated(list(InstallSource(reader).chunks()), how)
    with pytest.raises(DecodeError):
        take(chunks, sink)
    with pytest.raises(InvariantViolationError):
        sink.history  # noqa: B018


@pytest.mark.parametrize(
    ("field", "by"),
    [("tree_root", None), ("rows", 1), ("commits", 1), ("actors", 1), ("table_rows", 1),
     ("tree_size", 1), ("visible_revision", -1)],
)  # fmt: skip
def test_totals_that_do_not_fit_never_finish(world, reader, sink, field: str, by) -> None:
    source = InstallSource(reader)
    *chunks, last = source.chunks()
    for chunk in chunks:
        sink.feed(chunk)
    value = bytes(32) if by is None else getattr(source.end, field) + by
    end = source.end._replace(**{field: value})
    sink.feed(encode_chunk(ChunkKind.END, decode_chunk(last).number, 1, encode_records([end])))
    with pytest.raises(DecodeError):
        sink.finish()


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (ChunkKind.ROWS, (1, 2, 3)),
        (ChunkKind.ROWS, (2, 0, "key", b"v", 1, 1, 0, 0, 0)),
        (ChunkKind.ROWS, (-2, 0, b"key", b"v", 1, 1, 0, 0, 0)),
        (ChunkKind.ROWS, (2**63, 0, b"key", b"v", 1, 1, 0, 0, 0)),
        (ChunkKind.COMMITS, (5, 1, 1, 2, 1, "e", b"a", "OK", b"leaf")),
        (ChunkKind.COMMITS, (0, 1, 1, 2, 1, "e", b"a", "OK", b"leaf", b"salt", "r")),
        (ChunkKind.ACTORS, (b"h", b"r", b"s", "0")),
        (ChunkKind.TABLES, ("sqlite_master", "x")),
        (ChunkKind.TABLES, ("users", "ann")),
        (ChunkKind.TABLES, ("leases", "not a number", 1, "c", 0)),
        (ChunkKind.TABLES, ("meta", "name", "not bytes")),
        (ChunkKind.END, (1, 2, 3)),
    ],
)
def test_records_of_another_shape_are_refused(sink, kind: ChunkKind, record) -> None:
    with pytest.raises(DecodeError):
        sink.feed(encode_chunk(kind, 0, 1, encode_records([record])))


@given(data=st.binary(max_size=80))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_chunk(data)


@given(
    payload=st.binary(max_size=60), count=st.integers(0, 4), kind=st.sampled_from(list(ChunkKind))
)
def test_a_payload_that_lies_is_refused_or_means_itself(payload, count, kind) -> None:
    """With a right CRC: what is accepted encodes to the same bytes."""
    try:
        chunk = decode_chunk(encode_chunk(kind, 0, count, payload))
    except DecodeError:
        return
    again = encode_records(chunk.records)
    assert len(again) <= len(payload)  # integers may have been wider than they need
    assert decode_chunk(encode_chunk(kind, 0, count, again)).records == chunk.records


VALUES = st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(), st.text())


@given(records=st.lists(st.lists(VALUES, min_size=1, max_size=5).map(tuple), max_size=4))
def test_records_survive_the_stream(records) -> None:
    payload = encode_records(records)
    chunk = decode_chunk(encode_chunk(ChunkKind.TABLES, 5, len(records), payload))
    assert chunk == (ChunkKind.TABLES, 5, records)
    for record in records:
        assert expect(record, [type(value) for value in record]) == record


@pytest.mark.parametrize(
    ("what", "payload"),
    [
        ("no records", b"\0\0\0\0\0\1q"),
        ("no columns", b"\0\0\0\1\0\0"),
        ("records without end and without bytes", b"\xff\xff\xff\xff\0\0"),
        ("more integers than bytes", b"\xff\xff\xff\xff\0\1q" + bytes(8)),
        ("lengths beyond the end", b"\0\0\0\1\0\1b\xff\xff\xff\xff"),
        ("an unknown column", b"\0\0\0\1\0\1x" + bytes(8)),
        ("tags cut short", b"\0\0\0\1\0\2q"),
        ("no text", b"\0\0\0\1\0\1t\0\0\0\1\xff"),
    ],
)
def test_groups_that_lie_are_refused(what: str, payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_chunk(encode_chunk(ChunkKind.ROWS, 0, 1, payload))


def test_the_hash_covers_every_chunk(world, reader) -> None:
    source = InstallSource(reader)
    chunks = list(source.chunks())
    assert source.end.sha256 == sha256(b"".join(chunks[:-1])).digest()


# --- generations ----------------------------------------------------------------------------------


def test_a_discarded_install_leaves_no_file(data_dir, other_key, world, reader) -> None:
    sink = InstallSink(data_dir, OTHER, other_key, 5)
    sink.feed(next(iter(InstallSource(reader).chunks())))
    assert generations.present(data_dir) == [5]
    sink.discard()
    assert os.listdir(generations.sql_dir(data_dir)) == []


def test_a_half_filled_generation_says_nothing_applied(data_dir, other_key, world, reader) -> None:
    sink = InstallSink(data_dir, OTHER, other_key, 5)
    for chunk in list(InstallSource(reader).chunks())[:-1]:
        sink.feed(chunk)
    with sqlite3.connect(sink.path) as raw:
        assert raw.execute("SELECT applied, visible_revision FROM progress").fetchone() == (0, 1)
    raw.close()
    sink.discard()


def test_only_the_named_generation_stays(data_dir: Path) -> None:
    directory = generations.sql_dir(data_dir)
    for name in ("gen-1.db", "gen-1.db-wal", "gen-3.db", "gen-4.db-shm", "notes", "copy-1.db"):
        (directory / name).touch()
    assert generations.present(data_dir) == [1, 3, 4]
    assert generations.next_number(data_dir, 3) == 5
    assert generations.keep_only(data_dir, 3, required=True) == [1, 4]
    assert sorted(os.listdir(directory)) == ["gen-3.db", "notes"]


def test_a_missing_generation_is_fatal_and_nothing_is_deleted(data_dir: Path) -> None:
    other = generations.generation_path(data_dir, 1)
    other.touch()
    with pytest.raises(FatalError) as caught:
        generations.keep_only(data_dir, 2, required=True)
    assert caught.value.code is ExitCode.STORES_DISAGREE
    assert other.exists()
    assert generations.keep_only(data_dir, 1, required=False) == []


def test_the_directory_of_generations_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        generations.prepare(tmp_path)
    finally:
        os.umask(before)
    directory = generations.sql_dir(tmp_path)
    assert directory.stat().st_mode & 0o777 == 0o700
    generations.prepare(tmp_path)
    directory.chmod(0o750)
    with pytest.raises(ConfigError, match="lets others in"):
        generations.prepare(tmp_path)


def test_an_install_never_fills_an_existing_generation(data_dir, other_key) -> None:
    generations.generation_path(data_dir, 2).touch()
    with pytest.raises(InvariantViolationError):
        InstallSink(data_dir, StoreIdentity(1, 2, bytes(16)), other_key, 2)
