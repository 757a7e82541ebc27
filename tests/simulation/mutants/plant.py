"""What a mutant is: a known bug, planted by replacing a rule of the product at run time.

Each module ``mNN_*.py`` beside this one is one mutant of reliability.md section 4. It says which
bug it is in its docstring and has:

  * ``plant(patch)``: replaces functions or settings through ``patch``; nothing on disk changes.
  * ``SWARM``: parameters that the simulator must not draw, so that the bug has its chance.
  * ``HARNESS``: "node" (whole members, the default), "core" (the core alone, for what the product
    never asks the core to do) or "unit" (the test file ``TESTS``, for a wrong word that no order
    of messages turns into a broken promise; then there is no ``SWARM``).

A mutant is killed when a run of the harness fails, in any way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Patch:
    """Replaces attributes and items, for the life of the process."""

    def attribute(self, where: Any, name: str, what: Any) -> Any:
        """Replace; returns what stood there."""
        before = getattr(where, name)
        setattr(where, name, what)
        return before

    def hide(self, where: type, name: str, what: property) -> None:
        """Put a property before an attribute that instances have and the class does not."""
        setattr(where, name, what)

    def item(self, where: dict[Any, Any], key: Any, what: Any) -> Any:
        """As ``attribute``, of a dictionary."""
        before = where[key]
        where[key] = what
        return before

    def wrap(self, where: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace a function by what ``make`` makes of it."""
        setattr(where, name, make(getattr(where, name)))
