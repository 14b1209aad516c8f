-- What a person wants to be told. A missing row means: everything.

CREATE TABLE notification_policies (
    user_id               uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    for_not_following     text NOT NULL DEFAULT 'accept' CHECK (for_not_following IN ('accept', 'filter', 'drop')),
    for_not_followers     text NOT NULL DEFAULT 'accept' CHECK (for_not_followers IN ('accept', 'filter', 'drop')),
    for_new_accounts      text NOT NULL DEFAULT 'accept' CHECK (for_new_accounts IN ('accept', 'filter', 'drop')),
    for_private_mentions  text NOT NULL DEFAULT 'accept' CHECK (for_private_mentions IN ('accept', 'filter', 'drop')),
    for_limited_accounts  text NOT NULL DEFAULT 'accept' CHECK (for_limited_accounts IN ('accept', 'filter', 'drop')),
    updated_at            timestamptz NOT NULL DEFAULT now()
);

-- Senders whose notifications are wanted whatever the policy says.
CREATE TABLE notification_permissions (
    user_id          uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    from_account_id  uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, from_account_id)
);
CREATE INDEX notification_permissions_from ON notification_permissions (from_account_id);

-- What a notification tells of, as a number (readmodels/notification_rules.py): one row a cause, however often its event
-- comes, and whether or not it was dismissed. Null in rows that no flow has written.
ALTER TABLE notifications ADD COLUMN cause bigint;
-- The moderators' decision that a moderation_warning tells of.
ALTER TABLE notifications ADD COLUMN moderation_action_id uuid;
CREATE UNIQUE INDEX notifications_cause ON notifications (user_id, cause);
-- It also serves the cascade of a deleted recipient.
DROP INDEX notifications_recipient;
-- Requests: who has sent what the policy has filtered.
CREATE INDEX notifications_filtered ON notifications (user_id, from_account_id, id DESC)
    WHERE filtered AND dismissed_at IS NULL;
-- Cascades of a deleted sender; what a like, a repost or a follow that is taken back was told as.
DROP INDEX notifications_from;
CREATE INDEX notifications_from ON notifications (from_account_id, post_id, user_id);
-- One row: the last poll that everybody was told the end of.
CREATE TABLE polls_told (
    id        int PRIMARY KEY CHECK (id = 1),
    ended_at  timestamptz NOT NULL,
    poll_id   bigint NOT NULL
);
-- Who wants to hear of every post of an author.
CREATE INDEX follows_notify ON follows (followee_id, follower_id) WHERE notify;

-- only postgres
-- The change of a row that is gone carries its owner, in whose list it has to be found.
ALTER TABLE notifications REPLICA IDENTITY FULL;
-- end
