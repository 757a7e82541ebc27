"""A damaged history database is refused, or told by the verifier, or answers as the whole one does.

Every zeroed page and a sample of single bits; ``make damage`` takes as many bits as asked for.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from configsvc.errors import FatalError
from configsvc.storage.history.reader import HistoryReader
from tests.faults.history_images.history_damage import Case, Damage, damages

BITS = 60


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("damage"))


def test_damage_is_never_served_as_a_key_a_value_or_a_revision(case: Case) -> None:
    outcomes: Counter[str] = Counter()
    for damage in damages(case, Random(5), BITS):
        found = case.judge(damage)
        outcomes[found.outcome] += 1
        assert found.outcome != "wrong", f"{damage}: {found}"
    print(dict(outcomes))
    assert outcomes["refused"] > 10
    assert outcomes["equal"] > 10


def test_a_schema_that_is_no_text_is_refused_as_damage(case: Case) -> None:
    """SQLite quotes the broken statement, and the quotation cannot be decoded."""
    at = case.whole.index(b"CREATE TABLE revisions") + 3
    case.put(Damage(at, 7))
    with pytest.raises(FatalError, match="cannot be opened"):
        case.start()


def test_a_reader_that_makes_values_up_is_caught(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary: an answer that differs, and a verifier that is content."""
    monkeypatch.setattr(HistoryReader, "hash_kv", lambda *_: 1)
    found = case.judge(Damage(len(case.whole) - 1, 0))
    assert found.outcome in ("wrong", "told")
    assert "hash" in found.why
