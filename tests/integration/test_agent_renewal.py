"""The agent renews its own certificate (agent.md I2): in time, with a new key, or not at all."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from configagent import renewal
from configagent.log import Log
from configagent.renewal import CertificateKeeper, RenewalError
from configagent.settings import Command, Store
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from configsvc.client.tls import TlsFiles, channel_credentials
from configsvc.identity.pki import init_pki, issue

LIFE = 24 * 3600
CONFIGCTL = "import sys; from configsvc.cli.configctl import main; sys.exit(main())"


class Node:
    """An authority, and a node with a certificate of some age."""

    def __init__(self, base: Path, age: float) -> None:
        self.pki, self.state = base / "pki", base / "state"
        self.state.mkdir(mode=0o700)
        init_pki(self.pki, "test.example", now=int(time.time()) - 30 * LIFE)
        born = int(time.time() - age * LIFE)
        files = issue(self.pki, "agent", "n1", out=base, stem="node", lifetime_s=LIFE, now=born)
        self.cert, self.key = files
        self.log = io.StringIO()
        self.taken = 0

    def sign(self, name: str = "n1") -> tuple[str, ...]:
        """What an issuer's host would run."""
        args = ("pki", "issue", str(self.pki), "agent", name, "--csr", "{csr}")
        return (sys.executable, "-c", CONFIGCTL_AT, *args)

    def keeper(
        self, argv: tuple[str, ...], take_up: Callable[[], Awaitable[None]] | None = None
    ) -> CertificateKeeper:
        store = Store(
            endpoints=(), ca="", cert=str(self.cert), key=str(self.key), backoff_min_s=1,
            backoff_max_s=1, heartbeat_s=1, reconcile_s=1, renew=Command(argv, 30.0, ""),
        )  # fmt: skip

        async def taken() -> None:
            self.taken += 1

        return CertificateKeeper(store, str(self.state), Log("debug", self.log), take_up or taken)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def pair(self) -> tuple[bytes, bytes]:
        return self.cert.read_bytes(), self.key.read_bytes()


CONFIGCTL_AT = f"import sys; sys.path.insert(0, {os.getcwd()!r}); {CONFIGCTL}"


def fits(node: Node) -> bool:
    leaf = x509.load_pem_x509_certificate(node.cert.read_bytes())
    key = serialization.load_pem_private_key(node.key.read_bytes(), None)
    return leaf.public_key() == key.public_key()


def test_a_certificate_past_two_thirds_is_renewed_with_a_new_key(tmp_path: Path) -> None:
    node = Node(tmp_path, 0.7)
    before = node.pair()
    asyncio.run(node.keeper(node.sign()).renew_if_due())
    assert node.events() == []
    after = node.pair()
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert fits(node)
    assert stat.S_IMODE(node.key.stat().st_mode) == 0o600
    old, new = (x509.load_pem_x509_certificate(one[0]) for one in (before, after))
    assert new.not_valid_after_utc > old.not_valid_after_utc
    san = x509.SubjectAlternativeName
    assert new.extensions.get_extension_for_class(san) == old.extensions.get_extension_for_class(
        san
    )
    assert sorted(os.listdir(tmp_path)) == ["node.key", "node.pem", "pki", "state"]


@pytest.mark.parametrize(
    ("age", "renewed"), [(0.5, False), (0.59, False), (0.7, True), (1.1, False)]
)
def test_it_is_renewed_between_sixty_percent_and_its_end(
    tmp_path: Path, age: float, renewed: bool
) -> None:
    node = Node(tmp_path, age)
    before = node.pair()
    asyncio.run(node.keeper(node.sign()).renew_if_due())
    assert (node.pair() != before) is renewed
    assert node.events() == []


def test_a_new_pair_is_taken_up(tmp_path: Path) -> None:
    node = Node(tmp_path, 0.7)

    async def story() -> None:
        life = asyncio.create_task(node.keeper(node.sign()).run())
        deadline = time.monotonic() + 20
        while not node.taken and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        life.cancel()

    asyncio.run(story())
    assert node.taken == 1
    assert [one["event"] for one in node.events()] == ["certificate_renewed"]


