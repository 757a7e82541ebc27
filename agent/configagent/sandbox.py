"""Jinja2 for untrusted templates: plain values in, text out.

Runs in the render worker, whose limits (``confine``) are the real wall; this is the first one.

Always true:
  * A dot reads an item of a mapping and never an attribute of a Python object.
  * Only our functions, macros and the loop variable can be called.
  * No globals, no imports, no includes, and only filters from a closed list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MethodType, TracebackType
from typing import Any, Final, NamedTuple

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS

from configagent.words import FILTERS, Clean, MissingKeyError, Reads, WordError, Words, check_output

_FILTERS_KEPT: Final = (
    "abs", "batch", "capitalize", "count", "d", "default", "first", "join", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round",
    "select", "selectattr", "slice", "sort", "string", "sum", "title", "trim", "unique", "upper",
    "wordcount",
)  # fmt: skip
_TESTS_KEPT: Final = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float", "ge", "gt",
    "in", "integer", "iterable", "le", "lower", "lt", "mapping", "ne", "none", "number", "odd",
    "sequence", "string", "true", "undefined", "upper", "==", "!=", ">", ">=", "<", "<=",
)  # fmt: skip
_LOOP: Final = frozenset(
    {
        "index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem",
        "nextitem", "depth", "depth0", "cycle", "changed",
    }
)  # fmt: skip
_FORBIDDEN: Final = (nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends)


class Job(NamedTuple):
    """One file to render."""

    source: str
    words: Words
    node: Mapping[str, Any]
    set_name: str
    bytes_max: int


class Failed(Exception):
    """Why a template gave no text; safe to show. ``line`` 0 is unknown."""

    def __init__(self, reason: str, line: int, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.line = line
        self.missing = missing  # a key, and nothing else


class SetInfo(dict[str, Any]):
    """The variable ``set``; printing its revision is noted."""

    def __init__(self, name: str, revision: int, reads: Reads) -> None:
        super().__init__(name=name, revision=revision)
        self.reads = reads


class PlainEnvironment(ImmutableSandboxedEnvironment):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=check_output,
            cache_size=0,
            loader=None,
        )
        self.globals = {}
        self.filters = {name: JINJA_FILTERS[name] for name in _FILTERS_KEPT} | FILTERS
        self.tests = {name: JINJA_TESTS[name] for name in _TESTS_KEPT}
        # What blocks and macros put together was judged piece by piece.
        self.concat: Callable[[Any], str] = lambda pieces: Clean("".join(pieces))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute``: a mapping's item, or one of the loop's numbers."""
        if isinstance(obj, dict):
            return self._item(obj, attribute)
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return self._nothing(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]``: never an attribute."""
        if isinstance(obj, dict):
            return self._item(obj, argument)
        if isinstance(obj, str | list | tuple) and isinstance(argument, int | slice):
            try:
                return obj[argument]
            except IndexError:
                return self._nothing(obj, "that item")
        return self._nothing(obj, argument)

    def _item(self, obj: dict[Any, Any], name: Any) -> Any:
        if isinstance(obj, SetInfo) and name == "revision":
            obj.reads.revision = True
        try:
            return obj[name]
        except (KeyError, TypeError):
            return self._nothing(obj, name)

    def _nothing(self, obj: Any, name: Any) -> Undefined:
        if isinstance(obj, Undefined):
            return self.undefined(hint="something undefined was looked into", obj=obj)
        return self.undefined(hint=f"no item {name!r}" if _is_word(name) else "no such item")

    def is_safe_callable(self, obj: Any) -> bool:
        """Our functions, macros, the loop."""
        if isinstance(obj, MethodType):
            return isinstance(obj.__self__, Words | LoopContext)
        return isinstance(obj, Macro | LoopContext)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Nothing is: attributes are never read."""
        return False


def _is_word(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and len(name) <= 40


def render(environment: PlainEnvironment, job: Job) -> str:
    """The text of one file.

    Raises:
        Failed: no text, and why.
        MemoryError: too big for the worker.
    """
    try:
        tree = environment.parse(job.source)
        for node in tree.find_all(_FORBIDDEN):
            raise Failed("include, import and extends are not available", node.lineno)
        template = environment.from_string(job.source)
    except TemplateSyntaxError as error:
        raise Failed(f"template syntax: {error.message}", error.lineno) from None
    variables: dict[str, Any] = dict(job.words.functions())
    variables["node"] = dict(job.node)
    variables["set"] = SetInfo(job.set_name, job.words.content_revision, job.words.reads)
    try:
        return "".join(_bounded(template.generate(variables), job.bytes_max))
    except WordError as error:
        missing = isinstance(error, MissingKeyError)
        raise Failed(str(error), _line(error.__traceback__), missing=missing) from None
    except UndefinedError as error:
        raise Failed(_undefined(error), _line(error.__traceback__)) from None
    except (MemoryError, Failed):
        raise
    except Exception as error:  # noqa: BLE001  # whatever a template provokes is its own fault
        # The text may quote a value: only the kind of error is told.
        line = _line(error.__traceback__)
        raise Failed(f"{type(error).__name__} while rendering", line) from None


def _bounded(pieces: Iterator[str], bytes_max: int) -> Iterator[str]:
    left = bytes_max
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise Failed(f"the output is larger than {bytes_max} bytes", 0)
        yield piece


def _undefined(error: UndefinedError) -> str:
    text = str(error)
    named = text.endswith(" is undefined") or text.startswith("no ")
    return text[:100] if named else "something undefined was used"


def _line(trace: TracebackType | None) -> int:
    """Line of the template: Jinja has rewritten the traceback to its lines."""
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
