-- Undo of the third revision.

ALTER TABLE push_subscriptions DROP COLUMN sealed_token;
ALTER TABLE notifications DROP COLUMN stored_at;
