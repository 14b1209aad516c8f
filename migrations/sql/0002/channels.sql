-- What has been sent, so that a replayed event is never sent twice; what people want by e-mail.

CREATE TABLE notification_deliveries (
    notification_id  bigint NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    channel          text NOT NULL CHECK (channel IN ('push', 'email')),
    target           text NOT NULL,
    delivered_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (notification_id, channel, target)
);

CREATE TABLE email_preferences (
    user_id            uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    digest             text NOT NULL DEFAULT 'never' CHECK (digest IN ('never', 'hourly', 'daily', 'weekly')),
    unsubscribe_token  text NOT NULL UNIQUE,
    last_digest_id     bigint NOT NULL DEFAULT 0,
    next_digest_at     timestamptz,
    updated_at         timestamptz NOT NULL DEFAULT now()
);
-- Whose digest is due.
CREATE INDEX email_preferences_due ON email_preferences (next_digest_at) WHERE next_digest_at IS NOT NULL;
