"""Command line, environment and file: what is accepted, and what is refused with its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from configsvc.errors import ConfigError
from configsvc.server.flags import help_text, known_flags, parse

BASE = [
    "--name=m1", "--data-dir", "/d", "-encryption-key-file=/k",
    "--listen-client-urls=https://127.0.0.1:1", "--listen-peer-urls", "https://127.0.0.1:2",
    "--cert-file=c", "--key-file=k", "--trusted-ca-file=t",
    "--peer-cert-file=c", "--peer-key-file=k", "--peer-trusted-ca-file=t",
]  # fmt: skip


def test_every_way_of_writing_a_flag() -> None:
    parsed = parse([*BASE, "--allow-root", "--max-txn-ops=64", "-heartbeat-interval", "50"], {})
    c = parsed.config
    assert (c.name, c.data_dir, c.key_file) == ("m1", "/d", "/k")
    assert (c.allow_root, c.max_txn_ops, c.heartbeat_interval_ms) == (True, 64, 50)
    assert c.client_tls.cert_file == "c"
    assert c.advertised_clients == ("https://127.0.0.1:1",)


def test_a_flag_given_twice_counts_last_and_warns() -> None:
    parsed = parse([*BASE, "--name=m2"], {})
    assert parsed.config.name == "m2"
    assert any("--name is given twice" in w for w in parsed.warnings)


def test_the_environment_has_a_twin_for_every_flag() -> None:
    parsed = parse(BASE, {"CONFIGSVC_LOG_LEVEL": "debug", "PATH": "/bin"})
    assert parsed.config.log_level == "debug"


@pytest.mark.parametrize(
    ("argv", "environ", "names"),
    [
        pytest.param(["--nmae=x"], {}, "nmae", id="misspelt-flag"),
        pytest.param([], {"CONFIGSVC_CRET_FILE": "x"}, "CONFIGSVC_CRET_FILE", id="misspelt-env"),
        pytest.param(["--name=a"], {"CONFIGSVC_NAME": "b"}, "contradict", id="contradiction"),
        pytest.param(["--auto-tls"], {}, "auto-tls", id="auto-tls"),
        pytest.param(["--client-cert-auth=false"], {}, "client-cert-auth", id="no-client-certs"),
        pytest.param(["--pre-vote=false"], {}, "pre-vote", id="no-pre-vote"),
        pytest.param(["--cors=*"], {}, "cors", id="cors"),
        pytest.param(["--election-timeout=100"], {}, "election-timeout", id="short-timeout"),
        pytest.param(["--election-timeout=-1"], {}, "election-timeout", id="negative"),
        pytest.param(["--max-txn-ops=9223372036854775808"], {}, "max-txn-ops", id="huge"),
        pytest.param(["--max-txn-ops=NaN"], {}, "max-txn-ops", id="nan"),
        pytest.param(["--snapshot-count=0"], {}, "snapshot-count", id="zero"),
        pytest.param(["--listen-client-urls=http://127.0.0.1:1"], {}, "plaintext", id="plaintext"),
        pytest.param(["--listen-client-urls=https://0.0.0.0:1"], {}, "listen-any", id="wildcard"),
        pytest.param(["--listen-client-urls=https://h:1/x"], {}, "nothing may follow", id="path"),
        pytest.param(["--trusted-ca-file="], {}, "trusted-ca-file", id="no-ca"),
        pytest.param(["--data-dir="], {}, "data-dir", id="no-data-dir"),
        pytest.param(["--encryption-key-file="], {}, "encryption-key-file", id="no-key"),
        pytest.param(["--unsafe-no-fsync"], {}, "unsafe-no-fsync", id="no-fsync"),
        pytest.param(["--watch-progress-notify-interval=soon"], {}, "duration", id="duration"),
        pytest.param(["--initial-cluster=m1"], {}, "initial-cluster", id="cluster-syntax"),
        pytest.param(["--initial-cluster=x=https://1:1"], {}, "does not name this", id="not-in"),
        pytest.param(["--allow-root=maybe"], {}, "allow-root", id="boolean"),
        pytest.param(["stray"], {}, "stray", id="stray-word"),
        pytest.param(["--name"], {}, "needs a value", id="no-value"),
    ],
)
def test_refusals_name_the_setting(argv: list[str], environ: dict[str, str], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([*BASE, *argv], environ)
    assert names in str(caught.value)
    assert caught.value.code == 78


def test_insecure_dev_serves_loopback_only() -> None:
    with pytest.raises(ConfigError, match="loopback only"):
        parse(
            ["--insecure-dev", "--data-dir=/d", "--encryption-key-file=/k",
             "--listen-client-urls=http://10.0.0.1:1"],
            {},
        )  # fmt: skip
    parsed = parse(["--insecure-dev", "--data-dir=/d", "--encryption-key-file=/k"], {})
    assert parsed.config.listen_client_urls == ("http://localhost:2379",)


def test_a_file_takes_the_same_names(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text('name = "m7"\nmax-txn-ops = 9\nlisten-client-urls = ["https://127.0.0.1:1"]\n')
    parsed = parse(["--config-file", str(path), *BASE[1:]], {})
    assert (parsed.config.name, parsed.config.max_txn_ops) == ("m7", 9)
    path.write_text("nmae = 'x'\n")
    with pytest.raises(ConfigError, match="nmae"):
        parse(["--config-file", str(path), *BASE], {})
    path.write_text("name = \n")
    with pytest.raises(ConfigError, match=r"m\.toml"):
        parse(["--config-file", str(path), *BASE], {})


def test_help_names_every_flag() -> None:
    text = help_text()
    assert all(f"--{flag} " in text for flag in known_flags())
