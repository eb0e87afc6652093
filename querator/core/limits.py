"""Every bound of Querator, with the reason for the number.

Every one is enforced where it is imported (tests/test_limits.py); the tests that stand at a bound name it."""

from typing import Final

from querator.core.ids import DAY, HOUR, MINUTE, SECOND, Duration, Instant

# --- Items and requests -----------------------------------------------------------------------
PAYLOAD_BYTES_MAX: Final = 262_144
"""One item's payload on the WebSocket door; larger things belong in an object store."""
BATCH_ITEMS_MAX: Final = 1_000
"""Items of a session's produce or reserve, ranges of its settlement: nothing is gained past it."""
REQUEST_ITEMS_MAX: Final = 100_000
"""Items of one produce or reserve by whatever door: HTTP's own bound is the operator's to set, up to here."""
IMPORT_ITEMS_MAX: Final = 100_000
"""Items of one import; the body's size is the tighter bound (CONTRACT.md 2.7)."""
RESERVATION_BYTES_MAX: Final = 2_097_152
"""Payload bytes of a session's reservation (but one item always goes): half a WebSocket message."""
LEASE_BYTES_MAX: Final = 67_108_864
"""The same of an HTTP lease, which gives what was asked for and is there: all that one import brings."""
QUEUE_NAME_BYTES_MAX: Final = 512
"""CONTRACT.md 2.7."""
KEY_BYTES_MAX: Final = 512
DEDUPE_KEY_BYTES_MAX: Final = 128
KIND_BYTES_MAX: Final = 256
ENCODING_BYTES_MAX: Final = 256
REFERENCE_BYTES_MAX: Final = 2_000
HEADERS_MAX: Final = 64
HEADERS_BYTES_MAX: Final = 8_192
"""All names and values of one item's headers together."""
REASON_BYTES_MAX: Final = 1_024
CLIENT_NAME_BYTES_MAX: Final = 256
PRODUCER_NAME_BYTES_MAX: Final = 128
ATTEMPTS_MAX_MAX: Final = 65_536
"""CONTRACT.md 2.7."""
RESERVATION_TIMEOUT_MAX: Final = Duration(7 * DAY)
RESERVATION_TIMEOUT_MIN: Final = Duration(100_000)
RESERVATION_END_LAG: Final = Duration(50_000)
"""A node ends a reservation so long past its deadline: its holder counts from when it was told, which is a
commit and a journey later, and may settle up to its own end of it (CONTRACT.md 4.16 allows 100 ms)."""
RESERVE_WAIT_MAX: Final = Duration(15 * MINUTE)

# --- One partition ----------------------------------------------------------------------------
SEGMENT_ITEMS: Final = 1_024
"""Items of one segment of a partition's memory; a power of two (PERFORMANCE.md D4)."""
TURN_DUE_ITEMS_MAX: Final = 4_096
"""Items that become due, expire or end in one turn; the rest wait for the next (DESIGN: decision 3)."""
PENDING_BYTES_MAX: Final = 8_388_608
"""Events and payloads gathered in a pending record before the partition answers ``overloaded``."""
PENDING_COMMANDS_MAX: Final = 65_536
"""Commands decided and not yet committed, per partition."""
PRODUCERS_MAX: Final = 10_000
PRODUCER_RESULTS_MAX: Final = 128
"""Remembered results per idempotent producer: its window of unanswered requests is smaller."""
PRODUCER_RETENTION: Final = DAY
DEDUPE_KEYS_MAX: Final = 1_000_000
DEDUPE_TAKEN_OUT_MAX: Final = 8_192
"""Forgotten keys that are taken out of memory each time that keys are remembered: several times as many."""
SETTLED_RESERVATIONS_MAX: Final = 1_048_576
"""Reservations whose settlement is remembered, for repeats; a byte each."""
MILESTONES_MAX: Final = 65_536
"""Of a partition: where in the log older settlements are, for the last 268 million reservations."""
RECALLS_MAX: Final = 256
"""Settlements of a node that wait to be looked for in the log."""
RECALL_RECORDS_MAX: Final = 65_536
"""Records that are read for one: a reservation that lasted longer is not found."""
IN_FLIGHT_ITEMS_MAX: Final = 1_000_000
"""Reserved items of one node."""

