-- What moderators have said about what trends; a missing row means: not looked at yet.

CREATE TABLE trend_reviews (
    kind          text NOT NULL CHECK (kind IN ('hashtag', 'post', 'account')),
    subject       text NOT NULL CHECK (char_length(subject) <= 100),
    allowed       boolean NOT NULL,
    moderator_id  uuid REFERENCES users (id) ON DELETE SET NULL,
    reviewed_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, subject)
);
CREATE INDEX trend_reviews_moderator ON trend_reviews (moderator_id) WHERE moderator_id IS NOT NULL;
