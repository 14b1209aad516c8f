"""SQL that loads the rows of `readmodels/entities.py`: a batch a query, `%(ids)s` an array, one row an existing id.

The account queries take uuid arrays, the status queries bigint arrays. The order of the rows is not the order of
the ids. Standard enough for Postgres and CockroachDB.
"""

ACCOUNTS_BY_ID = """
SELECT id, username, display_name, note, fields, avatar_media_id, header_media_id, locked, bot, discoverable,
       indexable, default_visibility, default_sensitive, default_language, created_at, silenced_at, suspended_at
FROM users
WHERE id = ANY(%(ids)s::uuid[])
"""

# A direct post shows in no public count, as that would tell of its existence.
ACCOUNT_COUNTS_BY_ID = """
SELECT u.id,
       (SELECT count(*) FROM follows f WHERE f.followee_id = u.id) AS followers_count,
       (SELECT count(*) FROM follows f WHERE f.follower_id = u.id) AS following_count,
       (SELECT count(*) FROM posts p WHERE p.author_id = u.id AND p.visibility <> 'direct') AS statuses_count,
       (SELECT p.created_at FROM posts p WHERE p.author_id = u.id AND p.visibility <> 'direct'
        ORDER BY p.id DESC LIMIT 1) AS last_status_at
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[])
"""

FEW_ACCOUNT_COUNTS_BY_ID = """
SELECT u.id,
       (SELECT count(*) FROM (SELECT 1 FROM follows f WHERE f.followee_id = u.id LIMIT %(few)s) few) AS followers_count,
       (SELECT count(*) FROM (SELECT 1 FROM follows f WHERE f.follower_id = u.id LIMIT %(few)s) few) AS following_count,
       (SELECT count(*) FROM (SELECT 1 FROM posts p WHERE p.author_id = u.id AND p.visibility <> 'direct'
                              LIMIT %(few)s) few) AS statuses_count,
       (SELECT p.created_at FROM posts p WHERE p.author_id = u.id AND p.visibility <> 'direct'
        ORDER BY p.id DESC LIMIT 1) AS last_status_at
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[])
"""
"""The same with counts that end at `%(few)s`: it takes no longer for those who have a million followers."""

STATUSES_BY_ID = """
SELECT p.id, p.author_id, p.text, p.spoiler_text, p.sensitive, p.visibility, p.language, p.in_reply_to_id,
       p.in_reply_to_account_id, p.repost_of_id, p.created_at, p.edited_at,
       coalesce(p.conversation_id, p.id) AS conversation_id, poll.id AS poll_id,
       author.username AS author_username,
       application.name AS application_name, application.website AS application_website,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', u.id, 'username', u.username) ORDER BY u.username), '[]')
        FROM post_mentions m JOIN users u ON u.id = m.account_id
        WHERE m.post_id = p.id) AS mentions,
       (SELECT coalesce(jsonb_agg(h.name ORDER BY h.name), '[]')
        FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
        WHERE ph.post_id = p.id) AS hashtags
FROM posts p
JOIN users author ON author.id = p.author_id
LEFT JOIN applications application ON application.id = p.application_id
LEFT JOIN polls poll ON poll.post_id = p.id
WHERE p.id = ANY(%(ids)s::bigint[])
"""

# Only replies that anybody may see are counted, so that a count does not tell of private ones.
STATUS_COUNTS_BY_ID = """
SELECT p.id,
       (SELECT count(*) FROM posts r WHERE r.in_reply_to_id = p.id AND r.visibility IN ('public', 'unlisted'))
           AS replies_count,
       (SELECT count(*) FROM posts r WHERE r.repost_of_id = p.id) AS reblogs_count,
       (SELECT count(*) FROM likes l WHERE l.post_id = p.id) AS favourites_count
FROM posts p
WHERE p.id = ANY(%(ids)s::bigint[])
"""

FEW_STATUS_COUNTS_BY_ID = """
SELECT p.id,
       (SELECT count(*) FROM (SELECT 1 FROM posts r WHERE r.in_reply_to_id = p.id
                              AND r.visibility IN ('public', 'unlisted') LIMIT %(few)s) few) AS replies_count,
       (SELECT count(*) FROM (SELECT 1 FROM posts r WHERE r.repost_of_id = p.id LIMIT %(few)s) few) AS reblogs_count,
       (SELECT count(*) FROM (SELECT 1 FROM likes l WHERE l.post_id = p.id LIMIT %(few)s) few) AS favourites_count
FROM posts p
WHERE p.id = ANY(%(ids)s::bigint[])
"""
"""The same with counts that end at `%(few)s`."""

# What the viewer (%(viewer)s, a uuid) has done with each of the statuses. A mute is of the thread's first post.
STATUS_FLAGS_BY_ID = """
SELECT p.id,
       EXISTS (SELECT 1 FROM likes l WHERE l.post_id = p.id AND l.user_id = %(viewer)s) AS favourited,
       EXISTS (SELECT 1 FROM posts r WHERE r.repost_of_id = p.id AND r.author_id = %(viewer)s) AS reblogged,
       EXISTS (SELECT 1 FROM bookmarks b WHERE b.post_id = p.id AND b.user_id = %(viewer)s) AS bookmarked,
       EXISTS (SELECT 1 FROM conversation_mutes c
               WHERE c.post_id = coalesce(p.conversation_id, p.id) AND c.user_id = %(viewer)s) AS muted,
       EXISTS (SELECT 1 FROM pins i WHERE i.post_id = p.id AND i.user_id = %(viewer)s) AS pinned
FROM posts p
WHERE p.id = ANY(%(ids)s::bigint[])
"""
