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
OVERLOAD_PAUSE_S: Final = 1  # what a client that was refused for load is told to wait (O1)
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
WRITES_HELD_S_MAX: Final = 3.0  # while SQL or apply is behind; then OverloadedError (O2, Q5)
LOG_RETAINED_BYTES_MAX: Final = 256 * MIB

# --- write-ahead log (reliability.md 5.10) --------------------------------------------------------
WAL_SEGMENT_BYTES: Final = 16 * MIB  # zero-filled; one is always ready in advance
WAL_SEGMENT_BYTES_MIN: Final = 16 * KIB  # for tests
WAL_SEGMENT_BYTES_MAX: Final = 64 * MIB  # a larger file is refused unread
WAL_FRAME_BYTES_MAX: Final = 4 * MIB  # records in one frame; more are split, a longer one is alone
WAL_SUBMISSIONS_MAX: Final = 1_024  # waiting for the writer thread; the machine keeps one
WAL_JOBS_MAX: Final = 64  # compactions and the like; beyond, the newest waits for its next call
WAL_SEAL_IDLE_S: Final = 0.05  # after the last data frame (W6)
WAL_PREPARE_STEP_BYTES: Final = 1 * MIB  # of the next segment, between two frames
WAL_SPACE_RETRY_S: Final = 1.0  # after the next segment could not be made
WAL_DROPPED_KEPT: Final = 4  # copies of torn tails put aside; the oldest goes

# --- peer link (reliability.md 5.7) ---------------------------------------------------------------
PEER_FRAME_BYTES_MAX: Final = 8 * MIB
PEER_QUEUE_BYTES_MAX: Final = 8 * MIB

# --- history (reliability.md 5.11) ----------------------------------------------------------------
SQL_LAG_ENTRIES_MAX: Final = 5_000
SQL_LAG_BYTES_MAX: Final = 64 * MIB
SQL_BATCH_ENTRIES_MAX: Final = 768
SQL_BATCH_ENTRIES_MIN: Final = 512  # a smaller batch waits this long for company:
SQL_LINGER_S: Final = 0.1  # a transaction of one row costs as much CPU as one of sixty
SQL_LAG_S_MAX: Final = 1.0  # age of the oldest unwritten entry; beyond any of the three apply waits
SQL_CHECKPOINT_ENTRIES: Final = 20_000  # checkpoint after that many entries,
SQL_CHECKPOINT_BYTES: Final = 32 * MIB  # or that much payload,
SQL_CHECKPOINT_S: Final = 30.0  # or that long after the first write since the last one
SQL_FOLD_ROWS_MAX: Final = 32_768  # rows that the key index lacks; asking by key reads them once
SQL_FOLD_ROWS_MIN: Final = 8_192  # a fold of fewer is not due; of the revisions,
SQL_FOLD_SHARE: Final = 16  # such a part may be missing: a fold touches most pages of a large index
SQL_FOLD_SLICE_ROWS: Final = 65_536  # rows that are sorted at once when many are folded in
SQL_SIDE_LOG_BYTES_MAX: Final = 256 * MIB  # beyond, a checkpoint waits this long for readers:
SQL_READERS_WAIT_S: Final = 0.2
# A row of more than a quarter of a page takes a page of its own besides.
HISTORY_PAGE_BYTES: Final = 16 * KIB
HISTORY_CACHE_KIB: Final = 64 * KIB  # page cache of the writing connection
HISTORY_READER_CACHE_KIB: Final = 8 * KIB  # page cache of one reading connection
HISTORY_READERS_MAX: Final = 4  # reading connections kept; more are opened and closed again
HISTORY_EVENTS_BYTES_MAX: Final = 4 * MIB  # one page of events ends at the revision that passes it
HISTORY_LOG_ROWS_MAX: Final = 1_000  # rows of one page of a key's log, bytes as for events
HISTORY_PLAN_ROWS_MAX: Final = 20_000  # versions in a span counted before choosing how to scan
HISTORY_COPY_BYTES_MAX: Final = 256 * MIB  # of a copy held in memory; larger ones are streamed
HISTORY_TASKS_MAX: Final = 16  # waiting for the writer's thread; OverloadedError beyond
SEALED_PER_SEED_MAX: Final = 2**31  # then a new seed (ENC-4)
SEED_AGE_S_MAX: Final = 90 * 86_400
SEAL_BATCHES_CACHED: Final = 4_096  # batch id -> opener, dropped all at once beyond
TILES_CACHED: Final = 64  # 8 KiB each
TILE_ROOTS_CACHED: Final = 2_048  # 32 bytes each; a root asks for up to 255 of each level
INSTALL_CHUNK_BYTES_MAX: Final = 512 * KIB

