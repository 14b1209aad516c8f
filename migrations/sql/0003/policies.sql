-- What a person who has set no policy is told is for readmodels/notification_rules.py to say, also of single parts.
ALTER TABLE notification_policies ALTER COLUMN for_not_following DROP DEFAULT;
ALTER TABLE notification_policies ALTER COLUMN for_not_followers DROP DEFAULT;
ALTER TABLE notification_policies ALTER COLUMN for_new_accounts DROP DEFAULT;
ALTER TABLE notification_policies ALTER COLUMN for_private_mentions DROP DEFAULT;
ALTER TABLE notification_policies ALTER COLUMN for_limited_accounts DROP DEFAULT;

-- Who is suspended: asked of the senders of everything that somebody reads.
CREATE INDEX users_suspended ON users (id) WHERE suspended_at IS NOT NULL;
