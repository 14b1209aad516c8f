-- Undo of the third revision.

DROP INDEX users_suspended;
ALTER TABLE notification_policies ALTER COLUMN for_not_following SET DEFAULT 'accept';
ALTER TABLE notification_policies ALTER COLUMN for_not_followers SET DEFAULT 'accept';
ALTER TABLE notification_policies ALTER COLUMN for_new_accounts SET DEFAULT 'accept';
ALTER TABLE notification_policies ALTER COLUMN for_private_mentions SET DEFAULT 'accept';
ALTER TABLE notification_policies ALTER COLUMN for_limited_accounts SET DEFAULT 'accept';
ALTER TABLE push_subscriptions DROP COLUMN sealed_token;
ALTER TABLE notifications DROP COLUMN stored_at;
