-- People, how they prove who they are, and the applications that act for them.

CREATE TABLE users (
    id                  uuid PRIMARY KEY,
    username            text NOT NULL CHECK (username ~ '^[A-Za-z0-9_]{1,30}$'),
    display_name        text NOT NULL DEFAULT '' CHECK (char_length(display_name) <= 100),
    note                text NOT NULL DEFAULT '' CHECK (char_length(note) <= 5000),
    fields              jsonb NOT NULL DEFAULT '[]',
    avatar_media_id     uuid,
    header_media_id     uuid,
    locked              boolean NOT NULL DEFAULT false,
    bot                 boolean NOT NULL DEFAULT false,
    discoverable        boolean NOT NULL DEFAULT true,
    indexable           boolean NOT NULL DEFAULT true,
    default_visibility  text NOT NULL DEFAULT 'public'
                        CHECK (default_visibility IN ('public', 'unlisted', 'private', 'direct')),
    default_sensitive   boolean NOT NULL DEFAULT false,
    default_language    text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    silenced_at         timestamptz,
    suspended_at        timestamptz
);
-- Sign-in, mentions and lookup by handle; two people cannot differ by case alone.
CREATE UNIQUE INDEX users_username ON users ((lower(username)));

-- Apart from users, so that e-mail addresses and password hashes never enter the change log.
CREATE TABLE identities (
    user_id        uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    email          text NOT NULL CHECK (char_length(email) <= 320),
    password_hash  text NOT NULL,
    role           text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'moderator', 'admin')),
    confirmed_at   timestamptz,
    locale         text NOT NULL DEFAULT 'en',
    created_at     timestamptz NOT NULL DEFAULT now()
);
-- Sign-in by e-mail.
CREATE UNIQUE INDEX identities_email ON identities ((lower(email)));

CREATE TABLE applications (
    id                  uuid PRIMARY KEY,
    name                text NOT NULL,
    website             text,
    redirect_uris       text[] NOT NULL,
    scopes              text NOT NULL,
    client_id           text NOT NULL UNIQUE,
    client_secret_hash  text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now()
);

-- A token family: its id is the `sid` of every access token. Without a user it is an application's own token.
CREATE TABLE sessions (
    id              uuid PRIMARY KEY,
    user_id         uuid REFERENCES users (id) ON DELETE CASCADE,
    application_id  uuid NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    scopes          text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_used_at    timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    revoked_at      timestamptz
);
-- A person's list of sessions; revoking all of them.
CREATE INDEX sessions_user ON sessions (user_id, created_at DESC);
CREATE INDEX sessions_application ON sessions (application_id);

CREATE TABLE authorization_codes (
    code_hash              text PRIMARY KEY,
    application_id         uuid NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    user_id                uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    redirect_uri           text NOT NULL,
    scopes                 text NOT NULL,
    code_challenge         text,
    code_challenge_method  text CHECK (code_challenge_method IN ('S256', 'plain')),
    created_at             timestamptz NOT NULL DEFAULT now(),
    expires_at             timestamptz NOT NULL,
    used_at                timestamptz,
    CHECK ((code_challenge IS NULL) = (code_challenge_method IS NULL))
);
-- Cascades of a deleted person or application.
CREATE INDEX authorization_codes_user ON authorization_codes (user_id);
CREATE INDEX authorization_codes_application ON authorization_codes (application_id);

CREATE TABLE signing_keys (
    kid          text PRIMARY KEY,
    algorithm    text NOT NULL,
    private_key  text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    retired_at   timestamptz
);
