-- Version 2. What makes an event's row again that was not in its table yet, see young.rs. NULL where it was put there at
-- once. fence: 0 pending, 1 running.
ALTER TABLE content ADD COLUMN received_at INTEGER;
ALTER TABLE content ADD COLUMN due_at INTEGER;
ALTER TABLE content ADD COLUMN fence INTEGER;
ALTER TABLE content ADD COLUMN event_type TEXT;
ALTER TABLE content ADD COLUMN sender_id TEXT;
ALTER TABLE content ADD COLUMN dedup_key TEXT;