# --- watches (reliability.md O4) ------------------------------------------------------------------
WATCHES_PER_CONNECTION_MAX: Final = 10_000
WATCHES_MAX: Final = 100_000
WATCH_CATCHUP_REVISIONS: Final = 1_000  # revisions in one catch-up message
FEED_PIECE_ROWS: Final = 2_000  # rows matched or encoded for watchers at a time
FEED_ROWS_MAX: Final = 400_000  # that wait to be told; beyond they are told without a pause

# --- auth and policy (security.md 3.5, 3.6 POL-8) -------------------------------------------------
USERS_MAX: Final = 100_000  # InvalidArgumentError beyond, as for the four below
ROLES_MAX: Final = 10_000
ROLES_PER_USER_MAX: Final = 128
PERMISSIONS_PER_ROLE_MAX: Final = 1_000
REVOCATIONS_MAX: Final = 200_000  # entries in force; those run out make room first
DENIALS_PER_PAGE_MAX: Final = 1_000  # of the deny-list in one answer
POLICY_BYTES_MAX: Final = 64 * KIB  # a bundle beyond any of these is refused before parsing
POLICY_LINE_BYTES_MAX: Final = 4 * KIB
POLICY_KEY_DOTS_MAX: Final = 8
POLICY_RULES_MAX: Final = 500
FACT_VALUE_BYTES_MAX: Final = 64 * KIB  # longer values have no known format
POLICY_TESTS_MAX: Final = 1_000
POLICY_OPERANDS_MAX: Final = 256
POLICY_GLOB_SEGMENTS_MAX: Final = 32
POLICY_COMPILED_BYTES_MAX: Final = 1 * MIB
DECISION_VIEWS_MAX: Final = 10_000  # cached per principal and source; all are dropped beyond

# --- http2 (security.md LIM-4, 6, 7, 8, 17) -------------------------------------------------------
HTTP2_FRAME_BYTES_MAX: Final = 16 * KIB  # both directions; FRAME_SIZE_ERROR beyond
HTTP2_STREAMS_MAX: Final = 1_000  # per connection; REFUSED_STREAM beyond
HTTP2_STREAM_WINDOW_BYTES: Final = 65_535  # the RFC's default; widened for a larger message
HTTP2_CONNECTION_WINDOW_BYTES: Final = 16 * MIB  # given back on receipt
HTTP2_RESETS_REMEMBERED_MAX: Final = 2_000  # streams we reset, whose late frames are forgiven
HEADER_BLOCK_BYTES_MAX: Final = 16 * KIB  # with all CONTINUATIONs; the connection ends beyond
HEADER_LIST_BYTES_MAX: Final = 8 * KIB  # decoded, 32 bytes extra per field; likewise
HEADER_FIELDS_MAX: Final = 64  # likewise
HEADER_CACHE_ENTRIES_MAX: Final = 64  # decoded blocks per connection; emptied when full
HEADER_CACHE_BLOCK_BYTES_MAX: Final = 2 * KIB  # longer blocks are decoded every time
CHECKED_FIELDS_MAX: Final = 128  # header fields per connection known to be good; emptied when full
CHECKED_VALUE_BYTES_MAX: Final = 256  # longer values are checked every time
FRAME_BUDGET_BURST: Final = 1_000  # frames that carry no request; ENHANCE_YOUR_CALM beyond
FRAME_BUDGET_PER_S: Final = 100
WINDOW_CREDIT_MAX: Final = 100_000  # WINDOW_UPDATE frames earned by what we sent
PING_INTERVAL_MIN_S: Final = 5.0  # etcd's minimum
PING_IDLE_INTERVAL_MIN_S: Final = 7_200.0  # without an open stream
PING_STRIKES_MAX: Final = 2  # the next one earns GOAWAY too_many_pings
GRPC_TIMEOUT_DIGITS_MAX: Final = 8  # of the gRPC protocol
GRPC_MESSAGE_CHARS_MAX: Final = 1_024  # of a status text; cut beyond

