"""Who may see a post, as SQL. `%(viewer)s` is a uuid, or NULL for somebody who is not signed in."""


def visible(post: str) -> str:
    """A condition on a row of `posts`, named by its alias: visibility, and that the author has not blocked the viewer.

    It does not look into what a repost reposts; `listed` does.
    """
    return f"""({post}.author_id = %(viewer)s::uuid OR (
      NOT EXISTS (SELECT 1 FROM blocks WHERE blocker_id = {post}.author_id AND blocked_id = %(viewer)s::uuid)
      AND NOT EXISTS (SELECT 1 FROM users WHERE id = {post}.author_id AND suspended_at IS NOT NULL)
      AND ({post}.visibility IN ('public', 'unlisted')
           OR ({post}.visibility = 'private' AND EXISTS (
               SELECT 1 FROM follows WHERE followee_id = {post}.author_id AND follower_id = %(viewer)s::uuid))
           OR EXISTS (SELECT 1 FROM post_mentions WHERE post_id = {post}.id AND account_id = %(viewer)s::uuid))))"""


def listed(post: str) -> str:
    """`visible`, and for a repost that its original is visible too."""
    return f"""({visible(post)} AND ({post}.repost_of_id IS NULL OR EXISTS (
      SELECT 1 FROM posts original WHERE original.id = {post}.repost_of_id AND {visible("original")})))"""


def unmuted(author: str) -> str:
    """The viewer neither blocks nor mutes the author: for lists that mix people. `author` is an expression."""
    return f"""(NOT EXISTS (SELECT 1 FROM blocks WHERE blocker_id = %(viewer)s::uuid AND blocked_id = {author})
      AND NOT EXISTS (SELECT 1 FROM mutes WHERE muter_id = %(viewer)s::uuid AND muted_id = {author}
                      AND (expires_at IS NULL OR expires_at > now())))"""
