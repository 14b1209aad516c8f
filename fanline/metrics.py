"""Every Prometheus metric of Fanline, declared once: this list is the documentation.

Names follow the Prometheus conventions: base units, `_total` for counters, `_seconds` for durations.
"""

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SINK_BUCKETS = (0.00025, 0.0005, *LATENCY_BUCKETS)
SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)

# Dataflows.
LAG_SECONDS = Gauge(
    "fanline_lag_seconds",
    "Age of the newest record that the stage has passed; 0 when it has reached the end of the partition.",
    ["flow", "stage", "topic", "partition"],
)
RECORDS = Counter("fanline_records_total", "Kafka records that a flow has read.", ["flow", "topic"])
BATCH_SIZE = Histogram("fanline_batch_size", "Items in one write to a sink.", ["flow", "sink"], buckets=SIZE_BUCKETS)
SINK_SECONDS = Histogram(
    "fanline_sink_seconds", "From sending a batch to its acknowledgement.", ["flow", "sink"], buckets=SINK_BUCKETS
)
SINK_RETRIES = Counter("fanline_sink_retries_total", "Batches that a sink had to send again.", ["flow", "sink"])
WAITING_SECONDS = Gauge(
    "fanline_waiting_seconds",
    "How long the flow has been waiting for what does not answer (database, redis, kafka, registry, opensearch, "
    "archive, or instance 0 of the flow); 0 while it goes on.",
    ["flow", "dependency"],
)
DEAD_LETTERS = Counter("fanline_dead_letters_total", "Records sent to the dead-letter topic.", ["flow", "reason"])

# Timelines.
DELIVERIES = Counter("fanline_deliveries_total", "Posts appended to a warm home timeline.")
DELIVERIES_COLD = Counter("fanline_deliveries_cold_total", "Deliveries skipped because the timeline was cold.")
REBUILDS = Counter("fanline_rebuilds_total", "Rebuilds of followers and recent posts after Redis had lost them.")
COMPACTIONS = Counter("fanline_compactions_total", "Home timelines sorted, deduplicated and trimmed.")
POST_TO_TIMELINE_SECONDS = Histogram(
    "fanline_post_to_timeline_seconds",
    "From the commit of a post to the acknowledged append to its last follower's timeline.",
    buckets=LATENCY_BUCKETS,
)

# Counts and flags.
VALUES_LOADED = Counter(
    "fanline_values_loaded_total", "Counts of posts and accounts that the engagement flow loaded from the database."
)

# Notifications.
NOTIFICATIONS = Counter("fanline_notifications_total", "Notifications stored, those that policies hide included.")

# Database.
SQL_STATEMENTS = Counter("fanline_sql_statements_total", "SQL statements that this process has executed.")
SQL_RETRIES = Counter("fanline_sql_retries_total", "Transactions run again after a serialisation failure or deadlock.")

# The API.
API_SECONDS = Histogram(
    "fanline_api_seconds",
    "From a request's headers to its answer, by route template.",
    ["method", "route", "status"],
    buckets=LATENCY_BUCKETS,
)

# Streams.
STREAM_CLIENTS = Gauge(
    "fanline_stream_clients", "Streams that are open, by transport (websocket or sse).", ["transport"]
)
STREAM_SUBSCRIPTIONS = Gauge("fanline_stream_subscriptions", "Subscriptions of open streams.", ["stream"])
STREAM_EVENTS = Counter("fanline_stream_events_total", "Events written to clients.", ["stream", "event"])
STREAM_CAUGHT_UP = Counter("fanline_stream_caught_up_total", "Events of the past sent to clients that came back.")
STREAM_ENDS = Counter(
    "fanline_stream_ends_total", "Streams that have ended (gone, slow, revoked, draining, lost).", ["reason"]
)
STREAM_SECONDS = Histogram(
    "fanline_stream_seconds",
    "From the commit of a post to its hand-over to a client's socket.",
    buckets=LATENCY_BUCKETS,
)

# Channels of notifications.
CHANNEL_SENDS = Counter(
    "fanline_channel_sends_total",
    "Notifications sent through a channel, by outcome (sent, retry, failed, gone, unknown, skipped).",
    ["channel", "outcome"],
)
CHANNEL_SEND_SECONDS = Histogram(
    "fanline_channel_send_seconds", "One message to its target's server.", ["channel"], buckets=LATENCY_BUCKETS
)

# The audit that always runs.
COMPLETENESS = Gauge(
    "fanline_completeness_ratio",
    "Share of reads equal to the database once the pipeline has passed it, by read model, of late; none without reads.",
    ["model"],
)
STALENESS_SECONDS = Gauge(
    "fanline_staleness_seconds",
    "How long it took until what differed at first was equal to the database; 0 when nothing differed.",
    ["model"],
)
DRIFT = Counter(
    "fanline_drift_total",
    "Differences from the database that stayed although the pipeline had passed it, by kind (missing, extra, "
    "duplicate, out_of_order).",
    ["model", "kind"],
)
AUDITED = Counter("fanline_audited_total", "Reads compared with the database.", ["model"])
DRIFT_REPAIRS = Counter(
    "fanline_drift_repairs_total", "Subjects repaired, by outcome (repaired, failed).", ["model", "outcome"]
)

# API timelines.
HOME_READS = Counter(
    "fanline_home_reads_total",
    "Home timelines read, by what answered (redis or sql) and why (warm, cold, building, not_ready, own_write, "
    "past_floor, circuit_open, redis_unavailable, redis_error).",
    ["source", "reason"],
)
NOTIFICATION_READS = Counter(
    "fanline_notification_reads_total",
    "Inboxes read, by what answered (redis or sql) and why (warm, cold, own_write, circuit_open, redis_unavailable, "
    "redis_error).",
    ["source", "reason"],
)
DOCUMENT_READS = Counter(
    "fanline_document_reads_total", "Documents read, by where they were found (process, redis or sql).", ["source"]
)
REDIS_ROUND_TRIPS = Counter("fanline_redis_round_trips_total", "Batches of commands that the API sent to Redis.")
HOME_BUILDS = Counter("fanline_home_builds_total", "Cold home timelines built from the database.")

# Search.
SEARCHES = Counter("fanline_searches_total", "Searches, by what answered (opensearch or database).", ["source"])
