-- Time series count the rows of a minute, an hour or a day.

-- only postgres
-- Rows lie nearly in the order of their times, so that a block range index finds a minute at next to no cost for writers.
CREATE INDEX posts_created_at ON posts USING brin (created_at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX likes_created_at ON likes USING brin (created_at) WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX follows_created_at ON follows USING brin (created_at) WITH (pages_per_range = 16, autosummarize = on);

-- A deleted row's change carries its time: it leaves the counts of the minute in which it was made.
ALTER TABLE likes REPLICA IDENTITY FULL;
ALTER TABLE follows REPLICA IDENTITY FULL;
ALTER TABLE users REPLICA IDENTITY FULL;
-- end
-- only cockroach
CREATE INDEX posts_created_at ON posts (created_at) ${hash_sharded};
CREATE INDEX likes_created_at ON likes (created_at) ${hash_sharded};
CREATE INDEX follows_created_at ON follows (created_at) ${hash_sharded};
-- end
-- People come one by one and are changed often, which would spoil a block range index.
CREATE INDEX users_created_at ON users (created_at) ${hash_sharded};
