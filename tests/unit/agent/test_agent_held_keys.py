"""The keys in the render worker are those of the snapshot, whatever happened between two jobs."""

from __future__ import annotations

from typing import Any

from configagent.render import HeldKeys, template_mark
from configagent.render_worker import Worker
from configagent.snapshot import Change, Entry, Snapshot
from hypothesis import given
from hypothesis import strategies as st

SETS = ("one", "two")
CHANGES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.binary(max_size=3))), max_size=4
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(SETS), CHANGES),
        st.tuples(st.just("restart"), st.just([])),
        st.tuples(st.just("list"), CHANGES),
    ),
    max_size=25,
)


def ask(worker: Worker, held: HeldKeys, snapshot: Snapshot) -> tuple[dict[str, bytes], bool]:
    """The keys a job gets, and whether they had to be sent whole."""
    step = held.step(snapshot, whole=False)
    keys = worker._keys_of({"held": step})
    if keys is not None:
        return dict(keys), False
    keys = worker._keys_of({"held": held.step(snapshot, whole=True)})
    assert keys is not None
    return dict(keys), True


@given(STEPS)
def test_the_worker_renders_from_the_snapshot(steps: list[Any]) -> None:
    worker = Worker()
    held = {name: HeldKeys(name) for name in SETS}
    now = {name: Snapshot(1) for name in SETS}
    revision = 1
    for what, changes in steps:
        name = what if what in SETS else "one"
        if what == "restart":
            worker = Worker()
        revision += 1
        made = [Change(k, None if v is None else Entry(v, revision)) for k, v in changes]
        now[name] = now[name].after(made, revision)
        if what == "list":  # every entry is another object
            keys = {key: Entry(*entry) for key, entry in now[name].keys.items()}
            now[name] = Snapshot(revision, keys)
        assert ask(worker, held[name], now[name])[0] == now[name].values()


def test_only_what_changed_travels() -> None:
    held = HeldKeys("one")
    first = Snapshot(1, {f"/k{n}": Entry(b"v", 1) for n in range(100)})
    assert len(held.step(first, whole=False)["put"]) == 100
    assert held.step(first, whole=False)["put"] == {}
    second = first.after([Change("/k5", Entry(b"w", 2)), Change("/k6", None)], 2)
    step = held.step(second, whole=False)
    assert (step["put"], step["gone"]) == ({"/k5": b"w"}, ["/k6"])


def test_a_worker_that_holds_other_keys_says_so() -> None:
    worker, held = Worker(), HeldKeys("one")
    snapshot = Snapshot(1, {"/a": Entry(b"1", 1)})
    assert ask(worker, held, snapshot) == ({"/a": b"1"}, False)
    assert ask(worker, HeldKeys("two"), Snapshot(1)) == ({}, False)
    assert ask(worker, held, snapshot) == ({"/a": b"1"}, True)


@given(CHANGES, CHANGES)
def test_the_size_of_a_snapshot_follows_its_changes(first: Any, second: Any) -> None:
    snapshot = Snapshot(1)
    for revision, changes in ((2, first), (3, second)):
        made = [Change(k, None if v is None else Entry(v, revision)) for k, v in changes]
        snapshot = snapshot.after(made, revision)
    assert snapshot.size == Snapshot(1, snapshot.keys).size


def test_a_template_that_was_just_changed_is_read_again(tmp_path: Any) -> None:
    path = tmp_path / "t.j2"
    path.write_text("one")
    assert template_mark(str(path)) is None
    assert template_mark(str(tmp_path / "none")) is None