# --- what a connection may hold (security.md LIM-18) ----------------------------------------------
OUTPUT_PASS_BYTES_MAX: Final = 256 * KIB  # framed for one socket write; the rest waits unframed
STREAM_OUT_BYTES_SOFT: Final = 1 * MIB  # a sink answers False above it
STREAM_OUT_BYTES_HARD: Final = 4 * MIB  # the stream ends with RESOURCE_EXHAUSTED above it
CONNECTION_OUT_BYTES_MAX: Final = 16 * MIB  # whole requests wait unanswered above it
MEMBER_OUT_BYTES_MAX: Final = 1024 * MIB  # unread answers; who holds most is closed beyond
CONNECTION_IN_BYTES_MAX: Final = 4 * MIB  # incomplete messages; youngest is refused beyond
CONNECTION_RESERVED_BYTES_MAX: Final = 2 * MIB  # of it for large messages; one always gets in
IDENTITY_IN_BYTES_MAX: Final = 64 * MIB  # likewise, of one identity: others have room beside it
MEMBER_IN_BYTES_MAX: Final = 256 * MIB  # likewise, over all connections

# --- client ---------------------------------------------------------------------------------------
CLIENT_TIMEOUT_S: Final = 5.0  # per call, all attempts together
CLIENT_ATTEMPT_MIN_S: Final = 0.001  # a spent deadline still makes a legal one
CLIENT_CONNECT_TIMEOUT_S: Final = 2.0  # TCP and TLS of one endpoint; then the next one's turn
CLIENT_BACKOFF_MIN_S: Final = 0.05
CLIENT_BACKOFF_MAX_S: Final = 2.0
CLIENT_UNREACHABLE_ROUNDS_MAX: Final = 3  # rounds over all endpoints without any connection
CLIENT_KEEPALIVE_S: Final = 30.0  # HTTP/2 ping while a call is open
CLIENT_KEEPALIVE_TIMEOUT_S: Final = 10.0  # a ping unanswered that long ends the connection
CLIENT_DRAIN_S: Final = 30.0  # calls on a channel that was replaced may go on that long
CLIENT_MESSAGE_BYTES_MAX: Final = 2**31 - 1  # answers are unbounded in etcd's API
CLIENT_TOKEN_BYTES_MAX: Final = 8 * KIB
CLIENT_SECRET_BYTES_MAX: Final = 4 * KIB  # password or token read from a file

