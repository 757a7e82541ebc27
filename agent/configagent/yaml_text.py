"""Reading YAML as plain values. Runs in the render worker only.

A node graph is built and never an object of Python: no tags, and types beyond JSON's are their
text. Nesting is counted on the event stream first, because the composer recurses in C. Errors
give a line and no content.

Always true: a mapping names each key once; what ``load_yaml`` returns is a tree, not a graph.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import yaml

DEPTH_MAX: Final = 64
_PREFIX: Final = "tag:yaml.org,2002:"
# Breaks and characters that a reader of YAML folds or refuses where JSON takes them as they are.
_BREAKS: Final = {
    n: f"\\u{n:04x}" for n in (*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)
}


class YamlError(Exception):
    """Not YAML, or more of it than is taken; the text is safe to show."""


def check_yaml(text: str) -> None:
    """Parse every document; aliases are fine.

    Raises:
        YamlError: malformed, too deep, or a key named twice.
    """
    for root in _documents(text, aliases=True):
        _check_keys(root)


def load_yaml(text: str) -> Any:
    """One document as plain values.

    Raises:
        YamlError: malformed, several documents, an alias, a tag that is no plain type.
    """
    roots = list(_documents(text, aliases=False))
    if len(roots) != 1:
        raise YamlError(f"yaml: {len(roots)} documents instead of one")
    _check_keys(roots[0])
    loader = yaml.SafeLoader("")
    try:
        return _plain(loader, roots[0])
    except (ValueError, yaml.YAMLError):
        raise YamlError("yaml: a value is no such number") from None
    finally:
        loader.dispose()


def dump_yaml(value: Any) -> str:
    """Plain values in flow style, one line; keys sorted. Readers of YAML 1.1 and 1.2 agree on it.

    Raises:
        YamlError: a value that is none of the plain ones.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_BREAKS)
    if isinstance(value, bool | int) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        text = repr(value)
        if not math.isfinite(value):
            return text.replace("inf", ".inf").replace("nan", ".nan")
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, list | tuple):
        return "[" + ", ".join(dump_yaml(one) for one in value) + "]"
    if isinstance(value, dict):
        pairs = sorted(((str(k), v) for k, v in value.items()), key=lambda pair: pair[0])
        return "{" + ", ".join(f"{dump_yaml(k)}: {dump_yaml(v)}" for k, v in pairs) + "}"
    raise YamlError("toyaml takes plain values")


def _documents(text: str, *, aliases: bool) -> Iterator[yaml.Node]:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.AliasEvent) and not aliases:
                raise YamlError(f"yaml: an alias at line {_line(event)}")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise YamlError(f"yaml: nests deeper than {DEPTH_MAX} at line {_line(event)}")
        yield from (n for n in yaml.compose_all(text, Loader=yaml.CSafeLoader) if n is not None)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise YamlError(f"yaml: malformed{where}") from None


def _line(marked: Any) -> int:
    return int(marked.start_mark.line) + 1


def _check_keys(root: yaml.Node) -> None:
    """No mapping names a key twice. Each node is looked at once, however often it is aliased."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            names = [(k.tag, k.value) for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
            if len(set(names)) != len(names):
                raise YamlError(f"yaml: a mapping names a key twice at line {_line(node)}")
            waiting.extend(part for pair in node.value for part in pair)


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(_PREFIX)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_plain(loader, one) for one in node.value]
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return {_key(loader, key): _plain(loader, value) for key, value in node.value}
    if isinstance(node, yaml.ScalarNode):
        if kind in ("str", "timestamp"):
            return node.value
        if kind in ("int", "float", "bool", "null"):
            return getattr(loader, f"construct_yaml_{kind}")(node)
    raise YamlError(f"yaml: no plain value at line {_line(node)}")


def _key(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag.removeprefix(_PREFIX) == "merge":
        raise YamlError(f"yaml: a key that is no text at line {_line(node)}")
    return str(node.value)
