"""What a template can say: functions over the keys of its set, and filters over plain values.

Runs in the render worker. Same input, same output: no clock, randomness, environment, files.
Errors raised here name keys and rules, never values.

Always true:
  * Every key that is looked at is recorded in ``Reads``, found or not.
  * ``Clean`` text is the only kind that may carry line breaks into the output (C8).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import Undefined

from configagent.yaml_text import YamlError, dump_yaml, load_yaml

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROL_MULTILINE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class WordError(Exception):
    """A template asked for something that it cannot have; the text is safe to show."""


class MissingKeyError(WordError):
    """A key that the template needs does not exist."""


class Clean(str):
    """Text whose line breaks are meant."""

    __slots__ = ()


def check_output(value: Any) -> Any:
    """Jinja's ``finalize``: stop control characters that a value brought along.

    Raises:
        WordError: there are some, and no filter took responsibility.
    """
    if isinstance(value, Clean | Undefined):
        return value
    if value is None:
        raise WordError("a value is none")
    if isinstance(value, str) and _CONTROL.search(value):
        raise WordError(
            "a value holds a line break or control character: "
            "end with the filter multiline or a quoting filter"
        )
    return value


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Shell pattern over keys; ``*`` and ``?`` stop at a slash."""
    parts = {"*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(c, re.escape(c)) for c in glob) + r"\Z")


class Reads:
    """What a rendering looked at: keys by name, and spans as prefixes that were listed."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.spans: set[str] = set()
        self.secret = False
        self.revision = False  # its own content revision was printed


class Words:
    """The functions, over one snapshot of one set. ``keys`` maps relative keys to values."""

    def __init__(self, keys: Mapping[str, bytes], scope: Iterable[str], set_name: str) -> None:
        self._keys = keys
        self._scope = tuple(scope)
        self._set_name = set_name
        self.reads = Reads()
        self.content_revision = 0
        self.environment: Mapping[str, str] = {}

    def functions(self) -> dict[str, Callable[..., Any]]:
        """By the names that templates use."""
        return {
            "getv": self.getv, "get": self.get, "gets": self.gets, "getvs": self.getvs,
            "exists": self.exists, "ls": self.ls, "lsdir": self.lsdir, "key": self.key,
            "key_or_default": self.key_or_default, "key_exists": self.exists, "tree": self.tree,
            "secret": self.secret, "banner": self.banner, "fail": self.fail,
            "getenv": self.getenv,
        }  # fmt: skip

    def _name(self, key: Any) -> str:
        if not isinstance(key, str):
            raise WordError("a key must be text")
        name = key if key.startswith("/") else "/" + key
        if any(part in ("", ".", "..") for part in name.rstrip("/").split("/")[1:]):
            raise WordError(f"key {name}: outside the set's scope")
        inside = not self._scope or any(
            name == one or name.startswith(one.rstrip("/") + "/") or one.startswith(name)
            for one in self._scope
        )
        if not inside:
            raise WordError(f"key {name}: outside the set's scope")
        return name

    def _value(self, name: str) -> str:
        try:
            return self._keys[name].decode()
        except UnicodeDecodeError:
            raise WordError(f"key {name}: the value is not UTF-8 text") from None

    def _look(self, key: Any) -> tuple[str, bool]:
        name = self._name(key)
        self.reads.keys.add(name)
        return name, name in self._keys

    def _listed(self, glob: Any) -> list[str]:
        name = self._name(glob)
        fixed = re.split(r"[*?]", name, maxsplit=1)[0]
        self.reads.spans.add(fixed)
        pattern = glob_pattern(name)
        found = [key for key in self._keys if key.startswith(fixed) and pattern.match(key)]
        self.reads.keys.update(found)
        return sorted(found)

    def _below(self, prefix: Any) -> list[str]:
        start = self._name(prefix).rstrip("/") + "/"
        self.reads.spans.add(start)
        return sorted(key for key in self._keys if key.startswith(start))

    # --- confd's words ----------------------------------------------------------------------------

    def getv(self, key: str, *default: Any) -> Any:
        """The value of a key, or the default."""
        name, found = self._look(key)
        if found:
            return self._value(name)
        if default:
            return default[0]
        raise MissingKeyError(f"key {name}: does not exist")

    def get(self, key: str) -> dict[str, str]:
        """Key and value."""
        return {"key": self._name(key), "value": self.getv(key)}

    def gets(self, glob: str) -> list[dict[str, str]]:
        """Keys and values that match, by key."""
        return [{"key": name, "value": self._value(name)} for name in self._listed(glob)]

    def getvs(self, glob: str) -> list[str]:
        """Values that match, by value, as confd does."""
        return sorted(self._value(name) for name in self._listed(glob))

    def exists(self, key: str) -> bool:
        """Whether a key exists."""
        return self._look(key)[1]

    def ls(self, prefix: str) -> list[str]:
        """Names one level below."""
        start = len(self._name(prefix).rstrip("/")) + 1
        return sorted({key[start:].split("/")[0] for key in self._below(prefix)})

    def lsdir(self, prefix: str) -> list[str]:
        """Names one level below that have something below them."""
        start = len(self._name(prefix).rstrip("/")) + 1
        rest = (key[start:] for key in self._below(prefix))
        return sorted({name.split("/")[0] for name in rest if "/" in name})

    # --- consul-template's words ------------------------------------------------------------------

    def key(self, key: str) -> str:
        """The value of a key."""
        value: str = self.getv(key)
        return value

    def key_or_default(self, key: str, default: Any) -> Any:
        """The value of a key, or the default."""
        return self.getv(key, default)

    def tree(self, prefix: str) -> list[dict[str, str]]:
        """All keys below, relative to ``prefix``."""
        start = len(self._name(prefix).rstrip("/")) + 1
        found = self._below(prefix)
        self.reads.keys.update(found)
        return [{"key": name[start:], "value": self._value(name)} for name in found]

    # --- our own ----------------------------------------------------------------------------------

    def secret(self, key: str) -> str:
        """A value whose file must stay private and unnamed by plain hashes (C12, J2)."""
        self.reads.secret = True
        return self.key(key)

    def banner(self) -> str:
        """One line that says where the file comes from."""
        self.reads.revision = True
        rev = self.content_revision
        return f"managed by configagent, set {self._set_name}, rev {rev}, do not edit"

    def fail(self, text: str = "the template gave up") -> None:
        """Stop; the old file stays. Values of the store are taken out of the text."""
        shown = str(text)
        for name in self.reads.keys:
            value = self._keys.get(name, b"").decode(errors="replace")
            if value:
                shown = shown.replace(value, "…")
        raise WordError(_CONTROL.sub(" ", shown)[:200])

    def getenv(self, name: str, *default: str) -> str:
        """An environment variable that the local configuration allows."""
        if name in self.environment:
            return self.environment[name]
        if default:
            return default[0]
        raise WordError(f"environment variable {str(name)[:60]}: not in allow_env, or not set")


# --- filters --------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises and names it
    if not isinstance(value, str | int | float):
        raise WordError("this filter takes text")
    return str(value)


def _fromjson(value: Any) -> Any:
    try:
        return json.loads(_text(value))
    except ValueError:
        raise WordError("fromjson: the value is not JSON") from None


def _tojson(value: Any, indent: int | None = None) -> str:
    return Clean(json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False))


def _fromyaml(value: Any) -> Any:
    try:
        return load_yaml(_text(value))
    except YamlError as error:
        raise WordError(f"fromyaml: {error}") from None


def _toyaml(value: Any) -> str:
    try:
        return Clean(dump_yaml(value))
    except YamlError as error:
        raise WordError(str(error)) from None


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value).replace("\\/", "/").replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        inner = (f"{_toml_value(str(k))} = {_toml_value(v)}" for k, v in value.items())
        return "{" + ", ".join(inner) + "}"
    raise WordError("totoml: a value is none")


def _totoml(value: Any) -> str:
    if not isinstance(value, dict):
        raise WordError("totoml takes a mapping")
    return Clean("".join(f"{_toml_value(str(k))} = {_toml_value(v)}\n" for k, v in value.items()))


def _number(kind: type[int] | type[float]) -> Callable[..., Any]:
    def convert(value: Any, *default: Any) -> Any:
        try:
            return kind(_text(value).strip()) if isinstance(value, str) else kind(value)
        except (ValueError, TypeError, OverflowError):
            if default:
                return default[0]
            raise WordError(f"{kind.__name__}: the value is no such number") from None

    return convert


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "on": True, "1": True}
    known |= {"false": False, "no": False, "off": False, "0": False, "": False}
    word = _text(value).strip().lower()
    if word not in known:
        raise WordError("bool: neither true nor false")
    return known[word]


def _items(value: Any) -> list[list[Any]]:
    if not isinstance(value, dict):
        raise WordError("items takes a mapping")
    return [[key, value[key]] for key in sorted(value, key=str)]


def _indent(value: Any, width: int = 4) -> str:
    text = _text(value)
    out = text.replace("\n", "\n" + " " * min(width, 64))
    return Clean(out) if isinstance(value, Clean) else out


def _b64dec(value: Any) -> str:
    try:
        return base64.b64decode(_text(value), validate=True).decode()
    except ValueError:
        raise WordError("b64dec: not base64 of UTF-8 text") from None


def _hostport(value: Any) -> str:
    text = _text(value).strip()
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):(\d{1,5})", text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise WordError("hostport: not of the form host:port")
    return text


def _cidr(value: Any) -> str:
    try:
        return str(ipaddress.ip_network(_text(value).strip(), strict=False))
    except ValueError:
        raise WordError("cidr: not an address range") from None


def _multiline(value: Any) -> str:
    text = _text(value)
    if _CONTROL_MULTILINE.search(text):
        raise WordError("multiline: the value holds control characters other than line breaks")
    return Clean(text)


def _single_line(text: str, word: str) -> str:
    if _CONTROL.search(text):
        raise WordError(f"{word}: the value holds a line break or control character")
    return text


def _q_nginx(value: Any) -> str:
    text = _single_line(_text(value), "q_nginx")
    if "$" in text:
        raise WordError("q_nginx: the value holds $, which nginx would expand")
    return Clean('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


def _q_shell(value: Any) -> str:
    text = _text(value)
    if "\0" in text:
        raise WordError("q_shell: the value holds NUL")
    return Clean("'" + text.replace("'", "'\"'\"'") + "'")


def _q_ini(value: Any) -> str:
    return Clean(_single_line(_text(value), "q_ini").strip().replace("%", "%%"))


def _q_systemd(value: Any) -> str:
    text = _single_line(_text(value), "q_systemd")
    table = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}
    return Clean('"' + "".join(table.get(c, c) for c in text) + '"')


def _field(item: Any, name: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise WordError(f"an item has no field {str(name)[:60]}")
    return item[name]


def _sort_by(value: Any, name: str) -> list[Any]:
    return sorted(value, key=lambda item: _field(item, name))


def _group_by(value: Any, name: str) -> list[dict[str, Any]]:
    groups: dict[Any, list[Any]] = {}
    for item in value:
        groups.setdefault(_field(item, name), []).append(item)
    return [{"key": key, "items": groups[key]} for key in sorted(groups)]


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "fromjson": _fromjson, "jsonArray": _fromjson, "parseJSON": _fromjson, "tojson": _tojson,
    "fromyaml": _fromyaml, "toyaml": _toyaml,
    "totoml": _totoml, "int": _number(int), "float": _number(float), "bool": _bool,
    "items": _items, "indent": _indent, "lines": lambda value: _text(value).splitlines(),
    "sha256": lambda value: hashlib.sha256(_text(value).encode()).hexdigest(),
    "b64enc": lambda value: base64.b64encode(_text(value).encode()).decode(),
    "b64dec": _b64dec, "basename": lambda value: _text(value).rstrip("/").rpartition("/")[2],
    "base": lambda value: _text(value).rstrip("/").rpartition("/")[2],
    "hostport": _hostport, "cidr": _cidr, "multiline": _multiline, "q_nginx": _q_nginx,
    "q_shell": _q_shell, "q_ini": _q_ini, "q_systemd": _q_systemd, "sort_by": _sort_by,
    "group_by": _group_by,
}  # fmt: skip
