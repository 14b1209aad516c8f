-- The thread that a reply belongs to; what a poll was before an edit; filters as readers need them.

-- The id of the thread's first post; NULL for a post that starts one. No foreign key: a thread outlives its first post.
ALTER TABLE posts ADD COLUMN conversation_id bigint;

-- The post is the thread's first one, which may be gone.
ALTER TABLE conversation_mutes DROP CONSTRAINT conversation_mutes_post_id_fkey;

-- The options of the poll that the version had.
ALTER TABLE post_edits ADD COLUMN poll_options text[];

-- A filter's post may be gone: it is the filter that is read again when it changes, not its posts.
ALTER TABLE filter_posts DROP CONSTRAINT filter_posts_post_id_fkey;

-- only postgres
-- CockroachDB cannot write to a column in the transaction that adds it; replies from before count as threads there.
WITH RECURSIVE thread (id, first) AS (
    SELECT id, id FROM posts WHERE in_reply_to_id IS NULL
    UNION ALL
    SELECT p.id, t.first FROM thread t JOIN posts p ON p.in_reply_to_id = t.id
)
UPDATE posts p SET conversation_id = t.first FROM thread t WHERE p.id = t.id AND p.in_reply_to_id IS NOT NULL;

-- A removed filter's change carries its owner, whose read model has to change.
ALTER TABLE filters REPLICA IDENTITY FULL;

-- Mentions are not captured: whoever takes one from a post changes the post's row as well. When an account goes, its
-- mentions go by cascade, so this does it.
CREATE FUNCTION change_posts_that_mention() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE posts SET sensitive = sensitive
      WHERE id IN (SELECT post_id FROM post_mentions WHERE account_id = OLD.id); RETURN OLD; END $$;
CREATE TRIGGER users_mentioned BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION change_posts_that_mention();
-- end