WATCHED_ITEMS_MAX: Final = 64
"""Items of one partition whose events somebody follows: each is looked at before and after every event."""

# --- Demand -----------------------------------------------------------------------------------
WINDOW_ITEMS_MAX: Final = 16_384
WINDOW_BYTES_MAX: Final = 67_108_864
WAITERS_MAX: Final = 100_000
"""Parked requests and subscriptions of one queue on one node."""
SUBSCRIPTIONS_PER_SESSION_MAX: Final = 1_024
RESERVES_PER_SESSION_MAX: Final = 1_024
"""Parked ``reserve`` requests of one session."""
WATCHES_PER_SESSION_MAX: Final = 64
WATCH_INTERVAL_MIN: Final = Duration(250_000)
WATCH_INTERVAL_MAX: Final = HOUR
WINDOW_BYTES_DEFAULT: Final = 4_194_304
"""Of a subscription that asks for none: in base64 a third of an outbox."""
CALLS_PER_SESSION_MAX: Final = 16
"""Operators' calls in progress."""
CALL_PARAMS_BYTES_MAX: Final = 262_144
INSTANT_MAX: Final = Instant(253_402_300_799_000_000)
"""The end of the year 9999, exact in every JSON reader."""

# --- Sessions and sockets -----------------------------------------------------------------------
CONNECTIONS_MAX: Final = 10_000
DESCRIPTORS_BESIDE: Final = 1_024
"""Open files that a server may need beside those of its connections: the log's, pipes, helpers."""
CONNECTIONS_PER_ADDRESS_MAX: Final = 2_048
"""Of one address that is not loopback; a Go client alone keeps up to 2,000 (CONTRACT.md 1.6)."""
STRANGERS_MAX: Final = 256
"""Connections that have shown no good key, where one is needed."""
TURNED_AWAY_MAX: Final = 256
"""Connections over a bound that are being told so; one more ends the oldest without a word."""
TURN_AWAY_TIMEOUT: Final = Duration(500_000)
"""How long whoever is turned away may take to ask for the health, before that is refused as all else is."""
MESSAGE_BYTES_MAX: Final = 4_194_304
FRAME_COMMANDS_MAX: Final = 10_000
"""Messages in one WebSocket message."""
OUTBOX_BYTES_MAX: Final = 16_777_216
"""What may wait for a slow reader before it is cut off; holds a few full messages of pushes."""
PUSHES_UNCONFIRMED_MAX: Final = 65_536
HELLO_TIMEOUT: Final = Duration(5 * SECOND)
PING_INTERVAL: Final = Duration(5 * SECOND)
PING_TIMEOUT: Final = Duration(10 * SECOND)
SESSION_GRACE: Final = Duration(5 * SECOND)
DRAIN_TIMEOUT: Final = Duration(10 * SECOND)
HEADER_BYTES_MAX: Final = 16_384
REQUEST_LINE_BYTES_MAX: Final = 8_192
HEADER_LINES_MAX: Final = 128
"""Headers of one request; browsers behind proxies send some 40."""
HEADER_TIMEOUT: Final = Duration(10 * SECOND)
CONTROL_FRAMES_PER_SECOND_MAX: Final = 50
FRAGMENTS_MAX: Final = 256
"""Frames of one WebSocket message."""
BODY_TIMEOUT: Final = Duration(30 * SECOND)
"""For a request's body, and for each slice of a response that is not read ..."""
BODY_BYTES_PER_SECOND_MIN: Final = 256
"""... and as much longer as a body of this rate takes: who sends slower is cut off."""
RESPONSE_SLICE_BYTES: Final = 262_144
"""What a client has to read of a response within BODY_TIMEOUT."""
IDLE_TIMEOUT: Final = MINUTE
"""How long a kept-alive HTTP connection may rest between requests."""
CLOSE_TIMEOUT: Final = Duration(2 * SECOND)
"""How long a WebSocket waits for the answer to its close frame."""

