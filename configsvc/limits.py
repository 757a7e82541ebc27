"""Every bound, named. What happens at a bound is said beside it.

Bytes unless the name says otherwise. Rooms import from here and define no bounds of their own;
add yours in the section of your room.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- requests (security.md 3.12; wire/behaviour.md X1) --------------------------------------------
REQUEST_BYTES_MAX: Final = 1_572_864  # encoded operation; RequestTooLargeError beyond
MESSAGE_BYTES_MAX: Final = REQUEST_BYTES_MAX + 512 * KIB  # one gRPC message in
KEY_BYTES_MAX: Final = 2 * KIB
TXN_OPS_MAX: Final = 128
TXN_DEPTH_MAX: Final = 4
LEASE_TTL_MAX_S: Final = 9_000_000_000
LEASE_TTL_MIN_S: Final = 2
REASON_CHARS_MAX: Final = 256
NAME_CHARS_MAX: Final = 63

# --- raft (reliability.md 5.6) --------------------------------------------------------------------
INFLIGHT_MESSAGES_MAX: Final = 128
INFLIGHT_BYTES_MAX: Final = 8 * MIB
APPEND_BYTES_MAX: Final = 1 * MIB
UNCOMMITTED_BYTES_MAX: Final = 64 * MIB
APPLY_LAG_ENTRIES_MAX: Final = 5_000
APPLY_LAG_BYTES_MAX: Final = 64 * MIB
READY_ENTRIES_MAX: Final = 512
PENDING_READS_MAX: Final = 10_000
PROPOSALS_WAITING_MAX: Final = 20_000
PROPOSALS_WAITING_BYTES_MAX: Final = 64 * MIB
LOG_RETAINED_BYTES_MAX: Final = 256 * MIB

# --- peer link (reliability.md 5.7) ---------------------------------------------------------------
PEER_FRAME_BYTES_MAX: Final = 8 * MIB
PEER_QUEUE_BYTES_MAX: Final = 8 * MIB

# --- history (reliability.md 5.11) ----------------------------------------------------------------
SQL_LAG_ENTRIES_MAX: Final = 5_000
SQL_LAG_BYTES_MAX: Final = 64 * MIB
SQL_BATCH_ENTRIES_MAX: Final = 256

# --- watches (reliability.md O4) ------------------------------------------------------------------
WATCH_BUFFER_EVENTS_MAX: Final = 1_000
WATCH_BUFFER_BYTES_MAX: Final = 1 * MIB
WATCHES_PER_CONNECTION_MAX: Final = 10_000
WATCHES_MAX: Final = 100_000
WATCH_CATCHUP_REVISIONS: Final = 1_000  # revisions in one catch-up message
