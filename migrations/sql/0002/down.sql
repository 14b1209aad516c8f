-- Undo of the second revision: tables in an order that needs no CASCADE.

DROP INDEX users_created_at;
DROP INDEX follows_created_at;
DROP INDEX likes_created_at;
DROP INDEX posts_created_at;
-- only postgres
ALTER TABLE users REPLICA IDENTITY DEFAULT;
ALTER TABLE follows REPLICA IDENTITY DEFAULT;
ALTER TABLE likes REPLICA IDENTITY DEFAULT;
-- end
DROP TABLE trend_reviews;
DROP TABLE email_preferences;
DROP TABLE notification_deliveries;
DROP TABLE notification_permissions;
DROP TABLE notification_policies;
-- only postgres
ALTER TABLE notifications REPLICA IDENTITY DEFAULT;
-- end
DROP INDEX follows_notify;
DROP TABLE polls_told;
DROP INDEX notifications_from;
CREATE INDEX notifications_from ON notifications (from_account_id);
DROP INDEX notifications_filtered;
DROP INDEX notifications_cause;
CREATE INDEX notifications_recipient ON notifications (user_id);
ALTER TABLE notifications DROP COLUMN moderation_action_id;
ALTER TABLE notifications DROP COLUMN cause;

-- only postgres
DROP TRIGGER users_mentioned ON users;
DROP FUNCTION change_posts_that_mention();
ALTER TABLE filters REPLICA IDENTITY DEFAULT;
-- end
DELETE FROM filter_posts WHERE NOT EXISTS (SELECT 1 FROM posts WHERE posts.id = filter_posts.post_id);
ALTER TABLE filter_posts ADD CONSTRAINT filter_posts_post_id_fkey
    FOREIGN KEY (post_id) REFERENCES posts (id) ON DELETE CASCADE;
ALTER TABLE post_edits DROP COLUMN poll_options;
DELETE FROM conversation_mutes WHERE NOT EXISTS (SELECT 1 FROM posts WHERE posts.id = conversation_mutes.post_id);
ALTER TABLE conversation_mutes ADD CONSTRAINT conversation_mutes_post_id_fkey
    FOREIGN KEY (post_id) REFERENCES posts (id) ON DELETE CASCADE;
ALTER TABLE posts DROP COLUMN conversation_id;
