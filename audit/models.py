"""The read models that the audit knows: a line each.

Add one: write `audit/NAME.py` with a check and a repair, and its line in `models`. The checks of the command
(`fanline audit`) and of the audit that always runs (`fanline audit --always`) are these.
"""

from collections.abc import Callable, Sequence
from typing import Any

from audit.aggregates import aggregates_model
from audit.checks import Check, check_documents, check_followers, check_recents, check_timelines
from audit.engagement import check_counts, check_flags, polls_of, repair_values
from audit.model import Model, Subjects, people, posts
from audit.notifications import notification_models
from audit.reads import check_reads
from audit.repairs import Repair, repair_documents, repair_followers, repair_recents, repair_timelines
from audit.search import check_search, repair_search, search_posts
from audit.stores import Stores
from audit.trends import trend_models
from fanline.addresses import public_url
from fanline.settings import Settings
from readmodels import incremental
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.flags import FLAGS
from readmodels.poll_documents import POLL
from readmodels.relations import VIEWER
from readmodels.search import POSTS, USERS

__all__ = ["Check", "Model", "Repair", "Subjects", "models", "people", "posts"]


def models(settings: Settings) -> tuple[Model, ...]:
    """Every read model that is compared with its oracle, in the order of the report."""
    url = public_url(settings)
    incremental.use_dialect(settings.database_dialect)
    return (
        Model("timelines_redis", people, check_timelines, repair_timelines, "timelines"),
        Model("recents", people, check_recents, repair_recents, "timelines"),
        Model("followers", people, check_followers, repair_followers, "followers"),
        _documents("relations", people, (VIEWER,), url),
        _documents("account_cards", people, (ACCOUNT_CARD,), url),
        Model("account_counts", people, check_counts(ACCOUNT_COUNTS), repair_values(ACCOUNT_COUNTS), "engagement"),
        Model("flags", people, check_flags, repair_values(FLAGS), "engagement"),
        _documents("status_cards", posts, (STATUS_CARD,), url),
        Model("status_counts", posts, check_counts(STATUS_COUNTS), repair_values(STATUS_COUNTS), "engagement"),
        _documents("poll_counts", lambda stores, subjects: polls_of(stores, subjects.posts), (POLL,), url),
        aggregates_model(settings),
        *notification_models(),
        Model("search_users", people, check_search(USERS), repair_search(USERS), "search"),
        Model(
            "search_posts",
            lambda stores, subjects: search_posts(stores, subjects.posts),
            check_search(POSTS),
            repair_search(POSTS),
            "search",
        ),
        *trend_models(),
    )


def always_models(settings: Settings) -> tuple[Model, ...]:
    """What the audit that always runs compares: the same, and what readers of warm timelines are shown."""
    reads = Model("timelines", people, check_reads(public_url(settings)), repair_timelines, "timelines")
    return (reads, *models(settings))


def _documents(
    name: str, subjects: Callable[[Stores, Subjects], Sequence[Any]], kinds: Sequence[Any], url: str
) -> Model:
    return Model(name, subjects, check_documents(kinds, url), repair_documents(kinds, url), "cards")
