"""The dataflows, the topics that each reads, and the names that follow from a flow's name."""

from collections.abc import Mapping
from importlib.resources import files

EVENTS = tuple(
    sorted(
        file.name.removesuffix(".avsc") for file in files("schemas").joinpath("avro").iterdir() if ".avsc" in file.name
    )
)
"""The topics of domain events: one a contract (schemas/contracts.py)."""

FLOWS: Mapping[str, tuple[str, ...]] = {
    "followers": ("cdc.follows", "cdc.users"),
    "timelines": ("cdc.posts",),
    "cards": (
        "cdc.users",
        "cdc.posts",
        "cdc.follows",
        "cdc.blocks",
        "cdc.mutes",
        "cdc.media",
        "cdc.polls",
        "cdc.poll_votes",
        "cdc.filters",
    ),
    "engagement": (
        "cdc.posts",
        "cdc.likes",
        "cdc.bookmarks",
        "cdc.pins",
        "cdc.conversation_mutes",
        "cdc.poll_votes",
        "cdc.follows",
        "cdc.users",
    ),
    "aggregates": ("cdc.posts", "cdc.likes", "cdc.follows", "cdc.users"),
    "archive": EVENTS,
    "notifications": (
        *("post.created", "post.updated", "post.deleted", "engagement.recorded"),
        *("follow.created", "follow.deleted", "follow.requested"),
        *("report.created", "moderation.recorded", "account.created", "cdc.blocks"),
    ),
    "search": ("cdc.users", "cdc.posts", "cdc.likes", "cdc.follows"),
    "dispatcher": ("cdc.notifications", "cdc.markers", "cdc.users"),
    "push": ("notification.dispatched",),
    "email": ("notification.dispatched",),
    "trends": ("cdc.posts", "cdc.likes"),
}
"""Topics a flow, in the order in which the local stack numbers the flows' metrics ports."""

EVERY_FLOW: Mapping[str, tuple[str, ...]] = {**FLOWS, "outbox": ("cdc.outbox",)}
"""The same with the flow that only a CockroachDB needs: on Postgres, Debezium routes the events of the outbox."""

TRAILING = frozenset({"archive", "notifications", "push", "email"})
"""Flows whose results no read of the API shows: who waits for the read models does not wait for them."""

SERVING = tuple(flow for flow in FLOWS if flow not in TRAILING)
"""The others."""

COLLECTING = frozenset({"aggregates", "search", "trends"})
"""Flows that collect changes for a second or more before they apply them, or whose readers look for their own writes in
the database: the barrier waits for them, readers of their own writes do not."""

PROMPT = tuple(flow for flow in SERVING if flow not in COLLECTING)
"""Flows that apply changes as they come."""

UNHURRIED = TRAILING | COLLECTING
"""Flows whose results nobody waits for within a tenth of a second: they take records in larger batches."""

HEARTBEAT_TOPIC = "cdc.heartbeat"

INSTANCE_PORTS = 20
"""Metrics ports of a flow's instances are this far apart, so that the flows of one machine do not meet."""

_PREFIX = "fanline-"


def flows_of(dialect: str) -> Mapping[str, tuple[str, ...]]:
    """The flows that run over a kind of database: `postgres` or `cockroach`."""
    return EVERY_FLOW if dialect == "cockroach" else FLOWS


def group_of(flow: str) -> str:
    """The consumer group whose committed offsets say what the flow has applied."""
    return _PREFIX + flow


def flow_of(group: str) -> str:
    """The flow of a consumer group."""
    return group.removeprefix(_PREFIX)


def dead_letter_topic(flow: str) -> str:
    """Where the flow's rejected records go."""
    return f"dead-letter.{flow}"


def retry_topic(flow: str) -> str:
    """Where the flow alone finds rejected records that an operator has sent back to it (connectors/replay.py)."""
    return f"retry.{flow}"


def topics_of(flow: str) -> tuple[str, ...]:
    """Everything that a flow reads: its topics and what was sent back to it."""
    return (*EVERY_FLOW[flow], retry_topic(flow))


def metrics_port(first_port: int, flow: str, instance: int = 0) -> int:
    """The port of /metrics of an instance of a flow, where `first_port` is that of the first flow."""
    return first_port + list(EVERY_FLOW).index(flow) + INSTANCE_PORTS * instance


def owned(partition: int, instance: int, instances: int) -> bool:
    """Whether an instance of a flow reads a partition: every instance has a fixed share."""
    return partition % instances == instance
