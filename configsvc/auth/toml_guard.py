"""What a TOML text may look like before the parser sees it (security.md POL-8).

``tomllib`` needs 13 s and 3.9 GB for one dotted key of 32 000 parts in 64 KiB. So size, line
length and dots are judged first, on the raw text, and multi-line strings, which no file of ours
needs, are refused so that this judgement can go line by line.
"""

from __future__ import annotations

import tomllib
from typing import Any

from configsvc.errors import PolicyInvalidError
from configsvc.limits import POLICY_BYTES_MAX, POLICY_KEY_DOTS_MAX, POLICY_LINE_BYTES_MAX


def parse_guarded(text: str, file: str) -> dict[str, Any]:
    """The document as ``tomllib`` gives it.

    Raises:
        PolicyInvalidError: over a cap, or not TOML; the text names ``file`` and line.
    """
    if len(text.encode(errors="replace")) > POLICY_BYTES_MAX:
        raise PolicyInvalidError(f"{file}: larger than {POLICY_BYTES_MAX} bytes")
    for number, line in enumerate(text.split("\n"), start=1):
        problem = _line_problem(line)
        if problem:
            raise PolicyInvalidError(f"{file}:{number}: {problem}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyInvalidError(f"{file}: {error}") from None
    except ValueError:  # a number with more digits than the interpreter converts
        raise PolicyInvalidError(f"{file}: a value cannot be read") from None
    except RecursionError:
        raise PolicyInvalidError(f"{file}: nested too deeply") from None


def _line_problem(line: str) -> str:
    if len(line.encode(errors="replace")) > POLICY_LINE_BYTES_MAX:
        return f"line longer than {POLICY_LINE_BYTES_MAX} bytes"
    if '"""' in line or "'''" in line:
        return "multi-line strings are not used here"
    dots = 0
    for char in _outside_strings(line):
        if char in "={},[]":
            dots = 0
        elif char == ".":
            dots += 1
            if dots > POLICY_KEY_DOTS_MAX:
                return f"more than {POLICY_KEY_DOTS_MAX} dots in a key"
    return ""


def _outside_strings(line: str) -> str:
    """``line`` without strings and comment. An unclosed string hides the rest: TOML refuses it."""
    kept = []
    quote = ""
    escaped = False
    for char in line:
        if quote:
            if escaped:
                escaped = False
            elif char == "\\" and quote == '"':
                escaped = True
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == "#":
            break
        else:
            kept.append(char)
    return "".join(kept)
