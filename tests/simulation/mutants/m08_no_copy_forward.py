"""#8 A start goes on in the old segment: pages that read well after a failed sync are on no disk."""

from __future__ import annotations

from typing import Any

from configsvc.storage.wal.current import CurrentSegment, SegmentMaker
from configsvc.storage.wal.format import FrameEncoder
from configsvc.storage.wal.keys import unwrap_key
from configsvc.storage.wal.recovery import max_index
from configsvc.storage.wal.segments import segment_name
from tests.simulation.mutants.plant import Patch

SWARM = {"failed_syncs": 0.6, "power": 0.3, "restart_all": 0.1, "broken_rest": False}


def plant(patch: Patch) -> None:
    from configsvc.storage.seal.frames import FrameSealer

    def reuse(self: SegmentMaker, newest: Any, hard_state: Any) -> CurrentSegment:
        header = newest.header
        key = unwrap_key(header, [self.key_file])
        encoder = FrameEncoder(FrameSealer(key), header.salt, newest.last_frame, newest.last_crc)
        file = self._disk.open(segment_name(header.segment))
        current = CurrentSegment(file, header, encoder, newest.tail.offset)
        current.max_index = max_index(newest)
        return current

    patch.attribute(SegmentMaker, "replace", reuse)
