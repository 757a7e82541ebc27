"""Strict configuration: each mistake is named with its line; what weakens the node is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from configagent.config import load, parse
from configagent.errors import Exit, InsecureError, SettingsError
from configagent.settings import Settings

BASE = """\
version = 1
[agent]
node = "n1"
state_dir = "/var/lib/configagent"
[store]
endpoints = ["https://127.0.0.1:2379"]
[security]
allow_roots = ["/etc/app", "/etc/web"]
[[service]]
name = "app"
reload = ["/bin/true"]
[[set]]
name = "web"
prefix = "/prod/web"
notify = ["app"]
  [[set.file]]
  dest = "/etc/app/a.conf"
  text = "x"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, "/x/agent.toml")
    return list(caught.value.problems)


def test_the_base_is_fine() -> None:
    settings = parse(BASE, "/x/agent.toml")
    assert isinstance(settings, Settings)
    spec = settings.sets[0]
    assert (spec.commit, spec.files[0].mode, spec.keep_generations) == ("files", 0o640, 3)
    assert spec.services[0].reload.argv == ("/bin/true",)
    assert spec.settle_min_s == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'node = "n1"',
            'node = "n1"\nnodee = 1',
            "agent.toml:4: agent.nodee: unknown key, did you mean node?",
        ),
        ("version = 1", "version = 2", "agent.toml:1: version: must be from 1 to 1"),
        ("version = 1", "version = true", "agent.toml:1: version: must be a whole number"),
        ('state_dir = "/var/lib/configagent"', "", "agent.toml:2: agent.state_dir: is required"),
        (
            'state_dir = "/var/lib/configagent"',
            'state_dir = "var"',
            "agent.toml:4: agent.state_dir: must be an absolute path without . and .. parts",
        ),
        (
            'state_dir = "/var/lib/configagent"',
            'state_dir = "/etc/app/s"',
            "agent.toml:4: agent.state_dir: must not lie inside allow_roots",
        ),
        (
            'prefix = "/prod/web"',
            'prefix = "prod"',
            'agent.toml:14: set.0.prefix: must be such as "/prod/web"',
        ),
        (
            'prefix = "/prod/web"',
            'prefix = "/prod/web"\nlayers = ["base"]',
            "agent.toml:15: set.0.layers: unknown key",
        ),
        (
            'dest = "/etc/app/a.conf"',
            'dest = "/etc/passwd"',
            "agent.toml:16: set.0.file.0: /etc/passwd",
        ),
        ('text = "x"', 'text = "x"\n  key = "/k"', "needs exactly one of src, text, key"),
        (
            'text = "x"',
            'text = "x"\n  mode = "640"',
            "agent.toml:19: set.0.file.0.mode: must be a mode of four octal digits",
        ),
        (
            'text = "x"',
            'text = "x"\n  format = "yml"',
            "agent.toml:19: set.0.file.0.format: must be one of",
        ),
        (
            'text = "x"',
            'src = "store:/other/t"',
            "agent.toml:18: set.0.file.0.src: lies outside the prefix /prod/web",
        ),
        ('text = "x"', 'src = "http://x"', 'must be "file:path" or "store:/key"'),
        (
            'text = "x"',
            'text = "x"\n  owner = "no-such-user-here"',
            "there is no user no-such-user-here",
        ),
        (
            'notify = ["app"]',
            'notify = ["apps"]',
            "agent.toml:15: set.0.notify: there is no [[service]] named apps",
        ),
        (
            'reload = ["/bin/true"]',
            'reload = ["true"]',
            "agent.toml:11: service.0.reload: must start with the absolute path",
        ),
        (
            'reload = ["/bin/true"]',
            'reload = "/bin/true"',
            "agent.toml:11: service.0.reload: must be a list of strings",
        ),
        ('notify = ["app"]', 'notify = ["app"]\nsettle = { min = "fast" }', "must be a duration"),
        (
            'notify = ["app"]',
            'notify = ["app"]\nfiles = { mode = "0644" }',
            "a mode wider than 0640 belongs into the file's own entry",
        ),
        (
            'notify = ["app"]',
            'notify = ["app"]\nguard = { max_shrink = "lots" }',
            "must be a share",
        ),
        ('notify = ["app"]', 'notify = ["app"]\ncommit = "exchange"', "must be one of files, dir"),
        ('notify = ["app"]', 'notify = ["app"]\ncommit = "dir"', 'only "dir" needs dir'),
        (
            'allow_roots = ["/etc/app", "/etc/web"]',
            'allow_roots = ["/etc/app", "/etc/app/x"]',
            "/etc/app/x lies inside another root",
        ),
        ('allow_roots = ["/etc/app", "/etc/web"]', 'allow_roots = ["/"]', "/ allows everything"),
        ('"https://127.0.0.1:2379"', '"https://x/path"', "may hold a host and a port"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line(old: str, new: str, expected: str) -> None:
    assert old in BASE
    found = problems(BASE.replace(old, new))
    assert any(expected in one for one in found) or any(
        expected.split(": ", 2)[-1] in one for one in found
    ), found


def test_all_mistakes_are_shown_at_once() -> None:
    text = BASE.replace('node = "n1"', "node = 7").replace('text = "x"', "txt = 1")
    assert len(problems(text)) >= 3


def test_outside_the_roots_is_refused_with_the_path() -> None:
    found = problems(BASE.replace("/etc/app/a.conf", "/etc/apple/a.conf"))
    assert any("/etc/apple/a.conf lies outside allow_roots" in one for one in found)


def test_two_sets_may_not_share_a_destination() -> None:
    more = BASE[BASE.index("[[set]]") :].replace('name = "web"', 'name = "other"')
    found = problems(BASE + more)
    assert any("collides with /etc/app/a.conf of web" in one for one in found)


def test_plaintext_to_another_machine_is_refused_as_insecure() -> None:
    with pytest.raises(InsecureError) as caught:
        parse(BASE.replace("https://127.0.0.1", "http://10.0.0.1"), "/x/agent.toml")
    assert caught.value.exit is Exit.REFUSED


def test_keys_are_relative_to_the_prefix_either_way() -> None:
    for key in ("/prod/web/x", "/x"):
        text = BASE.replace('text = "x"', f'key = "{key}"')
        assert parse(text, "/x/agent.toml").sets[0].files[0].key == "/x"


def test_dir_sets_have_names_and_links() -> None:
    text = BASE.replace('notify = ["app"]', 'dir = "/etc/web/managed"').replace(
        'dest = "/etc/app/a.conf"', 'name = "a.conf"\n  link = "/etc/app/a.conf"'
    )
    spec = parse(text, "/x/agent.toml").sets[0]
    assert (spec.commit, spec.files[0].link) == ("dir", "/etc/app/a.conf")
    found = problems(text.replace('name = "a.conf"', 'name = "../a.conf"'))
    assert any("must be a relative path of plain names" in one for one in found)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(BASE)
    path.chmod(0o600)
    assert load(str(path)).node == "n1"
    path.chmod(0o620)
    with pytest.raises(InsecureError):
        load(str(path))
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(InsecureError):
        load(str(path))
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(path, 1, 1)
        with pytest.raises(InsecureError):
            load(str(path))


def test_a_missing_file_and_broken_toml_are_told() -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load("/nonexistent/agent.toml")
    assert "agent.toml" in problems("x = [")[0]


def test_a_group_of_the_socket_is_named_or_nobody() -> None:
    assert parse(BASE, "/x/agent.toml").socket_group is None
    with_group = BASE.replace('node = "n1"', 'node = "n1"\nsocket_group = "root"')
    assert parse(with_group, "/x/agent.toml").socket_group == 0
    unknown = BASE.replace('node = "n1"', 'node = "n1"\nsocket_group = "no such group"')
    (problem,) = problems(unknown)
    assert "agent.toml:4: agent.socket_group: there is no group" in problem


@pytest.mark.parametrize(
    ("renew", "files", "expected"),
    [
        ('cmd = ["renew", "{csr}"]', True, "absolute path"),
        ('cmd = ["/bin/renew"]', True, "name {csr}"),
        ('cmd = ["/bin/renew", "{csr}"]', False, "as files"),
        ('cmd = ["/bin/renew", "{csr}"], timeout = "0s"', True, "above 0"),
        ('cmd = ["/bin/renew", "{csr}"], user = "x"', True, "unknown key"),
    ],
)
def test_a_renewal_that_cannot_work_is_an_error(renew: str, files: bool, expected: str) -> None:
    tls = 'tls = { cert = "/x/n.pem", key = "file:/x/n.key" }\n' if files else ""
    text = BASE.replace("[security]", f"{tls}renew = {{ {renew} }}\n[security]", 1)
    assert any(expected in one for one in problems(text))


def test_a_renewal() -> None:
    more = 'tls = { cert = "/x/n.pem", key = "file:/x/n.key" }\nrenew = { cmd = ["/r", "{csr}"] }\n'
    store = parse(BASE.replace("[security]", f"{more}[security]", 1), "/x/agent.toml").store
    assert store.renew is not None
    assert (store.renew.argv, store.renew.timeout_s) == (("/r", "{csr}"), 60.0)