# --- key space, leases, state machine -------------------------------------------------------------
TAIL_ROWS_MAX: Final = 20_000  # superseded rows kept in memory beyond what SQL lacks; then trimmed
TAIL_BYTES_MAX: Final = 64 * MIB  # likewise
QUOTA_BYTES_DEFAULT: Final = 2 * 1024 * MIB  # --quota-backend-bytes 0; negative is off
PREFIX_LENGTHS_MAX: Final = 32  # distinct prefix lengths indexed by hash; others go to the tree
LEASES_PER_IDENTITY_MAX: Final = 10_000  # RequestTooManyRequestsError beyond (LIM-14)
LEASE_CHECKPOINT_TTL_MIN_S: Final = 30  # shorter leases are not checkpointed (X3)
LEASE_CHECKPOINT_S: Final = 15  # between two checkpoints of one lease (X3)
LEASE_EXPIRY_RETRY_S: Final = 1  # an expiry whose entry got lost is proposed again
SIGNING_KEYS_MAX: Final = 1_024  # public keys of members, retired ones included
SIGNATURES_PER_MEMBER_MAX: Final = 16  # newest checkpoint signatures kept of each member
LEARNERS_MAX: Final = 1
URLS_PER_MEMBER_MAX: Final = 16
URL_CHARS_MAX: Final = 512
SNAPSHOTS_MAX: Final = 2  # copies of the store on their way to clients; OverloadedError beyond
RANGES_IN_PIECES_MAX: Final = 4  # large ranges whose answers are being made; the others wait
RANGES_WAITING_MAX: Final = 1_000  # OverloadedError beyond
# One slice of a large range, then everybody else's turn. A longer answer is not made in one go.
RANGE_PIECE_KEYS: Final = 250  # keys looked up and encoded
RANGE_PIECE_BYTES: Final = 256 * KIB  # encoded, and one key more
JSON_PIECE_VALUES: Final = 64  # of a list, written as JSON
RANGE_PIECE_ROWS: Final = 1_000  # changes since its revision that are undone
SLICE_REST_S: Final = 0.002  # after each slice of long work while a write waits
# How long a thread waits for the interpreter before it asks for it: threads in SQLite must not hold
# up the loop, and a loop that works slice by slice must not hold up the log's thread.
SWITCH_INTERVAL_S: Final = 0.001
SWITCH_INTERVAL_LONG_WORK_S: Final = 0.000_03
APPLY_PIECE_ROWS: Final = 2_000  # an entry that changes more is applied piece by piece
# Committed entries that wait for such an entry, or for the history; then the log waits, too. A
# leader stops taking writes before (APPLY_LAG_ENTRIES_MAX, APPLY_LAG_BYTES_MAX), so that it goes on
# being heard.
APPLY_WAITING_ENTRIES_MAX: Final = 8_192
APPLY_WAITING_BYTES_MAX: Final = 256 * MIB

# --- audit (security.md 3.8) ----------------------------------------------------------------------
LEAF_BYTES_MAX: Final = 8 * KIB  # an invariant of ours: every field is bounded before
LEAF_KEY_BYTES_MAX: Final = 1 * KIB  # longer keys enter as length and digest
LEAF_TEXT_BYTES_MAX: Final = 512  # longer texts are cut at a character
LEAF_AUTHORS_CACHED_MAX: Final = 1_024  # encoded parts of leaves; all are dropped beyond
ACTORS_KNOWN_MAX: Final = 10_000  # the one first seen longest ago is forgotten, met again is new
AUDIT_LEVEL_BYTES_MAX: Final = 16 * KIB  # policies/audit.toml: refused beyond
AUDIT_LEVEL_LINE_BYTES_MAX: Final = 512  # so that a dotted key cannot be long enough to hurt
AUDIT_LEVEL_RULES_MAX: Final = 100
CHECKPOINT_BYTES_MAX: Final = 64 * KIB  # a longer note is refused unread
CHECKPOINT_SIGNATURES_MAX: Final = 64

