"""SQL of groups that have more notifications than a page reads. Pure.

A page of groups and the count of unread ones come from a slice of the newest notifications. Where a few groups fill the
slice the database goes on: from one notification to the next that is in none of the groups met so far (`heads_query`),
which reads each row of the index at most once, whatever it belongs to.
"""

from collections.abc import Collection
from uuid import UUID

from readmodels.effects import Query
from readmodels.home_rules import Page
from readmodels.notification_pages import Wanted, conditions_of, parameters_of
from readmodels.notifications import COLUMNS, SHOWN, UNGROUPED

SAMPLE_ACCOUNTS = 8
"""How many of a group's people are shown by picture; as in Mastodon."""

# Notifications of no group met yet; what is shown by itself is a group of its own.
_NEW = "(n.type <> ALL(%(grouped)s::text[]) OR n.group_key <> ALL({seen}))"

COUNT_GROUPS = f"""
SELECT e.key, count(*) AS count, min(n.id) FILTER (WHERE n.id >= %(bottom)s) AS oldest
FROM unnest(%(keys)s::text[], %(newest)s::bigint[]) AS e (key, newest)
JOIN notifications n ON n.group_key = e.key AND n.id <= e.newest
WHERE {SHOWN} AND n.id BETWEEN %(from)s AND %(to)s
GROUP BY e.key
"""
"""How many notifications groups have up to their newest one shown, and the oldest one above the end of the page."""


def heads_query(user_id: UUID, page: Page, wanted: Wanted, grouped: Collection[str], seen: Collection[str]) -> Query:
    """The ids at which further groups begin, in the direction of the page: at most its limit.

    `seen` are the keys of the groups that are known. With `min_id` the page goes upwards, otherwise down from `max_id`.
    """
    upwards = page.min_id is not None
    beyond, order = (">", "ASC") if upwards else ("<", "DESC")
    condition = f"{conditions_of(page, wanted)} AND {_NEW.format(seen='h.seen')}"
    return Query(
        f"""
WITH RECURSIVE heads (id, seen, number) AS (
  SELECT %(start)s::bigint, %(seen)s::text[], 0
  UNION ALL
  SELECT n.id,
         CASE WHEN n.type = ANY(%(grouped)s::text[]) THEN array_append(h.seen, n.group_key) ELSE h.seen END,
         h.number + 1
  FROM heads h
  CROSS JOIN LATERAL (
    SELECT n.id, n.type, n.group_key FROM notifications n
    WHERE {condition} AND n.id {beyond} h.id ORDER BY n.id {order} LIMIT 1
  ) n
  WHERE h.number < %(limit)s
)
SELECT id FROM heads WHERE number > 0 ORDER BY number
""",
        parameters_of(user_id, page, wanted)
        | {"start": page.above if upwards else page.max_id, "grouped": sorted(grouped), "seen": _large(seen)},
    )


def members_query(user_id: UUID, page: Page, wanted: Wanted, grouped: Collection[str], seen: Collection[str]) -> Query:
    """The newest notifications of each group of a range, as many as are shown, without the groups that are known."""
    condition = f"{conditions_of(page, wanted)} AND {_NEW.format(seen='%(seen)s::text[]')}"
    return Query(
        f"""
SELECT {COLUMNS} FROM (
  SELECT {COLUMNS}, row_number() OVER (
           PARTITION BY CASE WHEN n.type = ANY(%(grouped)s::text[]) THEN n.group_key ELSE n.id::text END
           ORDER BY n.id DESC) AS place
  FROM notifications n WHERE {condition}
) n
WHERE n.place <= %(sample)s ORDER BY n.id DESC
""",
        parameters_of(user_id, page, wanted)
        | {"grouped": sorted(grouped), "seen": _large(seen), "sample": SAMPLE_ACCOUNTS},
    )


def _large(keys: Collection[str]) -> list[str]:
    """Those that may have further notifications."""
    return sorted(key for key in keys if not key.startswith(UNGROUPED))
