-- Who follows, blocks and mutes whom. Both ends cascade: a deleted person leaves no edge.

CREATE TABLE follows (
    follower_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    followee_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    show_reblogs  boolean NOT NULL DEFAULT true,
    notify        boolean NOT NULL DEFAULT false,
    languages     text[],
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (follower_id, followee_id),
    CHECK (follower_id <> followee_id)
);
-- An author's followers: the followers read model and its oracle.
CREATE INDEX follows_followee ON follows (followee_id, follower_id);

CREATE TABLE follow_requests (
    follower_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    followee_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    show_reblogs  boolean NOT NULL DEFAULT true,
    notify        boolean NOT NULL DEFAULT false,
    languages     text[],
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (follower_id, followee_id),
    CHECK (follower_id <> followee_id)
);
-- The requests that a locked account has to answer, newest first.
CREATE INDEX follow_requests_followee ON follow_requests (followee_id, created_at DESC, follower_id);

CREATE TABLE blocks (
    blocker_id  uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    blocked_id  uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (blocker_id, blocked_id),
    CHECK (blocker_id <> blocked_id)
);
-- Who has blocked the viewer: blocks hide in both directions.
CREATE INDEX blocks_blocked ON blocks (blocked_id, blocker_id);

CREATE TABLE mutes (
    muter_id            uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    muted_id            uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hide_notifications  boolean NOT NULL DEFAULT true,
    expires_at          timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (muter_id, muted_id),
    CHECK (muter_id <> muted_id)
);
-- Cascade of a deleted person.
CREATE INDEX mutes_muted ON mutes (muted_id);

-- A private note of one person about another.
CREATE TABLE account_notes (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    target_id   uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    comment     text NOT NULL CHECK (char_length(comment) <= 2000),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, target_id)
);
CREATE INDEX account_notes_target ON account_notes (target_id);

CREATE TABLE lists (
    id              uuid PRIMARY KEY,
    owner_id        uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title           text NOT NULL CHECK (char_length(title) <= 256),
    replies_policy  text NOT NULL DEFAULT 'list' CHECK (replies_policy IN ('followed', 'list', 'none')),
    exclusive       boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX lists_owner ON lists (owner_id, created_at);

CREATE TABLE list_accounts (
    list_id     uuid NOT NULL REFERENCES lists (id) ON DELETE CASCADE,
    account_id  uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (list_id, account_id)
);
-- The lists that a post of this author goes to.
CREATE INDEX list_accounts_account ON list_accounts (account_id, list_id);