def test_a_pair_that_somebody_copies_file_by_file_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate comes first here: it fits once the key is there too."""
    monkeypatch.setattr(renewal, "CHECK_S", 0.01)
    node = Node(tmp_path, 0.1)
    files = issue(node.pki, "agent", "n1", out=tmp_path / "pki", stem="next", lifetime_s=LIFE)
    pair = TlsFiles(str(node.pki / "ca-server.pem"), str(node.cert), str(node.key))

    async def take_up() -> None:
        channel_credentials(pair)

    async def until(event: str) -> None:
        while event not in [one["event"] for one in node.events()]:
            await asyncio.sleep(0.01)

    async def story() -> None:
        keeper = node.keeper(node.sign(), take_up)
        async with asyncio.timeout(20):
            life = asyncio.create_task(keeper.run())
            await asyncio.sleep(0)  # it has seen the present files
            node.cert.write_bytes(files[0].read_bytes())
            await until("certificate_bad")
            node.key.write_bytes(files[1].read_bytes())
            await until("certificate_renewed")
        life.cancel()

    asyncio.run(story())
    assert "do not belong to each other" in node.events()[0]["why"]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("/bin/false", "{csr}"), "/bin/false: exit 1"),
        (("/bin/true", "{csr}"), "printed no certificate"),
        (("/nowhere", "{csr}"), "/nowhere: could not be started"),
        (("/bin/cat", "{old}", "{csr}"), "of another key"),
        (
            ("/bin/echo", "-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----"),
            "cannot be read",
        ),
    ],
)
def test_what_fails_changes_nothing_and_waits(
    tmp_path: Path, argv: tuple[str, ...], why: str
) -> None:
    node = Node(tmp_path, 0.8)
    before = node.pair()
    keeper = node.keeper(tuple(one.replace("{old}", str(node.cert)) for one in argv))
    asyncio.run(keeper.renew_if_due())
    asyncio.run(keeper.renew_if_due())  # too early: nothing is asked for again
    assert node.pair() == before
    (event,) = node.events()
    assert event["event"] == "certificate_not_renewed"
    assert event["level"] == "error"  # less than 30 % of its life is left
    assert why in event["why"]


def test_a_failure_that_nobody_thought_of_is_said_and_does_not_end_the_renewals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, 0.7)
    before = node.pair()

    def broken(*_: object) -> None:
        raise NotImplementedError("of a kind of its own")

    with monkeypatch.context() as patched:
        patched.setattr(renewal, "make_request", broken)
        keeper = node.keeper(node.sign())
        asyncio.run(keeper.renew_if_due())
    assert [one["why"] for one in node.events()] == ["of a kind of its own"]
    assert node.pair() == before
    keeper._not_before = 0.0
    asyncio.run(keeper.renew_if_due())
    assert node.pair() != before
    assert fits(node)


def test_an_issuer_that_gives_another_name_is_not_believed(tmp_path: Path) -> None:
    node = Node(tmp_path, 0.7)
    current = x509.load_pem_x509_certificate(node.cert.read_bytes())
    request = renewal.make_request(current)
    files = issue(node.pki, "agent", "n2", out=tmp_path / "pki", stem="other", lifetime_s=LIFE)
    other = x509.load_pem_x509_certificate(files[0].read_bytes())
    fake = request._replace(key=serialization.load_pem_private_key(files[1].read_bytes(), None))
    with pytest.raises(RenewalError, match="another name"):
        renewal.judge(files[0].read_text(), current, fake, time.time_ns())
    with pytest.raises(RenewalError, match="not valid yet"):
        renewal.judge(files[0].read_text(), other, fake, time.time_ns() - 10**15)
    with pytest.raises(RenewalError, match="no later"):
        renewal.judge(files[0].read_text(), other, fake, time.time_ns())


def test_the_issuers_that_are_printed_with_it_are_kept(tmp_path: Path) -> None:
    """A member that trusts the root alone could not follow a leaf without them."""
    node = Node(tmp_path, 0.7)
    current = x509.load_pem_x509_certificate(node.cert.read_bytes())
    request = renewal.make_request(current)
    files = issue(node.pki, "agent", "n1", out=tmp_path / "pki", stem="next", lifetime_s=LIFE)
    held = serialization.load_pem_private_key(files[1].read_bytes(), None)
    request = request._replace(key=held)
    leaf = files[0].read_text()
    names = "ca-client.pem", "root.pem", "ca-peer.pem"
    issuer, root, foreign = ((node.pki / name).read_text() for name in names)

    def kept(printed: str) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(
            renewal.judge(printed, current, request, time.time_ns())
        )

    fresh, own = (x509.load_pem_x509_certificate(pem.encode()) for pem in (leaf, issuer))
    assert kept(leaf) == [fresh]
    assert kept(leaf + issuer + root) == [fresh, own], "in order, without the root"
    assert kept(leaf + foreign + issuer) == [fresh], "none that does not vouch for it"


def crash_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The power goes before one of the renames."""
    real, left = os.rename, [calls]

    def rename(*args: Any, **named: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(*args, **named)

    monkeypatch.setattr(os, "rename", rename)
    return lambda: monkeypatch.setattr(os, "rename", real)


@pytest.mark.parametrize("calls", range(4))
def test_cut_off_at_any_rename_the_pair_fits_at_the_next_start(
    tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, 0.7)
    files = issue(node.pki, "agent", "n1", out=tmp_path / "pki", stem="fresh", lifetime_s=LIFE)
    fresh = (files[0].read_bytes(), files[1].read_bytes())
    before = node.pair()
    mend = crash_after(calls, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        renewal.install(str(node.cert), str(node.key), *fresh)
    mend()
    decided = renewal.finish(str(node.cert), str(node.key))
    assert decided == (calls >= 2)
    assert node.pair() == (fresh if decided else before)
    assert fits(node)


@pytest.mark.parametrize("calls", range(6))
def test_an_attempt_that_got_stuck_does_not_mix_with_the_next_one(
    tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, 0.7)
    pairs = []
    for stem in ("first", "second"):
        files = issue(node.pki, "agent", "n1", out=tmp_path / "pki", stem=stem, lifetime_s=LIFE)
        pairs.append((files[0].read_bytes(), files[1].read_bytes()))
    mend = crash_after(2, monkeypatch)  # both files are there, none is in place
    with pytest.raises(KeyboardInterrupt):
        renewal.install(str(node.cert), str(node.key), *pairs[0])
    mend()
    mend = crash_after(calls, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        renewal.install(str(node.cert), str(node.key), *pairs[1])
    mend()
    renewal.finish(str(node.cert), str(node.key))
    assert node.pair() in pairs
    assert fits(node)


def test_a_certificate_beside_ours_that_fits_no_key_is_left_alone(tmp_path: Path) -> None:
    node = Node(tmp_path, 0.7)
    before = node.pair()
    files = issue(node.pki, "agent", "n1", out=tmp_path / "pki", stem="other", lifetime_s=LIFE)
    beside = Path(f"{node.cert}.new")
    for text in (files[0].read_bytes(), files[0].read_bytes()[:100], b""):
        beside.write_bytes(text)
        assert not renewal.finish(str(node.cert), str(node.key))
        assert node.pair() == before
        assert beside.read_bytes() == text
