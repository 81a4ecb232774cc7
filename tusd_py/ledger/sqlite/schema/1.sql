-- The embedded ledger, version 1. Lease times are seconds of CLOCK_MONOTONIC, which all processes of one host share and no
-- administrator sets; all other times are Unix seconds.
CREATE TABLE uploads (
    id          TEXT PRIMARY KEY,
    length      INTEGER,                    -- bytes; NULL while deferred
    "offset"    INTEGER NOT NULL,           -- bytes
    metadata    TEXT NOT NULL,
    concat      TEXT NOT NULL,
    created_at  REAL NOT NULL,
    expires_at  REAL,                       -- NULL: never; of a tombstone: when it is forgotten
    gone        TEXT,                       -- why there is only a tombstone left
    token       TEXT NOT NULL DEFAULT '',   -- of the last lease
    lease_until REAL NOT NULL DEFAULT 0,    -- monotonic
    lease_ttl_s REAL NOT NULL DEFAULT 0,    -- a lease_until beyond now + this is from before a reboot
    wish        TEXT,                       -- what the holder was asked for
    commits     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX uploads_by_expiry ON uploads (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE events (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    upload_id  TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at REAL NOT NULL,
    due_at     REAL,                        -- NULL: buried
    attempt    INTEGER NOT NULL DEFAULT 0,
    told       TEXT NOT NULL DEFAULT '[]',  -- JSON list of the receivers that confirmed
    reason     TEXT
);
CREATE INDEX events_by_due ON events (due_at) WHERE due_at IS NOT NULL;

-- Signals between processes. Rows live for a minute.
CREATE TABLE signals (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    upload_id TEXT NOT NULL,
    signal    TEXT NOT NULL,
    told_at   REAL NOT NULL                 -- monotonic
);

CREATE TABLE turns (
    name  TEXT PRIMARY KEY,
    until REAL NOT NULL                     -- Unix seconds
);

PRAGMA user_version = 1;
