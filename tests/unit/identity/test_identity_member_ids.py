"""P11: ids as etcd derives them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc.identity.member_ids import cluster_id, member_id, member_name, member_of_text

TOKEN = "etcd-cluster"


def test_known_answer_of_etcd() -> None:
    member = member_id(["http://127.0.0.1:12380"], TOKEN)
    assert f"{member:x}" == "ddd67b312462fd7b"
    assert f"{cluster_id([member]):x}" == "a7ef944b95711739"


def test_order_of_urls_and_members_does_not_matter() -> None:
    urls = ["https://b:2380", "https://a:2380"]
    assert member_id(urls, TOKEN) == member_id(reversed(urls), TOKEN)
    assert cluster_id([3, 1, 2]) == cluster_id([1, 2, 3])
    assert cluster_id([1, 2]) != cluster_id([1, 3])


def test_a_member_added_later_has_its_time_in_its_id() -> None:
    urls = ["https://a:2380"]
    digest = hashlib.sha1(b"https://a:2380etcd-cluster1700000000").digest()
    assert member_id(urls, TOKEN, 1_700_000_000) == int.from_bytes(digest[:8], "big")
    assert member_id(urls, TOKEN, 1_700_000_000) != member_id(urls, TOKEN)


@given(st.integers(0, 2**64 - 1))
def test_names_have_one_spelling(member: int) -> None:
    name = member_name(member)
    assert len(name) == 16
    assert member_of_text(name) == member
    assert member_of_text(f"{member:x}") == member


@pytest.mark.parametrize("text", ["", "g", "0x1", "1" * 17, "ABC", " 1", "1\n", "-1"])
def test_texts_that_are_no_member(text: str) -> None:
    assert member_of_text(text) is None
