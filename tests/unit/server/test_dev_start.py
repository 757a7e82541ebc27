"""--insecure-dev starts from the command lines of etcd: defaults, flags, a key beside the data."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from configsvc.cli.configsvc import main as configsvc_main
from configsvc.config import ServerConfig, dev_key_path
from configsvc.errors import ConfigError
from configsvc.server.dev_key import make_dev_key
from configsvc.server.flags import parse


def test_no_flag_but_the_switch_is_a_member_of_its_own() -> None:
    c = parse(["--insecure-dev"], {}).config
    assert (c.name, c.data_dir, c.key_file) == ("default", "default.etcd", "default.etcd.key")
    assert c.genesis == (("default", ("http://localhost:2380",)),)


@pytest.mark.parametrize(
    "flag", ["--cors=*", "--host-whitelist=*", "--enable-pprof", "--peer-client-cert-auth=false",
             "--bcrypt-cost=4"],
)  # fmt: skip
def test_etcds_lax_flags_are_only_noted_there(flag: str) -> None:
    parsed = parse(["--insecure-dev", flag], {})
    assert any("ignored under --insecure-dev" in w for w in parsed.warnings)


def test_login_by_common_name_is_a_setting_there() -> None:
    off, on = (
        parse(["--insecure-dev", f"--client-cert-auth={value}"], {}) for value in ("false", "true")
    )
    assert (off.config.client_cert_auth, on.config.client_cert_auth) == (False, True)


@pytest.mark.parametrize("flag", ["--auto-tls", "--peer-auto-tls=true", "--pre-vote=false"])
def test_what_cannot_be_honoured_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match=flag.split("=")[0]):
        parse(["--insecure-dev", flag], {})


def _config(data: Path, **other: object) -> ServerConfig:
    settings = {"insecure_dev": True, "key_file": dev_key_path(str(data)), **other}
    return ServerConfig(data_dir=str(data), **settings)  # type: ignore[arg-type]


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    config = _config(tmp_path / "d")
    make_dev_key(config)
    made = Path(config.key_file)
    first = made.read_bytes()
    make_dev_key(config)
    assert made.read_bytes() == first
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_no_key_is_made_for_a_used_directory_a_named_file_or_a_secure_member(
    tmp_path: Path,
) -> None:
    data = tmp_path / "d"
    (data / "log").mkdir(parents=True)
    (data / "log" / "segment").touch()
    make_dev_key(_config(data))
    make_dev_key(_config(tmp_path / "e", key_file=str(tmp_path / "own.key")))
    make_dev_key(_config(tmp_path / "f", insecure_dev=False))
    assert not list(tmp_path.glob("*.key"))


def test_etcds_tokens_are_settings_there_and_refused_elsewhere() -> None:
    flags = ["--auth-token=jwt,sign-method=RS256", "--auth-token-ttl=60"]
    parsed = parse(["--insecure-dev", *flags], {})
    assert (parsed.config.auth_token, parsed.config.auth_token_ttl) == (flags[0][13:], 60)
    assert not any("auth-token" in w for w in parsed.warnings)
    for flag in flags:
        with pytest.raises(ConfigError, match="--auth-token"):
            parse([flag], {})
    with pytest.raises(ConfigError, match="--auth-token-ttl"):
        parse(["--insecure-dev", "--auth-token-ttl=0"], {})


def test_check_config_judges_the_keys_of_tokens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["configsvc", "check-config", "--insecure-dev"]
    for flag, code, told in (
        ("--auth-token=simple", 0, "usable"),
        ("--auth-token=jwt,sign-method=RS256,pub-key=/nowhere/k", 78, "/nowhere/k"),
        ("--auth-token=opaque", 78, "opaque"),
    ):
        monkeypatch.setattr(sys, "argv", [*argv, flag])
        assert configsvc_main() == code
        out = capsys.readouterr()
        assert told in out.out + out.err
