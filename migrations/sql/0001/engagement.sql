-- What people do with posts. No counter columns: counts are a read model, their oracle is count(*) here.

CREATE TABLE likes (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    post_id     bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, post_id)
);
-- Who liked a post, and how many.
CREATE INDEX likes_post ON likes (post_id, created_at DESC, user_id);
-- A person's favourites, newest first.
CREATE INDEX likes_user ON likes (user_id, created_at DESC, post_id);

CREATE TABLE bookmarks (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    post_id     bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, post_id)
);
CREATE INDEX bookmarks_post ON bookmarks (post_id);
-- A person's bookmarks, newest first.
CREATE INDEX bookmarks_user ON bookmarks (user_id, created_at DESC, post_id);

CREATE TABLE pins (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    post_id     bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, post_id)
);
CREATE INDEX pins_post ON pins (post_id);

-- The post is the thread's first one.
CREATE TABLE conversation_mutes (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    post_id     bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, post_id)
);
CREATE INDEX conversation_mutes_post ON conversation_mutes (post_id);

CREATE TABLE polls (
    id           bigint NOT NULL,
    post_id      bigint NOT NULL UNIQUE REFERENCES posts (id) ON DELETE CASCADE,
    multiple     boolean NOT NULL DEFAULT false,
    hide_totals  boolean NOT NULL DEFAULT false,
    expires_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id) ${hash_sharded}
);
-- Polls that are about to end: their voters are notified.
CREATE INDEX polls_expiry ON polls (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE poll_options (
    poll_id   bigint NOT NULL REFERENCES polls (id) ON DELETE CASCADE,
    position  smallint NOT NULL CHECK (position >= 0),
    title     text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    PRIMARY KEY (poll_id, position)
);

CREATE TABLE poll_votes (
    poll_id     bigint NOT NULL,
    voter_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    position    smallint NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (poll_id, voter_id, position),
    FOREIGN KEY (poll_id, position) REFERENCES poll_options (poll_id, position) ON DELETE CASCADE
);
-- An option's votes; the cascade of a deleted option.
CREATE INDEX poll_votes_option ON poll_votes (poll_id, position);
CREATE INDEX poll_votes_voter ON poll_votes (voter_id);
