"""Whether a text is what its file promises: json, yaml, toml, ini, xml (C10).

Runs in the render worker: the text comes from a template, and parsers are where bombs go off.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
import xml.parsers.expat
from collections.abc import Callable
from typing import Any, Final

from configagent.yaml_text import YamlError, check_yaml


class FormatError(Exception):
    """Not well-formed; the text gives a line and no content."""


def _json(text: str) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise FormatError("json: an object names a key twice")
        return found

    try:
        json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise FormatError(f"json: {error.msg} at line {error.lineno}") from None


def _toml(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+)", str(error))
        raise FormatError(f"toml: malformed at line {place[1] if place else '?'}") from None


def _ini(text: str) -> None:
    try:
        configparser.RawConfigParser(strict=True).read_string(text)
    except configparser.Error as error:
        line = getattr(error, "lineno", None)
        raise FormatError(f"ini: {type(error).__name__} at line {line or '?'}") from None


def _xml(text: str) -> None:
    parser = xml.parsers.expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise FormatError("xml: a document type declaration is not allowed")

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except xml.parsers.expat.ExpatError as error:
        raise FormatError(f"xml: malformed at line {error.lineno}") from None


def _yaml(text: str) -> None:
    try:
        check_yaml(text)
    except YamlError as error:
        raise FormatError(str(error)) from None


_CHECKS: Final[dict[str, Callable[[str], None]]] = {
    "json": _json,
    "yaml": _yaml,
    "toml": _toml,
    "ini": _ini,
    "xml": _xml,
}


def check_format(name: str, text: str) -> None:
    """Parse; "" is any text.

    Raises:
        FormatError: not well-formed.
    """
    if name:
        _CHECKS[name](text)
