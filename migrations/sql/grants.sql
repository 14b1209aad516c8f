-- Rights of the change data capture role, and what its connectors read. Idempotent; runs after every migration.
-- The publications belong to the tables' owner, so that the role can read these tables and nothing else.

GRANT CONNECT ON DATABASE ${database} TO fanline_cdc;
GRANT USAGE ON SCHEMA public TO fanline_cdc;
GRANT SELECT ON users, posts, follows, follow_requests, blocks, mutes, media, likes, bookmarks, pins, conversation_mutes,
    polls, poll_votes, notifications, markers, filters, outbox TO fanline_cdc;
GRANT SELECT, INSERT, UPDATE ON heartbeat, signal TO fanline_cdc;
