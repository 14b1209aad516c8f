"""The oracle of the time series: what is counted, as SQL over rows by the time they were made.

Both queries take ranges of time as arrays, each with the width of its buckets in seconds, and answer a row for each
bucket in which anything happened. Buckets begin at multiples of their width since the epoch, in UTC.
"""

_RANGES = "unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(widths)s::bigint[])"
_BUCKET = "(floor(extract(epoch FROM f.created_at) / r.width)::bigint * r.width)"

# A direct post shows in no count, as that would tell of its existence, but its author is active.
INSTANCE_FACTS = """
  SELECT created_at, author_id AS actor,
         CASE WHEN repost_of_id IS NOT NULL THEN 'repost'
              WHEN visibility = 'direct' THEN 'direct' ELSE 'post' END AS kind
  FROM posts WHERE created_at >= r.starts_at AND created_at < r.ends_at
  UNION ALL
  SELECT created_at, user_id, 'like' FROM likes WHERE created_at >= r.starts_at AND created_at < r.ends_at
  UNION ALL
  SELECT created_at, follower_id, 'follow' FROM follows WHERE created_at >= r.starts_at AND created_at < r.ends_at
  UNION ALL
  SELECT created_at, NULL::uuid, 'sign_up' FROM users WHERE created_at >= r.starts_at AND created_at < r.ends_at
"""

INSTANCE_BUCKETS = f"""
SELECT r.width, {_BUCKET} AS bucket,
       count(*) FILTER (WHERE f.kind = 'post') AS posts,
       count(*) FILTER (WHERE f.kind = 'repost') AS reposts,
       count(*) FILTER (WHERE f.kind = 'like') AS likes,
       count(*) FILTER (WHERE f.kind = 'follow') AS follows,
       count(*) FILTER (WHERE f.kind = 'sign_up') AS sign_ups,
       count(DISTINCT f.actor) AS active_users,
       max(f.created_at) AS newest
FROM {_RANGES} AS r (starts_at, ends_at, width)
CROSS JOIN LATERAL ({INSTANCE_FACTS}) AS f
GROUP BY 1, 2
"""
"""The whole instance. Active is who has posted, reposted, liked or followed."""

ACCOUNT_BUCKETS = f"""
SELECT r.account_id, r.width, {_BUCKET} AS bucket,
       count(*) FILTER (WHERE f.kind = 'post') AS posts,
       count(*) FILTER (WHERE f.kind = 'repost') AS reposts,
       count(*) FILTER (WHERE f.kind = 'like_received') AS likes_received,
       count(*) FILTER (WHERE f.kind = 'repost_received') AS reposts_received,
       count(*) FILTER (WHERE f.kind = 'reply_received') AS replies_received,
       count(*) FILTER (WHERE f.kind = 'follower') AS followers_gained,
       max(f.created_at) AS newest
FROM (
  SELECT * FROM unnest(%(accounts)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(widths)s::bigint[])
      AS ranges (account_id, starts_at, ends_at, width)
) AS r
CROSS JOIN LATERAL (
  SELECT created_at, CASE WHEN repost_of_id IS NULL THEN 'post' ELSE 'repost' END AS kind
  FROM posts
  WHERE author_id = r.account_id AND visibility <> 'direct' AND created_at >= r.starts_at AND created_at < r.ends_at
  UNION ALL
  SELECT l.created_at, 'like_received' FROM posts p JOIN likes l ON l.post_id = p.id
  WHERE p.author_id = r.account_id AND l.created_at >= r.starts_at AND l.created_at < r.ends_at
  UNION ALL
  SELECT q.created_at, 'repost_received' FROM posts p JOIN posts q ON q.repost_of_id = p.id
  WHERE p.author_id = r.account_id AND q.created_at >= r.starts_at AND q.created_at < r.ends_at
  UNION ALL
  SELECT q.created_at, 'reply_received' FROM posts p JOIN posts q ON q.in_reply_to_id = p.id
  WHERE p.author_id = r.account_id AND q.visibility IN ('public', 'unlisted')
    AND q.created_at >= r.starts_at AND q.created_at < r.ends_at
  UNION ALL
  SELECT created_at, 'follower' FROM follows
  WHERE followee_id = r.account_id AND created_at >= r.starts_at AND created_at < r.ends_at
) AS f
GROUP BY 1, 2, 3
"""
"""What some accounts wrote and got. Only replies that anybody may see are counted."""

AUTHORS_OF_POSTS = "SELECT id, author_id FROM posts WHERE id = ANY(%(ids)s::bigint[])"

ACTIVE_BETWEEN = f"""
SELECT DISTINCT f.actor
FROM (SELECT %(starts_at)s::timestamptz AS starts_at, %(ends_at)s::timestamptz AS ends_at) AS r
CROSS JOIN LATERAL ({INSTANCE_FACTS}) AS f
WHERE f.actor IS NOT NULL
"""
"""Who was active in a range of time."""

ACTIVE_COUNT = f"SELECT count(*) AS active FROM ({ACTIVE_BETWEEN}) AS people"
"""How many were."""
