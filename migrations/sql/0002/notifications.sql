-- What a person wants to be told. A missing row means: everything.

CREATE TABLE notification_policies (
    user_id               uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    for_not_following     text NOT NULL DEFAULT 'accept' CHECK (for_not_following IN ('accept', 'filter', 'drop')),
    for_not_followers     text NOT NULL DEFAULT 'accept' CHECK (for_not_followers IN ('accept', 'filter', 'drop')),
    for_new_accounts      text NOT NULL DEFAULT 'accept' CHECK (for_new_accounts IN ('accept', 'filter', 'drop')),
    for_private_mentions  text NOT NULL DEFAULT 'accept' CHECK (for_private_mentions IN ('accept', 'filter', 'drop')),
    for_limited_accounts  text NOT NULL DEFAULT 'accept' CHECK (for_limited_accounts IN ('accept', 'filter', 'drop')),
    updated_at            timestamptz NOT NULL DEFAULT now()
);

-- Senders whose notifications are wanted whatever the policy says.
CREATE TABLE notification_permissions (
    user_id          uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    from_account_id  uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, from_account_id)
);
CREATE INDEX notification_permissions_from ON notification_permissions (from_account_id);
