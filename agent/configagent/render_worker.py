"""The render worker: one process that turns templates into text and can do nothing else.

Everything it will ever need is imported before ``confine_renderer``; from then on it has its two
pipes. A job that takes too much ends the process, and the agent starts another.
"""

from __future__ import annotations

import codecs
import gc
from typing import Any, Final

import jinja2.debug

from configagent import confine, frames
from configagent.formats import FormatError, check_format
from configagent.sandbox import Failed, Job, PlainEnvironment, render
from configagent.words import Words
from configsvc import limits

_PRELOADED: Final = (
    jinja2.debug,  # imported by jinja at the first error
    *(codecs.lookup(n) for n in ("unicode_escape", "ascii", "latin_1", "utf_8", "charmap")),
)
_WARM: Final = """{% macro m(x) %}{{ x }}{% endmacro %}{{ m("w\\n" | multiline) }}
{%- for x in [{"a": 1}] %}{{ loop.index }}{{ x.a | tojson }}{% endfor %}{{ getv("/none") }}"""


class Worker:
    """Answers jobs. Holds the keys of one set at a time, the one that it rendered last."""

    def __init__(self) -> None:
        self._environment = PlainEnvironment()
        self._held: tuple[str, int] = ("", 0)
        self._keys: dict[str, bytes] = {}

    def _keys_of(self, request: dict[str, Any]) -> dict[str, bytes] | None:
        """The keys that a job is about; None: it names a difference to what is not held here."""
        held = request.get("held")
        if held is None:
            keys: dict[str, bytes] = request["keys"]
            return keys
        if held["base"] and self._held != (held["set"], held["base"]):
            return None
        keys, self._held = self._keys if held["base"] else {}, ("", 0)
        keys.update(held["put"])
        for name in held["gone"]:
            keys.pop(name, None)
        if len(keys) != held["count"]:
            return None
        self._keys, self._held = keys, (held["set"], held["number"])
        return keys

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """One job; the answer has "text", or "error" and "line"."""
        if request["op"] == "ping":
            return {"level": request.get("level", [])}
        if request["op"] == "check":
            return _check(request["format"], request["content"])
        confine.allow_seconds(limits.AGENT_RENDER_SECONDS_MAX)
        keys = self._keys_of(request)
        if keys is None:
            return {"stale": True}
        words = Words(keys, request["scope"], request["set"])
        words.content_revision = request["revision"]
        words.environment = request["env"]
        job = Job(request["source"], words, request["node"], request["set"], request["bytes_max"])
        answer: dict[str, Any]
        try:
            text = render(self._environment, job)
            if len(text.encode()) > job.bytes_max:
                raise Failed(f"the output is larger than {job.bytes_max} bytes", 0)
            check_format(request["format"], text)
            answer = {"text": text}
        except FormatError as error:
            answer = {"error": str(error), "line": 0}
        except Failed as error:
            answer = {"error": str(error), "line": error.line, "missing": error.missing}
        except UnicodeEncodeError:
            answer = {"error": "the output is not UTF-8 text", "line": 0}
        except MemoryError:
            answer = {"error": "the template needs more memory than allowed", "line": 0}
            gc.collect()
        except RecursionError:
            answer = {"error": "the template nests too deeply", "line": 0}
        reads = words.reads
        answer |= {
            "keys": sorted(reads.keys),
            "spans": sorted(reads.spans),
            "secret": reads.secret,
            "used_revision": reads.revision,
        }
        return answer


def _check(name: str, content: bytes) -> dict[str, Any]:
    """Whether a value that becomes a file as it is has the promised format."""
    confine.allow_seconds(limits.AGENT_RENDER_SECONDS_MAX)
    try:
        check_format(name, content.decode())
    except FormatError as error:
        return {"error": str(error)}
    except UnicodeDecodeError:
        return {"error": f"{name}: not UTF-8 text"}
    except (MemoryError, RecursionError):
        return {"error": f"{name}: nests too deeply or is too large"}
    return {}


def main() -> None:
    """Confine this process, then serve."""
    worker = Worker()
    warm = {"op": "render", "keys": {}, "scope": [], "set": "w", "revision": 0, "env": {},
            "source": _WARM, "node": {}, "bytes_max": 99, "format": ""}  # fmt: skip
    worker.handle(warm)
    level = confine.confine_renderer()

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        return worker.handle(request | {"level": list(level)})

    frames.serve(handle)


if __name__ == "__main__":
    main()
