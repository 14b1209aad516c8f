"""What Postgres publishes to the connectors; the same tables as in their templates (a test holds that).

The publications are made by the tables' owner. Debezium's `publication.autocreate.mode=filtered` finds them equal to
its table list and leaves them alone, so its role needs to own nothing.
"""

CAPTURED = (
    "users",
    "posts",
    "follows",
    "follow_requests",
    "blocks",
    "mutes",
    "media",
    "likes",
    "bookmarks",
    "pins",
    "conversation_mutes",
    "polls",
    "poll_votes",
    "notifications",
    "markers",
    "filters",
    "heartbeat",
    "signal",
)

# Publication: (tables, operations). Pruned outbox rows are no news, so their deletes stay out of the log.
PUBLICATIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "fanline_cdc": (CAPTURED, "insert, update, delete"),
    "fanline_outbox": (("outbox",), "insert"),
}
