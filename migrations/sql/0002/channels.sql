-- What is to be sent through a channel and what was. A row is claimed before it is sent, so that nothing is sent twice.
CREATE TABLE notification_deliveries (
    notification_id  bigint NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    channel          text NOT NULL CHECK (channel IN ('push', 'email')),
    -- The push subscription, or the person who gets the mail.
    target           uuid NOT NULL,
    state            text NOT NULL DEFAULT 'pending'
                     CHECK (state IN ('pending', 'sending', 'sent', 'failed', 'unknown', 'skipped')),
    attempts         int NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz NOT NULL DEFAULT now(),
    claimed_at       timestamptz,
    reason           text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (notification_id, channel, target)
);
-- What is due now.
CREATE INDEX notification_deliveries_due ON notification_deliveries (channel, next_attempt_at) WHERE state = 'pending';
-- What else waits for a target that has failed, or is due for it.
CREATE INDEX notification_deliveries_target ON notification_deliveries (target, channel) WHERE state = 'pending';
-- What a process that died was sending.
CREATE INDEX notification_deliveries_claimed ON notification_deliveries (claimed_at) WHERE state = 'sending';

CREATE TABLE email_preferences (
    user_id              uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    digest               text NOT NULL DEFAULT 'never' CHECK (digest IN ('never', 'hourly', 'daily', 'weekly')),
    unsubscribe_token    text NOT NULL UNIQUE,
    next_digest_at       timestamptz,
    -- Set while an address waits to be confirmed.
    confirmation_token   text UNIQUE,
    confirmation_due_at  timestamptz,
    updated_at           timestamptz NOT NULL DEFAULT now()
);
-- Who is to be asked whether the address is theirs.
CREATE INDEX email_preferences_confirmation ON email_preferences (confirmation_due_at)
    WHERE confirmation_due_at IS NOT NULL;

-- only postgres
-- Pruning finds old rows without an index that every insert would have to keep.
CREATE INDEX notification_deliveries_created_at ON notification_deliveries USING brin (created_at);
-- end
