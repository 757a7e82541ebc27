"""What the history can say besides the errors of ``configsvc.errors``."""

from __future__ import annotations

from configsvc.errors import ConfigServiceError


class NotFlushedError(ConfigServiceError):
    """A read asks for more than SQL holds yet: wait for the writer, or add the unflushed tail."""

    def __init__(self, asked: int, visible: int) -> None:
        super().__init__(f"revision {asked} asked, history stands at {visible}")
        self.asked = asked
        self.visible = visible