# --- Log --------------------------------------------------------------------------------------
APPEND_BYTES_MAX: Final = 8_388_608
APPEND_PARTITIONS_MAX: Final = 256
APPEND_TIMEOUT: Final = Duration(30 * SECOND)
HOLD_TIMEOUT: Final = Duration(30 * SECOND)
"""How long a partition keeps a failed append's bytes and retries them (DESIGN: decision 7)."""
APPEND_LANES: Final = 6
"""Appends of one store, of disjoint partitions, that run side by side (SQLite runs one)."""
APPEND_PATIENCE: Final = Duration(50_000)
"""An append that takes longer is late: the partitions that are not in it wait no longer for it."""
APPEND_PAUSE: Final = Duration(4_000)
"""From the beginning of one append to that of the next while many partitions have little to write each ..."""
PAUSE_RECORDS: Final = 64
"""... which is so when the last so many records ..."""
PAUSE_PARTITIONS: Final = 32
"""... are of at least so many partitions."""
APPEND_CANCEL_WAIT: Final = Duration(2 * SECOND)
"""A statement with the records of several partitions that takes longer is cancelled, so that those which
are not to blame are sent again apart from the one that is."""
APPEND_CONNECTIONS: Final = 8
"""PostgreSQL connections that append, of one store: its lanes, and some for claims and parted appends."""
READ_CONNECTIONS: Final = 4
"""PostgreSQL connections for everything else, so that recovery does not hold up appends."""
APPEND_LOCK_WAIT: Final = Duration(20_000)
"""How long an append waits for another transaction at one of its positions before it answers ``busy``."""
APPEND_BLOCKED_WAIT: Final = Duration(10_000)
"""The same for a partition that was just found busy, so that it holds up no others."""
APPEND_TRIES_MAX: Final = 32
"""Statements of one append beyond the first, for what met a rollover or a commit just over or had to be
parted from a blocked record, before it answers ``busy`` for the rest."""
CONNECT_TIMEOUT: Final = Duration(10 * SECOND)
QUERY_TIMEOUT: Final = Duration(60 * SECOND)
"""Of reads, snapshots and bucket changes in PostgreSQL."""
NODE_LEASE: Final = Duration(6 * SECOND)
"""A node that has not been seen for so long is gone: the next one in line takes over."""
NODE_RENEWAL: Final = Duration(2 * SECOND)
CLOCK_REFERENCE_INTERVAL: Final = Duration(10 * SECOND)
"""How often a node compares its clock with its database's."""
CLOCK_ROUND_TRIP_MAX: Final = Duration(50_000)
"""A database's time that took longer to come says too little: on a busy machine it would look like a step."""
CLOCK_TRIES_MAX: Final = 3
NODE_DRIFT_PERMILLE: Final = 10
"""How much faster the database's clock may run than ours before a node trusts its lease too long."""
STORES_MAX: Final = 16
"""Log stores of one server."""
STORE_AFFINITY_MAX: Final = 1_000
READ_BYTES_MAX: Final = 16_777_216
PAYLOAD_MEMORY_BYTES: Final = 268_435_456
"""Payloads of waiting items kept in memory, all partitions of a node; beyond, they stay in the log."""
CLAIM_TRIES_MAX: Final = 20
TRACE_SLICE_EVENTS: Final = 64
"""Events that the trace of an item folds before other tasks have their turn: less than a millisecond."""
RESTORE_PAGE_RECORDS: Final = 200
"""Records folded between two checkpoints of the event loop."""
SEGMENTS_READ_AHEAD: Final = 4
"""Segments whose payloads are read together once the line comes near them."""
MOVE_ITEMS_MAX: Final = 100
"""Items of one move to another partition: dead ones, or those that are sent back."""
SEND_BACK_ITEMS_MAX: Final = 1_024
"""Items of one request to send back what a dead queue took: some ten milliseconds of the event loop."""
HOMEWARD_ITEMS_MAX: Final = 65_536
"""Items of a partition that are on their way home together; who would send more waits for those to arrive."""
ALARMS_DUE_MAX: Final = 4_096
"""Alarms handled in one turn; the rest in the next."""
RECORD_VALUES_MAX: Final = 4_194_304
"""Values of one column of a record. A constant column of any length is a few bytes, so a damaged length
must not be able to ask for all memory. Twice what the bytes of a pending record have room for."""
WITNESS_INTERVAL: Final = Duration(2 * SECOND)
"""How far behind the log the witness file may be."""
SQLITE_WAL_BYTES: Final = 4_194_304
"""What the write-ahead log of an SQLite bucket holds before it is moved into the file, between two
commits: small enough that the next commit waits some 10 ms at most."""
SQLITE_FILES_MAX: Final = 16
"""Bucket files that readers of an SQLite log keep open."""
SNAPSHOT_RECORDS: Final = 10_000
SNAPSHOT_BYTES: Final = 67_108_864
"""A partition is snapshotted after this many records or bytes of log."""
BUCKET_BYTES: Final = 1_073_741_824
QUEUES_MAX: Final = 10_000
PARTITIONS_PER_QUEUE_MAX: Final = 1_024
KEY_SLOTS: Final = 1_024

