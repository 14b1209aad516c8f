-- Reports and what was done. Records of moderation outlive the people and posts they are about.

CREATE TABLE reports (
    id               uuid PRIMARY KEY,
    reporter_id      uuid REFERENCES users (id) ON DELETE SET NULL,
    target_id        uuid REFERENCES users (id) ON DELETE SET NULL,
    category         text NOT NULL DEFAULT 'other' CHECK (category IN ('spam', 'legal', 'violation', 'other')),
    comment          text NOT NULL DEFAULT '' CHECK (char_length(comment) <= 1000),
    rule_ids         text[] NOT NULL DEFAULT '{}',
    assigned_to      uuid REFERENCES users (id) ON DELETE SET NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    resolved_at      timestamptz,
    resolved_by      uuid REFERENCES users (id) ON DELETE SET NULL
);
-- The open queue, oldest first.
CREATE INDEX reports_open ON reports (created_at) WHERE resolved_at IS NULL;
-- What was said about a person; what a person reported (and the SET NULLs).
CREATE INDEX reports_target ON reports (target_id, created_at DESC);
CREATE INDEX reports_reporter ON reports (reporter_id, created_at DESC);
CREATE INDEX reports_assigned ON reports (assigned_to) WHERE assigned_to IS NOT NULL;
CREATE INDEX reports_resolver ON reports (resolved_by) WHERE resolved_by IS NOT NULL;

-- No foreign key on the post: a report keeps naming what was removed.
CREATE TABLE report_posts (
    report_id  uuid NOT NULL REFERENCES reports (id) ON DELETE CASCADE,
    post_id    bigint NOT NULL,
    PRIMARY KEY (report_id, post_id)
);

CREATE TABLE moderation_actions (
    id            uuid PRIMARY KEY,
    moderator_id  uuid REFERENCES users (id) ON DELETE SET NULL,
    target_id     uuid REFERENCES users (id) ON DELETE SET NULL,
    post_id       bigint,
    report_id     uuid REFERENCES reports (id) ON DELETE SET NULL,
    action        text NOT NULL CHECK (action IN ('none', 'warn', 'sensitive', 'silence', 'unsilence', 'suspend',
                                                  'unsuspend', 'delete_post', 'resolve', 'reopen')),
    text          text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now()
);
-- The history of a person, of a moderator and of a report.
CREATE INDEX moderation_actions_target ON moderation_actions (target_id, created_at DESC);
CREATE INDEX moderation_actions_moderator ON moderation_actions (moderator_id, created_at DESC);
CREATE INDEX moderation_actions_report ON moderation_actions (report_id) WHERE report_id IS NOT NULL;
