-- What a person is told, where they have read to, and what they do not want to see.

-- The id is deterministic (made from the event), so that a replayed event inserts nothing.
CREATE TABLE notifications (
    id               bigint NOT NULL,
    user_id          uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    type             text NOT NULL CHECK (type IN ('mention', 'status', 'reblog', 'follow', 'follow_request', 'favourite',
                                                   'poll', 'update', 'admin.sign_up', 'admin.report',
                                                   'moderation_warning')),
    from_account_id  uuid REFERENCES users (id) ON DELETE CASCADE,
    post_id          bigint REFERENCES posts (id) ON DELETE CASCADE,
    report_id        uuid,
    group_key        text,
    filtered         boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT now(),
    dismissed_at     timestamptz,
    PRIMARY KEY (id) ${hash_sharded}
);
-- A person's notifications, newest first.
CREATE INDEX notifications_user ON notifications (user_id, id DESC) WHERE dismissed_at IS NULL;
-- Cascades of a deleted sender, recipient and post.
CREATE INDEX notifications_recipient ON notifications (user_id);
CREATE INDEX notifications_from ON notifications (from_account_id);
CREATE INDEX notifications_post ON notifications (post_id) WHERE post_id IS NOT NULL;

CREATE TABLE push_subscriptions (
    id          uuid PRIMARY KEY,
    session_id  uuid NOT NULL UNIQUE REFERENCES sessions (id) ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    endpoint    text NOT NULL,
    key_p256dh  text NOT NULL,
    key_auth    text NOT NULL,
    alerts      jsonb NOT NULL DEFAULT '{}',
    policy      text NOT NULL DEFAULT 'all' CHECK (policy IN ('all', 'followed', 'follower', 'none')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
-- Where to push to for a person.
CREATE INDEX push_subscriptions_user ON push_subscriptions (user_id);

CREATE TABLE markers (
    user_id       uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    timeline      text NOT NULL CHECK (timeline IN ('home', 'notifications')),
    last_read_id  bigint NOT NULL,
    version       int NOT NULL DEFAULT 1,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, timeline)
);

CREATE TABLE filters (
    id          uuid PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title       text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 256),
    contexts    text[] NOT NULL,
    action      text NOT NULL DEFAULT 'warn' CHECK (action IN ('warn', 'hide', 'blur')),
    expires_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX filters_user ON filters (user_id, created_at);

CREATE TABLE filter_keywords (
    id          uuid PRIMARY KEY,
    filter_id   uuid NOT NULL REFERENCES filters (id) ON DELETE CASCADE,
    keyword     text NOT NULL CHECK (char_length(keyword) BETWEEN 1 AND 512),
    whole_word  boolean NOT NULL DEFAULT true
);
CREATE INDEX filter_keywords_filter ON filter_keywords (filter_id);

CREATE TABLE filter_posts (
    id         uuid PRIMARY KEY,
    filter_id  uuid NOT NULL REFERENCES filters (id) ON DELETE CASCADE,
    post_id    bigint NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
    UNIQUE (filter_id, post_id)
);
CREATE INDEX filter_posts_post ON filter_posts (post_id);
