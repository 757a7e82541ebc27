"""Python's etcd clients against a member.

``python_clients.py etcd3|aetcd|etcd3gw HOST:PORT [CA CERT KEY]`` runs in the environment of
``python.lock``, knows nothing of ours, and fails with a traceback.
"""

from __future__ import annotations

import asyncio
import io
import sys


def etcd3(host: str, port: int, tls: list[str]) -> None:
    import etcd3

    options = dict(zip(("ca_cert", "cert_cert", "cert_key"), tls, strict=False))
    client = etcd3.client(host=host, port=port, timeout=10, **options)
    key = b"foreign/etcd3"
    events, cancel = client.watch(key)
    client.put(key, b"one")
    assert client.get(key)[0] == b"one"
    assert next(events).value == b"one"
    cancel()
    when = client.transactions
    done, _ = client.transaction([when.value(key) == b"one"], [when.put(key, b"two")], [])
    assert done
    assert not client.transaction([when.value(key) == b"one"], [when.put(key, b"three")], [])[0]
    assert [value for value, _ in client.get_prefix(key)] == [b"two"]
    lease = client.lease(30)
    client.put(key + b"/leased", b"x", lease)
    lease.refresh()
    assert 0 < lease.remaining_ttl <= 30
    lease.revoke()
    assert client.get(key + b"/leased") == (None, None)
    with client.lock("foreign", ttl=30) as lock:
        assert lock.is_acquired()
    assert len(list(client.members)) == 1
    client.compact(client.get_response(key).header.revision)
    client.defragment()
    assert client.status().leader is not None
    assert not list(client.list_alarms())
    client.snapshot(taken := io.BytesIO())
    assert taken.tell() > 0
    assert client.delete(key)
    client.close()


async def _aetcd(host: str, port: int) -> None:
    import aetcd

    key = b"foreign/aetcd"
    async with aetcd.Client(host=host, port=port, timeout=10) as client:
        watch = await client.watch(key)
        await client.put(key, b"one")
        assert (await client.get(key)).value == b"one"
        async for event in watch:
            assert event.kv.value == b"one"
            break
        await watch.cancel()
        when = client.transactions
        for expected in (True, False):
            done, _ = await client.transaction(
                compare=[when.value(key) == b"one"], success=[when.put(key, b"two")], failure=[]
            )
            assert done == expected
        lease = await client.lease(30)
        await client.put(key + b"/leased", b"x", lease=lease)
        await lease.refresh()
        assert 0 < await lease.remaining_ttl() <= 30
        await lease.revoke()
        assert await client.get(key + b"/leased") is None
        async with client.lock(b"foreign", ttl=30) as lock:
            assert await lock.is_acquired()
        assert len([each async for each in client.members()]) == 1
        assert (await client.status()).leader is not None
        assert await client.delete(key)


def aetcd(host: str, port: int, tls: list[str]) -> None:
    assert not tls, "aetcd has no TLS"
    asyncio.run(asyncio.wait_for(_aetcd(host, port), 60))


def etcd3gw(host: str, port: int, tls: list[str]) -> None:
    import etcd3gw

    options = dict(zip(("ca_cert", "cert_cert", "cert_key"), tls, strict=False))
    client = etcd3gw.client(
        host=host, port=port, timeout=10, protocol="https" if tls else "http", **options
    )
    key = "foreign/etcd3gw"
    events, cancel = client.watch(key)
    assert client.create(key, "one")
    assert client.get(key) == [b"one"]
    assert next(events)["kv"]["value"] == b"one"
    cancel()
    assert client.replace(key, "one", "two")
    assert not client.replace(key, "one", "three")
    assert [value for value, _ in client.get_prefix(key)] == [b"two"]
    lease = client.lease(30)
    client.put(key + "/leased", "x", lease)
    assert lease.keys() == [key.encode() + b"/leased"]
    assert 0 < lease.refresh() <= 30
    assert 0 < lease.ttl() <= 30
    lease.revoke()
    assert client.get(key + "/leased") == []
    with client.lock("foreign", ttl=30) as lock:
        assert lock.is_acquired()
    assert len(client.members()) == 1
    assert client.delete(key)


if __name__ == "__main__":
    which, address, *files = sys.argv[1:]
    name, _, number = address.partition(":")
    {"etcd3": etcd3, "aetcd": aetcd, "etcd3gw": etcd3gw}[which](name, int(number), files)