METRICS_PIECE_QUEUES: Final = 100
"""Queues whose samples of ``/metrics`` are made between two turns of the event loop: a millisecond or two."""
STATS_WAIT: Final = Duration(500_000)
"""How long a queue's counters wait for a partition that does not answer, when another one has."""

# --- Catalog ----------------------------------------------------------------------------------
NAMESPACE_NAME_BYTES_MAX: Final = 256
DEAD_QUEUE_NAME_BYTES_MAX: Final = 500
USERNAME_BYTES_MAX: Final = 128
EMAIL_BYTES_MAX: Final = 256
EXTERNAL_ID_BYTES_MAX: Final = 256
API_KEY_NAME_BYTES_MAX: Final = 128
ROLE_NAME_BYTES_MAX: Final = 128
"""CONTRACT.md 2.7, as the seven above."""
QUEUE_TIMEOUT_MAX: Final = Duration((1 << 63) // 1_000)
"""A queue's timeouts: what 63 bits of nanoseconds hold, the longest that a Go client can say."""
NAMESPACES_MAX: Final = 10_000
USERS_MAX: Final = 100_000
API_KEYS_MAX: Final = 100_000
ROLES_MAX: Final = 10_000
BINDINGS_MAX: Final = 100_000
"""The catalog lives in memory on every node; at these bounds it takes some 100 MB."""

# --- Client -----------------------------------------------------------------------------------
PRODUCE_WINDOW: Final = 64
"""Produce messages of one queue that a client has unanswered, shared out among its partitions (at least
one each): well below PRODUCER_RESULTS_MAX, so that a partition still knows each result when asked again."""
PRODUCE_MESSAGES_PER_LOOK: Final = 1_024
"""Produce messages after which a client looks again which partitions a queue has: one may have been away."""
PRODUCE_STREAMS_MAX: Final = 1_024
"""Queues whose produce sequence a client keeps; beyond, one that is quiet begins anew."""
PRODUCE_MESSAGE_BYTES_MAX: Final = 524_288
"""Payload bytes that a client coalesces into one produce message (one call may be larger)."""
PRODUCE_BYTES_MAX: Final = 2_097_152
"""Payload bytes of one produce call: half a message, so that base64 and the rest fit."""
OUTSTANDING_ITEMS_MAX: Final = 100_000
"""Items handed to a client and not yet answered, before ``produce_nowait`` refuses more ..."""
OUTSTANDING_BYTES_MAX: Final = 67_108_864
"""... and their payload bytes."""
CLIENT_FRAME_BYTES: Final = 1_048_576
"""A client closes a frame at about this size; the server takes MESSAGE_BYTES_MAX."""
RECONNECT_DELAY_MIN: Final = Duration(50_000)
RECONNECT_DELAY_MAX: Final = Duration(2 * SECOND)
"""Bounds of the back-off between a client's attempts to connect."""
RESERVE_REFUSALS_MAX: Final = 32
"""Refusals by nodes that stop, or do not own the queue, after which a ``reserve`` is told: half a minute."""
REFUSED_DELAY_MIN: Final = Duration(20_000)
REFUSED_DELAY_MAX: Final = Duration(1 * SECOND)
"""Bounds of the back-off before a client asks again what an overloaded server refused."""
CLIENT_ADDRESSES_MAX: Final = 16
"""Nodes that a client may be told of."""
CLIENT_CONNECT_TIMEOUT: Final = Duration(10 * SECOND)
"""For one attempt to connect, from the socket to ``welcome``."""
GOODBYE_TIMEOUT: Final = Duration(2 * SECOND)
"""How long a client that leaves waits for its last frames and the closing handshake."""

# --- Analytics --------------------------------------------------------------------------------
EXPORT_PAGE_RECORDS: Final = 100
"""Records read together by an export: some milliseconds of a database, which others wait for meanwhile."""
EXPORT_STEP_ROWS: Final = 250_000
"""Rows gathered before they are written: some 40 MB of columns, and as much again while DuckDB sorts them."""
EXPORT_STRETCH_EVENTS: Final = 1_024
"""From so many events on a stretch of records is swept together: a millisecond's work or so."""
EXPORT_SWEEP_EVENTS: Final = 65_536
"""From so many events on what was swept is written into the state: ten milliseconds' work, or twenty."""
EXPORT_STEP_PAYLOAD_BYTES: Final = 67_108_864
"""Payload bytes gathered before they are written, where payloads are exported."""
EXPORT_PARALLEL_RECORDS: Final = 2_000
"""Records from which on an export is worth the start of other processes, a third of a second."""
WORKER_EXPORT_MEMORY: Final = "256MB"
"""Of the DuckDB connection of each of them."""
EXPORT_SLICE: Final = Duration(1_000)
"""How long an export folds before the event loop's other tasks have their turn."""
EXPORT_PACE: Final = 0.2
"""The share of a core that the export of a live server folds with, where nobody else wants it ..."""
EXPORT_LATE_FACTOR: Final = 10
"""... and how many times as long as the event loop was late it rests beyond that ..."""
EXPORT_REST_MAX: Final = Duration(250_000)
"""... but never longer, so that it ends."""
SERVER_EXPORT_MEMORY: Final = "128MB"
"""Of the DuckDB connection that a live server's export sorts and packs with."""
RETENTION_INTERVAL: Final = Duration(10 * MINUTE)
"""How often a server looks whether its retention lets history go."""
KEEP_STEP_BYTES: Final = 33_554_432
"""Bytes of records gathered before they are written to the archive, so that the log may drop them."""
COMPACT_PARTS_MAX: Final = 50
"""Parts of the present day before they are compacted though the day is not over."""
ANALYTICS_MEMORY: Final = "512MB"
"""Of a DuckDB connection; the rest of a gigabyte is for Python."""
LIVE_ANALYTICS_MEMORY: Final = "256MB"
"""Of the server's own DuckDB connection."""
LIVE_QUESTIONS_MAX: Final = 1
"""Questions that a server answers at once ..."""
LIVE_QUESTIONS_WAITING_MAX: Final = 16
"""... and that wait for it, before it answers ``overloaded``."""
LIVE_QUESTION_TIMEOUT: Final = Duration(2 * SECOND)
LIVE_START_TIMEOUT: Final = Duration(3 * SECOND)
"""How much longer one may take that waits for others, or for the process that answers to start."""
LIVE_ROWS_MAX: Final = 2_000
"""Rows of one answer; turning rows into objects is the only part of a question that holds the event loop."""

# --- Replay

CAPTURE_FRAME_BYTES_MAX: Final = 268_435_456
"""One frame of a capture: a record with its payloads, or a checkpoint."""