# --- frontend (security.md LIM-1, 2, 3, 5, 15, 18; GW-5) ------------------------------------------
REFUSAL_LOG_SECONDS: Final = 10.0  # one log line per kind of refused peers and interval
HANDSHAKE_SECONDS_MAX: Final = 5.0  # TLS; closed beyond
OPENING_SECONDS_MAX: Final = 5.0  # HTTP/2 preface and SETTINGS, or an HTTP/1.1 header; likewise
TLS_SHUTDOWN_SECONDS_MAX: Final = 0.5
CONNECTIONS_MAX: Final = 20_000  # per listener; the oldest unfinished one is closed beyond
CONNECTIONS_PER_IDENTITY_MAX: Final = 2_000  # closed beyond
HANDSHAKES_PER_ADDRESS_MAX: Final = 200  # the oldest of the address is closed beyond
UNARY_IN_FLIGHT_MAX: Final = 20_000  # RESOURCE_EXHAUSTED beyond
UNARY_PER_IDENTITY_MAX: Final = 4_000  # likewise
STREAMS_MAX: Final = 100_000  # gRPC streams that run, whatever they watch; likewise
STREAMS_PER_IDENTITY_MAX: Final = 20_000  # likewise
REFUSALS_PER_CONNECTION_MAX: Final = 3  # calls with an unacceptable certificate, then closed
SLOW_READER_SECONDS_MAX: Final = 30.0  # with output waiting and less than the next line taken
SLOW_READER_BYTES_MIN: Final = 16 * KIB
SLOW_WRITER_SECONDS_MAX: Final = 30.0  # with a request begun and less than the next line of it sent
SLOW_WRITER_BYTES_MIN: Final = 16 * KIB
ACCEPTS_PER_PASS_MAX: Final = 16  # a handshake costs 0.4 ms: after a restart others come in between
ACCEPT_PAUSE_S: Final = 0.1  # after the process ran out of descriptors
DEAD_PEER_SECONDS_MAX: Final = 60  # unacknowledged bytes, or silence before the kernel probes
WRITE_BUFFER_BYTES_HIGH: Final = 256 * KIB  # in the transport; beyond it the connection pauses
HTTP_BODY_BYTES_MAX: Final = MESSAGE_BYTES_MAX  # 413 beyond
HTTP_HEADER_BYTES_MAX: Final = 16 * KIB  # of HTTP/1.1; 431 beyond
DRAIN_NOTICE_S: Final = 0.2  # for peers to hear that we leave, before we stop to accept streams
CONNECTION_IDLE_S_MAX: Final = 900.0  # without a call or an open stream; a graceful end beyond
CONNECTION_AGE_S_MAX: Final = 1_800.0  # likewise; streams that are open then run on
CONNECTION_AGE_JITTER: Final = 0.1  # how far off each connection's own age may be, a fraction
CONNECTION_AGE_SLOT_S: Final = 5.0  # connections whose end comes within it are looked at together

# --- identity (security.md 3.2-3.4) ---------------------------------------------------------------
IDENTITY_URI_CHARS_MAX: Final = 255  # longer ones are refused unread, as for the three below
LEAF_DER_BYTES_MAX: Final = 8 * KIB
CSR_BYTES_MAX: Final = 8 * KIB
TRUST_BUNDLE_BYTES_MAX: Final = 64 * KIB
TRUST_BUNDLE_CERTIFICATES_MAX: Final = 8  # old and new CA while one is rotated, and some room
LEAF_HOSTS_MAX: Final = 32  # DNS and IP names of one leaf
TOKEN_BYTES_MAX: Final = 4_096  # judged before any decoding
TOKEN_TTL_S_MAX: Final = 3_600
TOKEN_LEEWAY_S: Final = 5
SIMPLE_TOKENS_MAX: Final = 10_000  # of etcd's kind a member remembers; least recently used go first
PASSWORD_BYTES_MIN: Final = 12
PASSWORD_BYTES_MAX: Final = 1_024
PASSWORD_THREADS_MAX: Final = 2  # about 19 MiB and 45 ms of a core each
PASSWORD_QUEUE_MAX: Final = 16  # PoolFull beyond
ARGON2_MEMORY_KIB_MAX: Final = 256 * KIB  # a stored string that asks for more is not computed
ARGON2_ROUNDS_MAX: Final = 10
ARGON2_LANES_MAX: Final = 4

# --- net ------------------------------------------------------------------------------------------
TLS_FILE_BYTES_MAX: Final = 64 * KIB  # certificate or key; refused beyond
CRL_BYTES_MAX: Final = 16 * MIB
TLS_SILENT_RECORDS_MAX: Final = 256  # without data, of a connection, ever; closed beyond
TLS_RECORDS_PER_STEP_MAX: Final = 256  # decrypted before the line above is looked at

