-- When a notification was stored, whatever the time of its cause: streams ask for what was stored since. Rows of before
-- get the time of this migration.
ALTER TABLE notifications ADD COLUMN stored_at timestamptz NOT NULL DEFAULT now();
