-- Owner, outcome and completion of an upload, what a tombstone remembers, and the folder that the ledger belongs to.
-- outcome is JSON, '' before the last byte; extra a JSON object, '' for an empty one; state that of a tombstone.
ALTER TABLE uploads ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE uploads ADD COLUMN completed_at REAL;
ALTER TABLE uploads ADD COLUMN outcome TEXT NOT NULL DEFAULT '';
ALTER TABLE uploads ADD COLUMN extra TEXT NOT NULL DEFAULT '';
ALTER TABLE uploads ADD COLUMN state TEXT;
ALTER TABLE uploads ADD COLUMN removed_at REAL;

-- Version 1 knew that an upload was finished by its offset alone.
UPDATE uploads SET outcome = '{"verdict": "accepted", "status": 0, "reason": ""}'
    WHERE "offset" = length AND gone IS NULL;
UPDATE uploads SET state = CASE gone WHEN 'expired' THEN 'expired' ELSE 'cancelled' END WHERE gone IS NOT NULL;

-- lost is 1 while records are missing that the folder has uploads of.
CREATE TABLE identity (folder TEXT NOT NULL, lost INTEGER NOT NULL);

PRAGMA user_version = 2;