# --- transport ------------------------------------------------------------------------------------
PEER_HELLO_BYTES_MAX: Final = 4 * KIB  # any frame before the handshake is done; closed beyond
PEER_CONTROL_QUEUE_BYTES_MAX: Final = 1 * MIB  # votes and heartbeats; dropped beyond
PEER_WRITE_BYTES_HIGH: Final = 1 * MIB  # in the socket's buffer; beyond it messages stay queued
PEER_PASS_BYTES_MAX: Final = 1 * MIB  # in one write; a longer message goes alone
PEER_MESSAGES_MAX: Final = 65_536  # in one frame; malformed beyond
PEER_CONTEXT_BYTES_MAX: Final = 4 * KIB  # of one message; malformed beyond
PEER_SNAPSHOT_NOTE_BYTES_MAX: Final = 64 * KIB  # a snapshot's name, not its bytes
PEER_CONNECTIONS_MAX: Final = 256  # accepted; the oldest unfinished one is closed beyond
PEER_DIAL_SECONDS_MAX: Final = 2.0  # TCP; TLS and hello have HANDSHAKE_SECONDS_MAX
PEER_BACKOFF_MIN_S: Final = 0.05
PEER_BACKOFF_MAX_S: Final = 1.0
PEER_PING_S: Final = 1.0  # the dialer asks this often whether the other end still lives
PEER_TERM_LEAP_MAX: Final = 2**32  # a message further ahead is absurd: dropped and counted
PEER_INDEX_MAX: Final = 2**62  # likewise
PEER_SILENCE_S: Final = 5.0  # nothing heard although we asked: closed
PEER_PROGRESS_S: Final = 1.0  # bytes wait and none leaves: closed
PEER_MISBEHAVED_MAX: Final = 3  # malformed frames of one peer, then it is reported

# --- runtime: what is held between the core and the link ------------------------------------------
COMMIT_NEWS_HOLD_S: Final = 0.001  # an append that tells a commit index only waits for another one

# --- runtime: stored data read again (W10) --------------------------------------------------------
SCRUB_FIRST_S: Final = 3_600.0  # after a start, and up to as much again
SCRUB_EVERY_S: Final = 86_400.0  # between the end of a pass and the next one
SCRUB_PAGE_REVISIONS: Final = 128  # of history, opened at a time

# --- member-local audit stream (security.md AUD-5, AUD-6, LIM-9) ----------------------------------
ANCHOR_RECORDS: Final = 256  # new local records after which their head is anchored
ANCHOR_INTERVAL_NS: Final = 10_000_000_000  # or this long after the first of them
REPEAT_WINDOW_NS: Final = 60_000_000_000
REPEATS_SINGLE_MAX: Final = 100  # equal refusals of one window with a record each; then a count
REPEAT_KINDS_MAX: Final = 10_000  # kinds of refusal counted at once; beyond, each gets its record
LOCAL_QUEUE_RECORDS_MAX: Final = 10_000  # not yet on disk; AuditUnavailableError beyond
LOCAL_GROUP_RECORDS_MAX: Final = 1_000  # in one transaction
LOCAL_RETRY_S: Final = 0.5  # a group that could not be written is tried again after this long
LOCAL_CLOSE_S: Final = 0.4  # for the last records when a member stops
ANCHOR_RETRY_S: Final = 5.0  # an anchor that was not applied is proposed again after this long
CLOCK_STEP_NS: Final = 1_000_000_000  # a larger jump of the wall clock is recorded (TIME-3)

