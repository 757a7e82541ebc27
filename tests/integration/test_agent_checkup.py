"""``configagent check``: each fault planted once, named, with its exit code (M2)."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from configagent import checkup, cli
from cryptography.hazmat.primitives.serialization import Encoding

from configsvc.identity.pki import init_pki, issue, load_authority
from tests.support.agent_config import configuration
from tests.support.pki import odd_leaf

CONFIG = """\
[security]
allow_roots = ["{base}/root"]
[[service]]
name = "svc"
reload = ["{base}/reload.sh"]
[[set]]
name = "web"
prefix = "/prod/web"
notify = ["svc"]
  [[set.file]]
  dest = "{base}/root/inner/a.conf"
  src = "file:a.j2"
"""


class Node:
    """A node on which everything is right."""

    def __init__(self, base: Path, port: int) -> None:
        self.base, self.root = base, base / "root"
        (self.root / "inner").mkdir(parents=True)
        (base / "state").mkdir(mode=0o700)
        self.write("a.j2", "{{ getv('/n') }}\n")
        self.write("reload.sh", "#!/bin/sh\n", 0o700)
        text = configuration(CONFIG, base, [f"http://127.0.0.1:{port}"])
        self.config = self.write("agent.toml", text)

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        path = self.base / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new, 1))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield Node(tmp_path, door.getsockname()[1])


def check(node: Node, capsys: Any) -> tuple[int, str]:
    """Exit code, and what was found besides the good; or what was said instead."""
    code = cli.main(["check", "--json", "--config", str(node.config)])
    out, err = capsys.readouterr()
    if not out:
        return code, err
    return code, "\n".join(
        f"{one['what']}: {one['text']}" for one in json.loads(out) if one["code"]
    )


def test_a_good_node_has_no_findings(node: Node, capsys: Any) -> None:
    assert check(node, capsys) == (0, "")
    assert cli.main(["check", "--config", str(node.config)]) == 0
    assert "PROBLEM" not in capsys.readouterr().out


class Fault(NamedTuple):
    plant: Callable[[Node], object]
    code: int
    said: str


def symlink_root(node: Node) -> None:
    node.root.rename(node.base / "real")
    node.root.symlink_to(node.base / "real")


def occupy(node: Node) -> None:
    shutil.rmtree(node.root / "inner")
    (node.root / "inner").symlink_to(node.base)


FAULTS = {
    "config others may write": Fault(lambda n: n.config.chmod(0o622), 15, "writable for others"),
    "config folder others may write": Fault(lambda n: n.base.chmod(0o777), 15, "writable"),
    "config in another coding": Fault(
        lambda n: n.config.write_bytes(n.config.read_bytes() + b"# \xe4\n"), 20, "is not UTF-8"
    ),
    "config is a folder": Fault(
        lambda n: (n.config.unlink(), n.config.mkdir(mode=0o700)), 20, "not a regular file"
    ),
    "no CA bundle": Fault(
        lambda n: n.change("http://127.0.0.1", "https://127.0.0.1"), 15, "tls: https needs"
    ),
    "no config": Fault(lambda n: n.config.unlink(), 20, "No such file"),
    "unknown word": Fault(lambda n: n.change("version", "nonsense = 1\nversion"), 20, "nonsense"),
    "plaintext": Fault(lambda n: n.change("http://127.0.0.1", "http://10.0.0.1"), 15, "plaintext"),
    "nobody listens": Fault(lambda n: n.change("127.0.0.1:", "127.0.0.2:"), 14, "endpoint: http"),
    "no root": Fault(lambda n: shutil.rmtree(n.root), 15, "root: "),
    "root others may write": Fault(lambda n: n.root.chmod(0o777), 15, "lets others write"),
    "root is a symlink": Fault(symlink_root, 15, "symlink: write the real path /"),
    "no folder": Fault(lambda n: (n.root / "inner").rmdir(), 15, "does not exist"),
    "symlink on the way": Fault(occupy, 15, "symlink"),
    "no template": Fault(lambda n: (n.base / "a.j2").unlink(), 10, "a.j2"),
    "no program": Fault(lambda n: (n.base / "reload.sh").unlink(), 20, "cannot be run"),
    "program without x": Fault(lambda n: (n.base / "reload.sh").chmod(0o600), 20, "cannot be run"),
    "no certificate": Fault(
        lambda n: n.change("[security]", f'tls = {{ cert = "{n.base}/none.pem" }}\n[security]'),
        15,
        "no certificate",
    ),
    "key others may read": Fault(
        lambda n: n.change(
            "[security]", f'tls = {{ key = "{n.write("k", "x", 0o644)}" }}\n[security]'
        ),
        15,
        "must be private",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_code(node: Node, name: str, capsys: Any) -> None:
    fault = FAULTS[name]
    fault.plant(node)
    code, said = check(node, capsys)
    assert fault.said in said
    assert code == fault.code


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-7200, -3600, "identity: certificate of n1 ends in -1.0 h"),
        (7200, 9000, "clock: 2.0 h before the certificate"),
    ],
)
def test_the_certificate_must_be_of_now(
    node: Node, capsys: Any, begins: int, ends: int, said: str
) -> None:
    init_pki(node.base / "pki", "test.example", development=True)
    leaf = odd_leaf(load_authority(node.base / "pki", "client"), begins=begins, ends=ends)
    cert = node.write("n.pem", leaf.certificate.public_bytes(Encoding.PEM).decode())
    node.change("[security]", f'tls = {{ cert = "{cert}" }}\n[security]')
    code, found = check(node, capsys)
    assert code == 15
    assert said in found


def test_files_that_no_connection_can_be_made_with_are_named(node: Node, capsys: Any) -> None:
    pki = node.base / "pki"
    init_pki(pki, "test.example", development=True)
    cert, key = issue(pki, "agent", "n2", out=node.base, stem="n")
    tls = f'tls = {{ ca = "{pki}/ca-server.pem", cert = "{cert}", key = "{key}" }}'
    node.change("[security]", f"{tls}\n[security]")
    node.change("http://127.0.0.1", "https://127.0.0.1")
    code, found = check(node, capsys)
    assert (code, "the certificate is of n2, node is n1" in found) == (15, True)
    node.change('node = "n1"', 'node = "n2"')
    assert check(node, capsys) == (0, "")
    issue(pki, "agent", "n2", out=node.base, stem="other")
    key.write_bytes((node.base / "other.key").read_bytes())
    assert "tls: client certificate" in check(node, capsys)[1]
    key.write_bytes(b"")
    node.change("ca-server.pem", "root.pem")
    assert "tls: CA bundle" in check(node, capsys)[1]


def test_a_full_disk_is_named(node: Node, capsys: Any, monkeypatch: Any) -> None:
    usage = shutil.disk_usage(node.base)
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda path: usage._replace(free=1024))
    code, said = check(node, capsys)
    assert code == 18
    assert f"disk: {node.root}: 0 MiB free" in said


def test_nothing_is_changed_by_looking(node: Node, capsys: Any) -> None:
    def look() -> list[tuple[str, int]]:
        return sorted((str(p), os.lstat(p).st_mtime_ns) for p in node.base.rglob("*"))

    before = look()
    for command in ("check", "doctor", "status", "generations"):
        cli.main([command, "--config", str(node.config)])
    capsys.readouterr()
    assert look() == before
