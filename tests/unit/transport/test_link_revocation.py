"""A member on the revocation list: its open connections are cut, it gets no new ones (PKI-13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cryptography import x509
from link_members import LinkMember, connected, tls_of, until

from configsvc.transport.link import PeerTls
from tests.support.pki import Pki, revocation_list


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


def listed(pki: Pki, path: Path, *members: int) -> None:
    """Write the list that names these members' certificates."""
    leaves = [Path(pki.member_files(m).cert).read_bytes() for m in members]
    serials = [x509.load_pem_x509_certificate(leaf).serial_number for leaf in leaves]
    path.write_bytes(revocation_list(pki.authority("peer"), serials))


def member(loop: asyncio.AbstractEventLoop, number: int, tls: PeerTls) -> LinkMember:
    return LinkMember(
        loop, number, tls, denied=lambda leaf: leaf.serial_hex in tls.revocations.serials
    )


def test_a_listed_member_is_cut_off_on_both_sides_and_stays_out(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "peer.crl"
    listed(pki, path)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a, c = (member(loop, n, tls_of(pki, n, str(path))) for n in (0x51, 0x53))
        b = member(loop, 0x52, tls_of(pki, 0x52))  # does not look at the list itself
        async with connected(a, b, c):
            listed(pki, path, 0x52)
            assert a.link.reload_tls() == ""
            await until(lambda: a.log.having("certificate: revoked"))
            await until(lambda: not a.link._all_of(b.id))
            assert a.link.connected(c.id), "nobody else is touched"
            assert b.link.connected(c.id), "who has not read the list goes on"
            refused = a.link.counters.refused
            await until(lambda: a.link.counters.refused > refused + 3, "b knocks again and again")
            assert not a.link._all_of(b.id)
            assert any("certificate revoked" in line for line in a.log.having("no peer"))
            listed(pki, path)
            assert a.link.reload_tls() == ""
            await until(lambda: a.link.connected(b.id))

    run(scenario)


def test_a_list_that_cannot_be_read_changes_nothing(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "peer.crl"
    listed(pki, path, 0x56)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        a = member(loop, 0x54, tls_of(pki, 0x54, str(path)))
        b = member(loop, 0x55, tls_of(pki, 0x55))
        async with connected(a, b):
            path.write_bytes(b"-----BEGIN X509 CRL-----\nno\n-----END X509 CRL-----\n")
            assert "cannot be parsed" in a.link.reload_tls()
            tls = a.link._tls
            assert tls is not None
            assert len(tls.revocations.serials) == 1
            assert a.link.connected(b.id)

    run(scenario)