# --- checkpoints of stream M (security.md TE-2, TE-3) ---------------------------------------------
CHECKPOINT_LEAVES: Final = 256  # new leaves after which a head is signed
CHECKPOINT_INTERVAL_S: Final = 10.0  # or this long after the first of them
CHECKPOINT_GAP_S: Final = 1.0  # between two heads that one leader proposes, however busy it is
CHECKPOINT_WAIT_S: Final = 2.0  # for the others' signatures when a signed head is asked for
CHECKPOINT_STOP_S: Final = 0.2  # for the last signature when a member stops

# --- fleet (agent.md 8.2) -------------------------------------------------------------------------
FLEET_NODES_MAX: Final = 20_000  # per member; the node heard from longest ago goes first
FLEET_SETS_MAX: Final = 256  # of one report; refused beyond
FLEET_FILES_MAX: Final = 200  # per-file details kept of one node
FLEET_REASON_CHARS_MAX: Final = 1_024
FLEET_DIGEST_CHARS_MAX: Final = 128  # of a root or a trust bundle; cut beyond

# --- agent (agent.md I9, C3, C9, E5) --------------------------------------------------------------
AGENT_CONFIG_BYTES_MAX: Final = 1 * MIB  # refused unread
AGENT_VALUE_BYTES_MAX: Final = 1 * MIB  # of one key; the set is held beyond, as for the three below
AGENT_SET_BYTES_MAX: Final = 8 * MIB  # keys and values of one set
AGENT_KEYS_MAX: Final = 10_000  # of one set
AGENT_FILES_MAX: Final = 1_000  # of one set; a configuration error beyond
AGENT_PAGE_KEYS: Final = 1_000  # of one Range while a snapshot is read
AGENT_OUTPUT_BYTES_MAX: Final = 1 * MIB  # of one rendered file (guard's max_bytes)
AGENT_OUTPUT_BYTES_LIMIT: Final = 8 * MIB  # what max_bytes may be raised to; rendering stops there
AGENT_TEMPLATE_BYTES_MAX: Final = 256 * KIB
AGENT_FRAME_BYTES_MAX: Final = 64 * MIB  # one message to or from a worker; it is ended beyond
AGENT_RENDER_SECONDS_MAX: Final = 2.0  # wall and CPU time of one file
AGENT_RENDER_MEMORY_BYTES: Final = 256 * MIB  # address space of the render worker
AGENT_RENDER_JOBS_MAX: Final = 5_000  # then a new worker: its CPU limit counts for ever
AGENT_COMMAND_OUTPUT_BYTES_MAX: Final = 64 * KIB  # kept of a command; the rest is read and dropped
AGENT_COMMAND_KILL_S: Final = 2.0  # between TERM and KILL of its process group
AGENT_REASON_CHARS_MAX: Final = 1_024
AGENT_RETRY_S_MIN: Final = 1.0
AGENT_RETRY_S_MAX: Final = 300.0
AGENT_DRIFT_FIGHTS_MAX: Final = 3  # repairs within the window below, then "contended"
AGENT_DRIFT_FIGHT_WINDOW_S: Final = 300.0
AGENT_DRIFT_COPIES_MAX: Final = 8  # copies kept of what a repair replaced; the oldest goes
AGENT_DRIFT_COPY_BYTES_MAX: Final = 256 * KIB  # of one such copy; cut beyond
AGENT_SOCKET_BYTES_MAX: Final = 64 * KIB  # one request on the local socket
AGENT_SOCKET_CLIENTS_MAX: Final = 16
AGENT_FILES_OPEN_MAX: Final = 128  # written and not yet synced, at once
AGENT_FOLDERS_OPEN_MAX: Final = 64  # while files are staged in them
AGENT_SEEN_FILES_MAX: Final = 4_096  # whose stat the writer remembers; all forgotten beyond
AGENT_STOP_S: Final = 4.0  # to finish or leave a step after SIGTERM
AGENT_GENERATION_BYTES_MAX: Final = 64 * MIB  # one stored generation; refused unread beyond

# --- callers that are not known yet ---------------------------------------------------------------
LATE_STREAM_BYTES_MAX: Final = 1 * MIB  # sent to a stream whose token names an index to come

