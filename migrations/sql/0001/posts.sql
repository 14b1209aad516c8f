-- Posts and what belongs to them. A repost is a row with repost_of_id and no content of its own.

CREATE TABLE posts (
    id                      bigint NOT NULL,
    author_id               uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    text                    text NOT NULL DEFAULT '',
    spoiler_text            text NOT NULL DEFAULT '',
    sensitive               boolean NOT NULL DEFAULT false,
    visibility              text NOT NULL DEFAULT 'public'
                            CHECK (visibility IN ('public', 'unlisted', 'private', 'direct')),
    language                text,
    -- A reply outlives what it answers.
    in_reply_to_id          bigint REFERENCES posts (id) ON DELETE SET NULL,
    -- No foreign key: a reply to somebody who is gone must not turn into a post of its own.
    in_reply_to_account_id  uuid,
    -- A repost does not outlive its original.
    repost_of_id            bigint REFERENCES posts (id) ON DELETE CASCADE,
    application_id          uuid REFERENCES applications (id) ON DELETE SET NULL,
    -- W3C trace context of the request: the row's change carries the trace to the read models.
    traceparent             text CHECK (char_length(traceparent) = 55),
    created_at              timestamptz NOT NULL DEFAULT now(),
    edited_at               timestamptz,
    PRIMARY KEY (id) ${hash_sharded},
    CHECK (in_reply_to_id IS NULL OR in_reply_to_account_id IS NOT NULL),
    CHECK (repost_of_id IS NULL
           OR (text = '' AND spoiler_text = '' AND in_reply_to_id IS NULL AND in_reply_to_account_id IS NULL))
);
-- A profile's posts; the home timeline's oracle, author by author.
CREATE INDEX posts_author ON posts (author_id, id DESC);
-- A person reposts a post once; unrepost and "reblogged" look here.
CREATE UNIQUE INDEX posts_one_repost ON posts (author_id, repost_of_id) WHERE repost_of_id IS NOT NULL;
-- A thread's replies and their count.
CREATE INDEX posts_replies ON posts (in_reply_to_id, id) WHERE in_reply_to_id IS NOT NULL;
-- Who reposted, and how many; the cascade of a deleted original.
CREATE INDEX posts_reposts ON posts (repost_of_id, id) WHERE repost_of_id IS NOT NULL;
-- The public timeline.
CREATE INDEX posts_public ON posts (id DESC) ${hash_sharded}
    WHERE visibility = 'public' AND repost_of_id IS NULL AND in_reply_to_account_id IS NULL;
-- SET NULL of a deleted application.
CREATE INDEX posts_application ON posts (application_id) WHERE application_id IS NOT NULL;

CREATE TABLE post_edits (
    post_id       bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL,
    text          text NOT NULL,
    spoiler_text  text NOT NULL,
    sensitive     boolean NOT NULL,
    language      text,
    media_ids     uuid[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (post_id, created_at)
);

CREATE TABLE post_mentions (
    post_id     bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    account_id  uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (post_id, account_id)
);
-- Conversations and mentions of a person, newest first.
CREATE INDEX post_mentions_account ON post_mentions (account_id, post_id DESC);

CREATE TABLE hashtags (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name = lower(name) AND char_length(name) BETWEEN 1 AND 100),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE post_hashtags (
    post_id     bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    hashtag_id  uuid NOT NULL REFERENCES hashtags (id) ON DELETE CASCADE,
    PRIMARY KEY (post_id, hashtag_id)
);
-- A tag's timeline.
CREATE INDEX post_hashtags_hashtag ON post_hashtags (hashtag_id, post_id DESC);

CREATE TABLE hashtag_follows (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hashtag_id  uuid NOT NULL REFERENCES hashtags (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, hashtag_id)
);
CREATE INDEX hashtag_follows_hashtag ON hashtag_follows (hashtag_id, user_id);

CREATE TABLE media (
    id            uuid PRIMARY KEY,
    owner_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- A deleted post leaves the row, so that the sweeper still finds the stored file.
    post_id       bigint REFERENCES posts (id) ON DELETE SET NULL,
    position      smallint NOT NULL DEFAULT 0,
    kind          text NOT NULL CHECK (kind IN ('image', 'gifv', 'video', 'audio', 'unknown')),
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'processing', 'ready', 'failed')),
    content_type  text NOT NULL,
    storage_key   text NOT NULL UNIQUE,
    preview_key   text,
    byte_size     bigint NOT NULL DEFAULT 0 CHECK (byte_size >= 0),
    meta          jsonb NOT NULL DEFAULT '{}',
    blurhash      text,
    description   text CHECK (char_length(description) <= 10000),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
-- A post's attachments, in order.
CREATE INDEX media_post ON media (post_id, position) WHERE post_id IS NOT NULL;
-- The sweeper of uploads that no post took; the cascade of a deleted owner.
CREATE INDEX media_owner ON media (owner_id, created_at);

ALTER TABLE users ADD CONSTRAINT users_avatar FOREIGN KEY (avatar_media_id) REFERENCES media (id) ON DELETE SET NULL;
ALTER TABLE users ADD CONSTRAINT users_header FOREIGN KEY (header_media_id) REFERENCES media (id) ON DELETE SET NULL;
CREATE INDEX users_avatar_media ON users (avatar_media_id) WHERE avatar_media_id IS NOT NULL;
CREATE INDEX users_header_media ON users (header_media_id) WHERE header_media_id IS NOT NULL;
