"""Data keys of segments and the key-encryption keys that wrap them (W2, ENC-4, ENC-5)."""

from __future__ import annotations

from collections.abc import Sequence

from configsvc.errors import ConfigError
from configsvc.storage.disk import Disk
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import (
    BLOCK,
    SegmentHeader,
    encode_segment_header,
    wrapping_context,
)
from configsvc.storage.wal.segments import read_header, segment_name


def with_key(header: SegmentHeader, key_file: KeyFile, key: bytes) -> SegmentHeader:
    """``header`` with the data key ``key`` wrapped under ``key_file``."""
    return header._replace(
        key_id=key_file.key_id.encode(),
        wrapped_key=key_file.wrap(key, wrapping_context(header)),
    )


def unwrap_key(header: SegmentHeader, keys: Sequence[KeyFile]) -> bytes:
    """The data key of a segment.

    Raises:
        ConfigError: exit 78; no key file of ``keys`` opens it. Never taken for damage (W2).
    """
    wanted = header.key_id.decode("ascii", "replace")
    for key_file in keys:
        if key_file.key_id != wanted:
            continue
        try:
            return key_file.unwrap(header.wrapped_key, wrapping_context(header))
        except SealBroken:
            break
    held = ", ".join(f"{key.path or 'key'} holds {key.key_id}" for key in keys)
    raise ConfigError(
        f"{segment_name(header.segment)} is sealed under key {wanted}; {held}",
        "bring that key file back, or name it with --encryption-key-file; nothing was touched",
    )


def rewrap(
    disk: Disk, numbers: Sequence[int], key_file: KeyFile, older_keys: Sequence[KeyFile]
) -> None:
    """Wrap the data keys of segments ``numbers`` under ``key_file``.

    The copies of a header are written one after the other, each synced: one of them is good at
    any time. Interrupted, it may be run again with the same keys; what seems done is written
    again, for after a failed sync pages may read well and be on no disk.
    """
    for number in numbers:
        header = read_header(disk, number, newest=number == numbers[-1])
        key = unwrap_key(header, (key_file, *older_keys))
        block = encode_segment_header(with_key(header, key_file, key))
        file = disk.open(segment_name(number))
        try:
            for offset in (0, BLOCK):
                file.pwrite(block, offset)
                file.sync()
        finally:
            file.close()
