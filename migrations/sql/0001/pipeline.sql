-- What the way from a write to the log needs.

-- A repeated request with the same key gets the post of the first one. Kept for an hour by pruning.
CREATE TABLE idempotency_keys (
    user_id     uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key         text NOT NULL CHECK (char_length(key) <= 255),
    post_id     bigint REFERENCES posts (id) ON DELETE SET NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
)${expires_in_one_hour};
CREATE INDEX idempotency_keys_post ON idempotency_keys (post_id) WHERE post_id IS NOT NULL;

-- Domain events of the same transaction as the rows; columns are named as Debezium's EventRouter knows them.
-- Rows are never deleted in the transaction that made them: a changefeed would then show nothing.
CREATE TABLE outbox (
    id             uuid PRIMARY KEY,
    aggregatetype  text NOT NULL,
    aggregateid    text NOT NULL,
    type           text NOT NULL,
    payload        bytea NOT NULL,
    traceparent    text,
    created_at     timestamptz NOT NULL DEFAULT now()
)${expires_in_one_day};

-- One row; writing it proves how far the log has come.
CREATE TABLE heartbeat (
    id  int PRIMARY KEY,
    ts  timestamptz NOT NULL
);

-- Debezium's signals, such as incremental snapshots.
CREATE TABLE signal (
    id    text PRIMARY KEY,
    type  text NOT NULL,
    data  text
);

-- only postgres
-- Pruning finds old rows without an index that every insert would have to keep.
CREATE INDEX outbox_created_at ON outbox USING brin (created_at);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys USING brin (created_at);

-- A deleted post's change carries the whole row: flows must know its author and what it reposted.
ALTER TABLE posts REPLICA IDENTITY FULL;
-- end