# --- lock, election -------------------------------------------------------------------------------
SELF_WATCH_MESSAGES_MAX: Final = 16  # kept of one internal watch; then it is fed from history later

# --- gateway (security.md GW-5) -------------------------------------------------------------------
JSON_DEPTH_MAX: Final = 64  # InvalidArgumentError beyond, as for the next
JSON_CONTAINERS_MAX: Final = 10_000  # objects and arrays in one body
QUERY_FIELDS_MAX: Final = 32  # in the query of a health path; 400 beyond

# --- installs, joining, disk health (reliability.md 5.8 S1-S3, 5.3 D1, 5.15 O7) -------------------
INSTALL_CHUNKS_IN_FLIGHT_MAX: Final = 4  # the next one is read when an earlier one was taken
INSTALL_SILENCE_S: Final = 30.0  # without an answer of the receiver: failed
INSTALL_ALIVE_S: Final = 1.0  # a receiver that checks and loads says so this often
INSTALL_HOLD_S: Final = 60.0  # log kept for a member that was installed and is not heard yet
INSTALL_PAUSE_S_MIN: Final = 1.0  # after a failed install of a member; doubles with each
INSTALL_PAUSE_S_MAX: Final = 30.0
INSTALL_SLICE_S: Final = 0.000_3  # CPU: the reading thread works so much at a time, then it rests
INSTALL_SHARE_BUSY: Final = 0.1  # of a core that it takes while there are writes, and at first
INSTALL_SHARE_MIN: Final = 0.05  # while they suffer: every install ends
INSTALL_SHARE_MAX: Final = 0.5  # while nobody writes
INSTALL_LOG_CALM_BYTES: Final = 96 * MIB  # of log kept: beyond, it works more the more there is,
INSTALL_LOG_URGENT_BYTES: Final = 192 * MIB  # and beyond this all the time
INSTALL_REST_S_MAX: Final = 0.1  # behind one slice, however long that was: a transaction is open
INSTALL_LAST_S: Final = 30.0  # the last transaction is read without rests from then on; 60 (S2)
INSTALL_FOLD_ROWS: Final = 131_072  # that a receiver sorts at once: 20 MiB and the keys
INSTALL_LOOK_S: Final = 1.0  # between two looks at what writes suffer
INSTALL_SUFFER_MAX: Final = 1.25  # times the quiet mean of syncs and lateness, and beside that
INSTALL_SUFFER_S: Final = 0.000_1  # so much: writes suffer beyond
JOIN_FRAME_BYTES_MAX: Final = 4 * KIB  # question or answer of a member that joins
JOIN_SECONDS_MAX: Final = 60.0  # for one of the named members to answer; exit beyond
JOIN_RETRY_S: Final = 0.5
DISK_RESERVE_BYTES: Final = 64 * MIB  # of SQL, beside two segments of log; NOSPACE below
DISK_LOOK_S: Final = 1.0  # between two looks at free space
HAND_OVER_EVERY_TIMEOUTS: Final = 10  # a slow disk hands over at most once in so many timeouts (E3)
DISK_SLOW_S: Final = 0.25  # a sync that takes longer makes a disk slow

# --- configctl migrate ----------------------------------------------------------------------------
MIGRATE_PAGE_KEYS_MAX: Final = 1_000  # one read; shrinks so that a page stays near the bytes below
MIGRATE_PAGE_BYTES: Final = 4 * MIB
MIGRATE_BATCH_OPS_MAX: Final = 100  # one transaction, below etcd's and our own 128
MIGRATE_BATCH_BYTES_MAX: Final = 512 * KIB  # a larger value goes alone
MIGRATE_SHOWN_MAX: Final = 10  # keys named in a plan or a difference
MIGRATE_PREFIXES_MAX: Final = 10_000  # groups of `verify`; beyond, a smaller --depth
MIGRATE_RIVAL_TRIES_MAX: Final = 5  # a key that somebody else keeps changing meanwhile
