-- Undo of the third revision.

ALTER TABLE notifications DROP COLUMN stored_at;
