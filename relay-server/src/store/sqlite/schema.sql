-- Everything is keyed by endpoint first.
-- Times are milliseconds since 1970; ids are the 16 bytes of a UUIDv7.
--
-- What events carry stands in the log beside this file, see log.rs; so does, once more, what came since this file was
-- committed last.

-- log_mark: up to which byte of the log this file holds everything. last_seq: the last number that an event was given; no
-- other is given it again, also when that event is gone.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- What its events take, see room.rs: those that wait, and those that ended.
CREATE TABLE endpoint (
    key INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused_at INTEGER,
    open_bytes INTEGER NOT NULL DEFAULT 0, ended_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What lists, claims and settles look at: narrow, so that many stand on a page. In order of arrival: pages at the end of
-- such a table are filled, those of a table that is kept in order of a key are split. What no query asks for stands
-- encoded, see event_record.rs: facts, which never change, and course. A row with many columns costs a third more to write.
-- due_at: pending: next attempt; running: end of the lease; parked behind its order key: the largest number;
-- ended: NULL. ended: whether it has, once more, since a change of due_at would write both indexes of ids. seq: the place
-- among all that were appended. cost: what it takes with its attempts, in bytes. place, length: where in the log its
-- content stands: 4 bytes of segment and 4 of offset. file: the number of the file that has its body, where that is too
-- long for the log. attempt: the record of its only attempt, if that is short; empty, if records are in their table, see
-- attempts.rs.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY, endpoint INTEGER NOT NULL, id BLOB NOT NULL, received_at INTEGER NOT NULL,
    state INTEGER NOT NULL, due_at INTEGER, cost INTEGER NOT NULL, place INTEGER NOT NULL, length INTEGER NOT NULL,
    facts BLOB NOT NULL, course BLOB NOT NULL, attempt BLOB, order_key TEXT, file INTEGER, ended INTEGER NOT NULL
) STRICT;
-- An event stands in one of these two, so that none has to have all. What ended gives way when room is needed, the oldest
-- first.
CREATE UNIQUE INDEX event_open ON event (endpoint, id) WHERE ended = 0;
CREATE UNIQUE INDEX event_ended ON event (endpoint, id) WHERE ended = 1;
CREATE INDEX event_due ON event (endpoint, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX event_queue ON event (endpoint, order_key, seq) WHERE order_key IS NOT NULL AND due_at IS NOT NULL;
CREATE INDEX event_dead ON event (endpoint, id) WHERE state = 3;
CREATE INDEX event_file ON event (file) WHERE file IS NOT NULL;

CREATE TABLE attempt (
    endpoint INTEGER NOT NULL, id BLOB NOT NULL, fence INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (endpoint, id, fence)
) STRICT, WITHOUT ROWID;

-- How many bytes of a segment of the log events need.
CREATE TABLE segment (number INTEGER PRIMARY KEY, live INTEGER NOT NULL) STRICT;

-- Dedup keys and senders' ids: the first 16 bytes of SHA-256 of endpoint and text, with the event's id. Filled in the
-- background, see keys.rs, in runs, see key_runs.rs. place: the number of the run, and the first 4 bytes of the first key.
-- keys: how many; 32 bytes each, in order. first_seq, last_seq: the numbers that its events have. A page without its run is
-- none.
CREATE TABLE key_run (
    run INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, keys INTEGER NOT NULL,
    filter BLOB NOT NULL
) STRICT;
CREATE TABLE key_page (place INTEGER PRIMARY KEY, keys BLOB NOT NULL) STRICT;

-- What was signed and taken: see ../marks.rs. Digests are cut to 16 bytes.
CREATE TABLE mark (
    endpoint INTEGER NOT NULL, digest BLOB NOT NULL, body BLOB NOT NULL, event BLOB NOT NULL, good_until INTEGER NOT NULL,
    PRIMARY KEY (endpoint, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX mark_good_until ON mark (good_until);
-- For how many milliseconds marks are kept at an endpoint, and since when.
CREATE TABLE memory (endpoint TEXT PRIMARY KEY, reach INTEGER NOT NULL, since INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE bulk (
    id BLOB PRIMARY KEY, action TEXT NOT NULL, filter TEXT NOT NULL, created_at INTEGER NOT NULL, cursor BLOB,
    done INTEGER NOT NULL, skipped INTEGER NOT NULL, finished INTEGER NOT NULL, of INTEGER, at_most INTEGER, by TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE config (
    kind INTEGER NOT NULL, name TEXT NOT NULL, source INTEGER NOT NULL, value TEXT NOT NULL,
    revision INTEGER NOT NULL, updated_at INTEGER NOT NULL, made_at INTEGER NOT NULL, used_at INTEGER,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (scope TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (scope, name)) STRICT, WITHOUT ROWID;

-- Webhooks of a token's endpoints on its last day (days since 1970).
CREATE TABLE token_use (token TEXT PRIMARY KEY, day INTEGER NOT NULL, events INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Who did what: see ../audit.rs. id: microseconds since 1970. result: NULL until it is known.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, class INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, token TEXT, address TEXT,
    action TEXT NOT NULL, object TEXT, result TEXT, detail TEXT, count INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_holder ON audit (class, name, id);

-- Signatures that the relay made itself, by what was signed, until they expire (Unix seconds).
CREATE TABLE own_signature (digest BLOB PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX own_signature_expires ON own_signature (expires_at);

CREATE TABLE refused (
    endpoint INTEGER NOT NULL, id BLOB NOT NULL, at INTEGER NOT NULL, status INTEGER NOT NULL, code TEXT NOT NULL,
    head TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (endpoint, id)
) STRICT, WITHOUT ROWID;
