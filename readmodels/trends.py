"""Trends: hashtags and posts whose use rises, by how many different people use them; never by how often.

Layout, in Redis with expiry and nowhere else; whatever is written is a set, so that a repetition changes nothing:

    tag:{<name>}:<day>        sorted set: account (16) and post (8), scored by the post's ms; kept for nine days
    tag_posts:{<post id>}     the names that the post is counted under, one a line; kept as long
    post:{<post id>}          sorted set: account (16) and kind (1: f favourite, r repost, a answer), scored by its ms;
                              kept for two days after the last
    trending:{tags}:<hour>    set: the names used in an hour, `trending:{posts}:<hour>` the posts; kept for two days
    trends:tags trends:posts  the rankings, JSON, made anew every few seconds; kept for ten minutes

Days and hours are numbered from the Unix epoch, UTC.

How much something rises is Pearson's measure of how far an observed count is from the expected one,

    (observed - expected)^2 / expected       0 unless observed > expected

which for counts of independent people (Poisson) tells a jump from noise: 40 people instead of 10 count for more (90)
than 1,040 instead of 1,000 (1.6). What is expected is the subject's own past, at least 1 person:

    hashtag   observed: people who used it in the last 24 hours; expected: people a day in the seven days before them
    post      observed: people who did something with it in the last 6 hours; expected: a third of the 18 hours' before

Whoever did it more than once counts once; nobody counts for their own post; people who are suspended or silenced count
for nothing, and neither does anybody in the first hours after signing up. Fewer than a least number of people never
trend. That is what makes a crowd of posts by few people worthless.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
HISTORY_DAYS = 7

# What a hashtag's days look like: the posts that count are public and no reposts.
TAG_HISTORY = """
SELECT h.name, floor(extract(epoch FROM p.created_at) / 86400)::bigint AS day, count(*) AS uses,
       count(DISTINCT p.author_id) AS accounts
FROM hashtags h
JOIN post_hashtags ph ON ph.hashtag_id = h.id AND ph.post_id >= %(first)s
JOIN posts p ON p.id = ph.post_id
WHERE h.name = ANY(%(names)s) AND p.visibility = 'public' AND p.repost_of_id IS NULL
GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Use:
    """A hashtag's use on one day."""

    uses: int
    accounts: int


NO_USE = Use(0, 0)
History = Mapping[int, Use]
"""A hashtag's use by day."""


def history_entity(history: History, today: int) -> list[dict[str, str]]:
    """The `history` of Mastodon's Tag: the last seven days, today first, numbers as strings."""
    days = [today - back for back in range(HISTORY_DAYS)]
    return [
        {
            "day": str(day * 86_400),
            "uses": str(history.get(day, NO_USE).uses),
            "accounts": str(history.get(day, NO_USE).accounts),
        }
        for day in days
    ]


def histories(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, Use]]:
    """Histories by name from the rows of `TAG_HISTORY`."""
    found: dict[str, dict[int, Use]] = {}
    for row in rows:
        found.setdefault(row["name"], {})[int(row["day"])] = Use(row["uses"], row["accounts"])
    return found
