BEGIN TRANSACTION;
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
INSERT INTO "events" VALUES('post-finish-cccccccccccccccccccccccccccccccc','post-finish','cccccccccccccccccccccccccccccccc','{"Type":"post-finish"}',1234.5,2500.0,1,'["http://a/"]','http://b/: status 500');
INSERT INTO "events" VALUES('post-finish-dddddddddddddddddddddddddddddddd','post-finish','dddddddddddddddddddddddddddddddd','{"Type":"post-finish"}',1234.5,NULL,1,'[]','http://hooks/: status 500');
CREATE TABLE signals (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    upload_id TEXT NOT NULL,
    signal    TEXT NOT NULL,
    told_at   REAL NOT NULL                 -- monotonic
);
INSERT INTO "signals" VALUES(1,'','event',2233.56854449);
INSERT INTO "signals" VALUES(2,'','event',2233.570099236);
INSERT INTO "signals" VALUES(3,'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','settled',2233.571461351);
INSERT INTO "signals" VALUES(4,'ffffffffffffffffffffffffffffffff','settled',2233.572866117);
INSERT INTO "signals" VALUES(5,'','event',2233.57551227);
CREATE TABLE turns (
    name  TEXT PRIMARY KEY,
    until REAL NOT NULL                     -- Unix seconds
);
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
INSERT INTO "uploads" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',10,0,'filename YS5tcDQ=','',1000.5,5000.25,NULL,'',0.0,0.0,NULL,0);
INSERT INTO "uploads" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',10,4,'filename YS5tcDQ=','',1000.5,6000.0,NULL,'t1',2263.567128063,30.0,NULL,1);
INSERT INTO "uploads" VALUES('cccccccccccccccccccccccccccccccc',10,10,'filename YS5tcDQ=','',1000.5,NULL,NULL,'',0.0,30.0,NULL,1);
INSERT INTO "uploads" VALUES('dddddddddddddddddddddddddddddddd',10,10,'filename YS5tcDQ=','',1000.5,NULL,NULL,'',0.0,30.0,NULL,1);
INSERT INTO "uploads" VALUES('eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee',10,0,'filename YS5tcDQ=','',1000.5,9000.0,'terminated','',0.0,30.0,NULL,0);
INSERT INTO "uploads" VALUES('ffffffffffffffffffffffffffffffff',10,0,'filename YS5tcDQ=','',1000.5,9000.0,'expired','',0.0,30.0,NULL,0);
INSERT INTO "uploads" VALUES('11111111111111111111111111111111',NULL,0,'filename YS5tcDQ=','',1000.5,NULL,NULL,'',0.0,0.0,NULL,0);
INSERT INTO "uploads" VALUES('22222222222222222222222222222222',10,10,'filename YS5tcDQ=','partial',1000.5,6000.0,NULL,'',0.0,30.0,NULL,1);
INSERT INTO "uploads" VALUES('33333333333333333333333333333333',0,0,'filename YS5tcDQ=','',1000.5,NULL,NULL,'',0.0,0.0,NULL,0);
CREATE INDEX uploads_by_expiry ON uploads (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX events_by_due ON events (due_at) WHERE due_at IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('signals',5);
COMMIT;
PRAGMA user_version = 1;
