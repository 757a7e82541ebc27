"""Times, escapes, settings, secrets, exits: the parts without a cluster."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc import __version__, errors, limits
from configsvc.cli import secrets
from configsvc.cli.exits import CliError, Exit, exit_of, line_of
from configsvc.cli.output import Out, escape, json_bytes, shorten
from configsvc.cli.run import split_command
from configsvc.cli.times import (
    When,
    parse_deadline,
    parse_duration_ns,
    parse_seconds,
    parse_when,
    show_age,
    show_time,
)
from configsvc.client import errors as client_errors
from tests.support.cli_runner import Shell

NOW = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
HOUR = 3600 * 1_000_000_000


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("", When()),
        ("now", When()),
        ("1234", When(revision=1234)),
        ("0", When(revision=1)),
        ("2h", When(time_ns=NOW - 2 * HOUR)),
        ("30m ago", When(time_ns=NOW - HOUR // 2)),
        ("1h30m", When(time_ns=NOW - HOUR - HOUR // 2)),
        ("1.5h", When(time_ns=NOW - HOUR - HOUR // 2)),
        ("1d", When(time_ns=NOW - 24 * HOUR)),
        ("2025-12-31T23:00:00Z", When(time_ns=NOW - HOUR)),
        ("2025-12-31T23:00:00.000000001Z", When(time_ns=NOW - HOUR + 1)),
        ("2025-12-31T23:30:00+01:00", When(time_ns=NOW - HOUR - HOUR // 2)),
        ("2025-12-31 23:00:00", When(time_ns=NOW - HOUR)),
        ("2025-12-31", When(time_ns=NOW - 24 * HOUR)),
    ],
)
def test_points_in_the_past(text: str, when: When) -> None:
    assert parse_when(text, NOW) == when


@pytest.mark.parametrize(
    "text", ["x", "2027-01-01", "-5", "2x", "9" * 30, "٣", "2025-13-01", "h", "1970-01-01"]
)
def test_what_is_no_point_in_the_past(text: str) -> None:
    with pytest.raises(CliError) as caught:
        parse_when(text, NOW)
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize(
    ("text", "ahead_ns"),
    [("90s", 90 * 10**9), ("1h30m", 5_400 * 10**9), (" 30d ", 30 * 86_400 * 10**9)],
)
def test_deadlines_count_from_now(text: str, ahead_ns: int) -> None:
    assert parse_deadline(text, NOW) == NOW + ahead_ns


def test_a_deadline_is_a_time_that_lies_ahead() -> None:
    ahead = NOW // 10**9 * 10**9 + 10**9
    assert parse_deadline(show_time(ahead), NOW) == ahead
    for text in ("", "now", "0s", "1234", "1970-01-01", "30m ago", "99999999w", show_time(NOW)):
        with pytest.raises(CliError):
            parse_deadline(text, NOW)


@given(st.integers(1, 4_000_000_000_000_000_000))
def test_times_come_back(time_ns: int) -> None:
    assert parse_when(show_time(time_ns, exact=True), 2**62).time_ns == time_ns


def test_durations() -> None:
    assert parse_duration_ns("1w2d") == 9 * 24 * HOUR
    assert parse_duration_ns("5") is None
    assert parse_seconds("5") == parse_seconds("5s") == 5.0
    assert parse_seconds("250ms") == 0.25
    for bad in ("0", "-1", "x", "nan", "inf", ""):
        with pytest.raises(CliError):
            parse_seconds(bad)
    assert [show_age(n * 1_000_000_000) for n in (-1, 5, 130, 7300, 200_000)] == [
        "0s", "5s", "2m", "2h", "2d",
    ]  # fmt: skip
    assert show_time(0) == ""


@given(st.binary(max_size=50))
def test_escaped_bytes_are_printable_and_ascii_text_is_kept(data: bytes) -> None:
    assert escape(data).isprintable()
    assert all(char.isprintable() or char in "\n\t" for char in escape(data, lines=True))


@given(st.text(max_size=50))
def test_escape_keeps_what_prints(text: str) -> None:
    if text.isprintable():
        assert escape(text.encode()) == text


def test_escapes() -> None:
    assert escape(b"\x00\x7f\x9b\xc2\x9b") == "\\x00\\x7f\\x9b\\u009b"
    assert escape("a\u2066b\U000e0001") == "a\\u2066b\\U000e0001"
    assert shorten("abcdef", 4) == "abc…"
    assert json_bytes("k", b"\xff") == {"k_base64": "/w=="}


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_never_gets_raw_bytes() -> None:
    screen = Terminal()
    Out(as_json=False, raw=True, stream=screen).value(b"\x1b[2J")
    assert screen.getvalue() == b"\\x1b[2J\n"
    pipe = io.BytesIO()
    Out(as_json=False, raw=True, stream=pipe).value(b"\x1b[2J")
    assert pipe.getvalue() == b"\x1b[2J"


def test_tables_line_up() -> None:
    pipe = io.BytesIO()
    Out(as_json=False, raw=False, stream=pipe).table(("A", "LONG"), [("x\x1b", 1), ("yy", "z")])
    assert pipe.getvalue().decode() == "A      LONG\nx\\x1b  1\nyy     z\n"


# --- exits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PermissionDeniedError(), 3),
        (errors.UserEmptyError(), 3),
        (errors.NoLeaderError(), 4),
        (client_errors.OutcomeUnknownError("x"), 4),
        (client_errors.UnavailableError("x"), 4),
        (client_errors.EndpointError("x"), 78),
        (client_errors.UnauthenticatedError("x"), 3),
        (errors.UserAlreadyExistError(), 5),
        (errors.ConflictError("x"), 5),
        (errors.LeaseNotFoundError(), 1),
        (errors.CompactedError(), 1),
        (errors.FutureRevError(), 2),
        (errors.PolicyInvalidError("x"), 2),
        (errors.ConfigError("x"), 78),
        (errors.FatalError(errors.ExitCode.LOG_DAMAGED, "x", "y"), 82),
        (CliError(Exit.CONFLICT, "x"), 5),
    ],
)
def test_every_kind_of_error_has_an_exit_code(error: errors.ConfigServiceError, code: int) -> None:
    assert exit_of(error) == code
    assert "\n" not in line_of(error)


def test_lines_name_the_way_out() -> None:
    assert line_of(errors.ConfigError("mode is 0644", "chmod 600 f")) == "mode is 0644: chmod 600 f"
    assert "can-i" in line_of(errors.PermissionDeniedError())


# --- settings -------------------------------------------------------------------------------------


def test_secrets_are_refused_on_argv_and_in_the_environment(shell: Shell) -> None:
    for words in (
        ("--password", "hunter2", "get", "/a"),
        ("get", "/a", "--token=hunter2"),
        ("--user", "alice:hunter2", "get", "/a"),
    ):
        ran = shell.run(*words)
        assert ran.code == 2
        assert "--password-file" in ran.err
        assert "hunter2" not in ran.err
    ran = shell.run("get", "/a", env={"CONFIGCTL_PASSWORD": "hunter2"})
    assert ran.code == 78
    assert "hunter2" not in ran.err


def test_unknown_settings_are_named(shell: Shell, tmp_path: Path) -> None:
    ran = shell.run("get", "/a", env={"CONFIGCTL_ENDPOINT": "x"})
    assert ran.code == 78
    assert "CONFIGCTL_ENDPOINT " in ran.err
    context = tmp_path / "c.toml"
    for text, said in (
        ("endpoint = 'x'", "endpoint: unknown"),
        ("cert = 5", "cert: must be a string"),
        ("= x", "c.toml: "),
    ):
        context.write_text(text)
        ran = shell.run("get", "/a", "--context", str(context))
        assert ran.code == 78
        assert said in ran.err
    assert shell.run("get", "/a", "--context", str(tmp_path / "no")).code == 78
    context.write_text("")
    context.chmod(0o666)
    assert "chmod go-w" in shell.run("get", "/a", "--context", str(context)).err


def test_flags_win_over_environment_over_context(shell: Shell, tmp_path: Path) -> None:
    import argparse

    from configsvc.cli.settings import resolve

    context = tmp_path / "c.toml"
    context.write_text("endpoints = ['a', 'b']\ncacert = 'ca.pem'\ntimeout = 9\nkey = '/k'")
    args = argparse.Namespace(context=str(context), cert="flag", timeout=None)
    found = resolve(args, {"CONFIGCTL_TIMEOUT": "2s", "CONFIGCTL_CERT": "env", "OTHER": "x"})
    assert found.endpoints == "a,b"
    assert found.cacert == str(tmp_path / "ca.pem")
    assert found.key == "/k"
    assert found.cert == "flag"
    assert found.timeout_s == 2.0


def test_the_default_context_file_is_found(shell: Shell) -> None:
    path = shell.home / ".config" / "configctl"
    path.mkdir(parents=True)
    (path / "context.toml").write_text("endpoints = 'http://192.0.2.1:1'")
    ran = shell.run("get", "/a")
    assert ran.code == 78
    assert "192.0.2.1" in ran.err


def test_no_way_to_plaintext_or_unchecked_servers(shell: Shell) -> None:
    for url in ("http://10.1.1.1:2379", "http://example.com", "unix:///tmp/x", "10.0.0.1:x"):
        assert shell.run("get", "/a", "--endpoints", url).code == 78
    ran = shell.run("get", "/a", "--endpoints", "https://127.0.0.1:1")
    assert ran.code == 78
    assert "cacert" in ran.err
    help_text = shell.run("--help").out + shell.run("get", "--help").out
    for word in ("insecure", "skip", "no-verify"):
        assert word not in help_text


def test_tracing_is_refused(shell: Shell) -> None:
    ran = shell.run("get", "/a", "--endpoints", "http://127.0.0.1:1", env={"GRPC_TRACE": "all"})
    assert ran.code == 78
    assert "GRPC_TRACE" in ran.err


def test_usage_is_one_line(shell: Shell) -> None:
    for words in (("get",), ("nonsense",), ("get", "a", "--pref"), (), ("member",)):
        ran = shell.run(*words)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1
        assert "--help" in ran.err


HUGE = "9" * 23


@pytest.mark.parametrize(
    "line",
    [
        f"get /a --rev {HUGE}",
        "get /a --rev -1",
        "get /a --prefix --limit -1",
        f"log /a --limit {HUGE}",
        f"watch /a --rev {HUGE}",
        "watch /a --count x",
        f"compact {HUGE} --yes",
        f"lease grant {HUGE}",
        "lease grant 0",
        f"lock a --ttl {HUGE} -- true",
        "lock / -- true",
        "elect // --show",
        "service register a 1 --address h --probe-every 0",
        "service register a 1 --address h --probe-every nan",
        f"audit proof {HUGE}",
        "audit local --from -1",
        "audit verify --threshold 0",
        f"can-i kv.put /a --value-bytes {HUGE}",
        "can-i kv.put /a --source nowhere",
        "fleet wait --set s --percent nan",
        "fleet wait --set s --percent 101",
        f"fleet wait --set s --rev {HUGE}",
        "debug log --data-dir d --seal-key k --from -1",
        "migrate verify --etcd-endpoints https://a:1 --depth -1",
    ],
)
def test_arguments_that_no_request_can_hold_are_usage(shell: Shell, line: str) -> None:
    ran = shell.run(*line.split())
    assert ran.code == Exit.USAGE
    assert " is no " in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_bug_shows_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from configsvc.cli import settings

    def boom(*_: object) -> None:
        raise KeyError("s3cret")

    monkeypatch.setattr(settings, "_from_environment", boom)
    ran = shell.run("get", "/a")
    assert ran.code == 70
    assert len(ran.err.splitlines()) == 1
    assert "s3cret" not in ran.err


def test_commands_after_dashes_are_the_users() -> None:
    assert split_command(["lock", "n", "--", "a", "--json"]) == (["lock", "n"], ["a", "--json"])
    assert split_command(["--cert", "lock", "get", "--", "-x"])[1] == []
    assert split_command(["--json", "service", "register", "s", "--", "p"])[1] == ["p"]
    assert split_command(["get", "lock", "--", "-x"]) == (["get", "lock", "--", "-x"], [])


def test_every_command_is_found_in_the_module_that_has_it() -> None:
    from configsvc.cli import tree

    def commands(words: list[str]) -> set[str]:
        parser = tree.build_parser(words)
        return {name for action in parser._actions for name in action.choices or ()}

    every = commands([])
    assert every == set(tree._HOMES)
    for name in every:
        assert name in commands(["--endpoints", "get", name])
    assert commands(["nonsense"]) == every  # so that the error names what there is


def test_version_is_quick() -> None:
    begun = time.monotonic()
    words = [sys.executable, "-m", "configsvc.cli.configctl", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"configctl {__version__}\n"
    assert time.monotonic() - begun < 5  # the figure is measured elsewhere; this catches hangs
    code = (
        "import sys; from configsvc.cli.configctl import main; main(['--version']);"
        "heavy = {'grpc', 'argparse', 'google.protobuf', 'cryptography'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_tree_loads_without_grpc() -> None:
    code = (
        "import sys; from configsvc.cli.tree import build_parser; build_parser();"
        "heavy = {'grpc', 'google.protobuf', 'cryptography', 'sqlalchemy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "tcsh"])
def test_completion(shell: Shell, name: str) -> None:
    assert "rollback" in shell.ok("completion", name).out


# --- secrets --------------------------------------------------------------------------------------


def test_secrets_from_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"pa ss\n")
    assert secrets.read_secret(str(path), "x") == "pa ss"
    for data in (b"", b"\n", b"\xff", b"x" * (limits.CLIENT_SECRET_BYTES_MAX + 1)):
        path.write_bytes(data)
        with pytest.raises(CliError):
            secrets.read_secret(str(path), "x")
    with pytest.raises(CliError):
        secrets.read_secret(str(tmp_path / "no"), "x")


@pytest.mark.parametrize("text", ["two words", "a\nb", "a\x01b", "t\u00f6ken"])
def test_a_token_is_one_word_of_ascii(shell: Shell, tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    ran = shell.run("get", "/a", "--token-file", str(path))
    assert (ran.code, "something else than a token" in ran.err) == (Exit.CONFIG, True)


def test_the_token_cache_is_private_and_bound(tmp_path: Path) -> None:
    cache = secrets.TokenCache({"XDG_RUNTIME_DIR": str(tmp_path)})
    path = cache.store("alice", b"cert", "https://a", "t0k3n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert cache.load("alice", b"cert", "https://a") == "t0k3n"
    for other in (
        ("bob", b"cert", "https://a"),
        ("alice", b"cert2", "https://a"),
        ("alice", b"cert", "https://b"),
    ):
        assert cache.load(*other) == ""
    path.chmod(0o644)
    assert cache.load("alice", b"cert", "https://a") == ""
    path.parent.chmod(0o755)
    with pytest.raises(CliError):
        cache.store("alice", b"cert", "https://a", "t")
