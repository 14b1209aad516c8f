"""One typed settings object, read from environment variables that start with `FANLINE_`."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fanline.errors import ConfigurationError


class Settings(BaseSettings):
    """Every setting of every part; each has a type, a default and a description (docs/settings.md lists them)."""

    model_config = SettingsConfigDict(env_prefix="FANLINE_", extra="ignore", frozen=True)

    # Where things are.
    state_dir: Path = Field(Path(".fanline"), description="Folder of the local stack's data, logs and downloads.")
    host: str = Field("127.0.0.1", description="Address that local servers and the API bind to.")

    # The local stack's ports.
    postgres_port: int = Field(15432, description="Port of Postgres.")
    redis_port: int = Field(16379, description="Port of Valkey or Redis.")
    kafka_port: int = Field(19092, description="Port of the Kafka broker.")
    kafka_controller_port: int = Field(19093, description="Port of the KRaft controller.")
    connect_port: int = Field(18083, description="Port of Kafka Connect's REST API.")
    registry_port: int = Field(18081, description="Port of the schema registry.")
    opensearch_port: int = Field(
        9250, ge=9201, le=9299, description="HTTP port of OpenSearch; its runner takes 9201 to 9299 only."
    )
    opensearch_transport_port: int = Field(9300, description="Port that OpenSearch's nodes use among themselves.")
    flows_metrics_port: int = Field(
        19101, description="Port of the first dataflow's /metrics in the local stack; the others follow it."
    )
    servers_dir: Path | None = Field(
        None, description="Folder of the downloaded servers; not set: `servers` in state_dir."
    )

    # Servers' addresses; empty means the local stack's.
    database_url: SecretStr = Field(
        SecretStr(""), description="Postgres or CockroachDB connection URL; empty: the local stack."
    )
    database_dialect: Literal["postgres", "cockroach"] = Field(
        "postgres", description="What database_url leads to: decides which connectors `fanline connectors` runs."
    )
    redis_url: SecretStr = Field(SecretStr(""), description="Redis or Valkey URL; empty: the local stack.")
    redis_cluster: bool = Field(False, description="Whether redis_url names a node of a Redis Cluster.")
    kafka_bootstrap_servers: str = Field("", description="Kafka bootstrap servers; empty: the local stack.")
    connect_url: str = Field("", description="URL of Kafka Connect's REST API; empty: the local stack.")
    registry_url: str = Field(
        "", description="URL of the schema registry (Confluent API, ccompat v7); empty: the local stack."
    )
    opensearch_url: str = Field("", description="URL of OpenSearch; empty: the local stack.")

    # The servers as Kafka Connect sees them.
    connect_database_url: SecretStr = Field(
        SecretStr(""),
        description="Postgres connection URL with which Debezium connects; empty: the local stack, role fanline_cdc.",
    )
    connect_registry_url: str = Field(
        "", description="URL of the registry's own API (v2) as Kafka Connect reaches it; empty: the local stack."
    )
    connect_timeout_seconds: float = Field(
        60.0, gt=0, description="How long to wait for connectors to run after a change."
    )

    # The move to another database.
    replica_database_url: SecretStr = Field(
        SecretStr(""), description="Connection URL of the database that `fanline replicate` copies to."
    )
    replica_connect_role: SecretStr = Field(
        SecretStr(""),
        description="Role (and, after a colon, password) with which Debezium reads every table while a database is "
        "moved; empty: postgres.",
    )

    # Kafka.
    kafka_partitions: int = Field(4, ge=1, description="Partitions of each topic that Fanline creates.")
    kafka_replication_factor: int = Field(1, ge=1, description="Replication factor of each topic that Fanline creates.")

    # Dataflows.
    flow_instance: int = Field(0, ge=0, description="Which instance of a flow this process is, from 0.")
    flow_instances: int = Field(
        1, ge=1, description="How many instances of the flow run; each reads its share of partitions."
    )
    epoch_seconds: float = Field(1.0, gt=0, description="Seconds between two snapshots of a flow's position.")
    kafka_discovery_seconds: float = Field(
        5.0, gt=0, description="Seconds between two looks for new topics and partitions."
    )
    dead_letter_window: int = Field(1_000, ge=1, description="Records over which the share of dead letters is taken.")
    dead_letter_ratio: float = Field(
        0.1, gt=0, le=1, description="Share of dead letters within the window at which a flow stops."
    )
    dead_letter_consecutive: int = Field(50, ge=1, description="Dead letters in a row at which a flow stops.")
    metrics_port: int = Field(0, ge=0, description="Port of a dataflow's /metrics; 0: the flow's own default.")

    # The archive.
    archive_url: str = Field(
        "",
        description="Where the Parquet archive is: file:///path or s3://bucket/prefix?region=... (options of pyarrow's "
        "S3FileSystem; credentials as AWS' tools find them); empty: the folder `archive` in state_dir.",
    )
    archive_file_rows: int = Field(250_000, ge=1, description="Events at which a file of the archive is written.")
    archive_file_seconds: float = Field(
        60.0, gt=0, description="Seconds after its first event at which a file of the archive is written."
    )

    # Timelines.
    timeline_cap: int = Field(800, ge=10, description="Entries that a home timeline keeps in Redis.")
    timeline_slack: int = Field(400, ge=1, description="Entries above the cap at which a timeline is compacted.")
    timeline_warm_days: int = Field(30, ge=1, description="Days after its last read that a home timeline stays warm.")
    celebrity_threshold: int = Field(
        10_000, ge=1, description="Followers above which posts are pulled by readers, not pushed."
    )
    followers_chunk: int = Field(1_000, ge=8, description="Followers in one chunk of an author's followers.")

    # Notifications.
    notifications_cap: int = Field(400, ge=10, description="Notifications that a person's inbox keeps in Redis.")
    notifications_slack: int = Field(100, ge=1, description="Notifications above the cap at which an inbox is cut.")

    # Time series.
    aggregates_minutes_days: int = Field(2, ge=1, description="Days that the time series by minute are kept.")
    aggregates_hours_days: int = Field(60, ge=1, description="Days that the time series by hour are kept.")
    aggregates_days_days: int = Field(730, ge=1, description="Days that the time series by day are kept.")
    aggregates_seconds: float = Field(
        1.0,
        gt=0,
        description="Least seconds between two times that stale buckets of the time series are counted again.",
    )
    aggregates_share: float = Field(
        0.05, gt=0, lt=1, description="Most of a flow's time, as a share, that counting stale buckets may take."
    )

    # The audit that always runs.
    audit_always: bool = Field(True, description="Whether the local stack runs the audit that never ends.")
    audit_seconds: float = Field(10.0, gt=0, description="Seconds between two rounds of the audit that always runs.")
    audit_sample: int = Field(30, ge=3, description="People, and posts, that one of its rounds looks at.")
    audit_window_seconds: float = Field(300.0, gt=0, description="Seconds whose reads its completeness is taken from.")
    audit_repair: bool = Field(True, description="Whether it repairs what differs, or only counts and logs it.")

    # The API.
    api_port: int = Field(8080, ge=1, le=65535, description="Port of the API.")
    public_url: str = Field("", description="URL under which clients reach the API; empty: http://host:api_port.")
    api_database_connections: int = Field(10, ge=1, description="Most database connections of one API process.")
    api_drain_seconds: float = Field(10.0, ge=0, description="Seconds that requests may take to end after SIGTERM.")
    api_access_log: bool = Field(True, description="Whether each request is logged; errors of the server always are.")
    rate_limit: int = Field(300, ge=1, description="Requests that a person, or an address without one, has a window.")
    rate_limit_window_seconds: int = Field(300, ge=1, description="Length of a rate limit's window in seconds.")
    sign_in_failures: int = Field(20, ge=1, description="Wrong passwords for one account that a window allows.")
    trust_forwarded_for: bool = Field(
        False, description="Whether the last address in X-Forwarded-For is the client's (true behind one proxy)."
    )
    access_token_days: int = Field(
        365, ge=1, description="Days until an access token expires; clients have to sign in again."
    )
    registrations_open: bool = Field(True, description="Whether people may sign up.")
    instance_title: str = Field("Fanline", description="Name of this server, shown by clients.")
    instance_description: str = Field(
        "A social server whose every read is computed before it is asked for.", description="What this server is about."
    )
    contact_email: str = Field("", description="E-mail address of whoever runs this server.")

    # The pipeline page.
    pipeline_public: bool | None = Field(
        None,
        description="Whether everybody who reaches the API directly may see the pipeline page's figures, not only "
        "moderators and admins. Not set: only on the local stack, when it listens on this machine alone.",
    )

    # Home timelines in the API.
    document_cache_mb: int = Field(64, ge=1, description="Mebibytes of documents that an API process keeps in memory.")
    redis_timeout_seconds: float = Field(
        1.0, gt=0, description="How long the API waits for Redis before it asks the database instead."
    )

    # Search.
    search_prefix: str = Field(
        "fanline", pattern=r"^[a-z][a-z0-9]*$", description="What the indexes' names begin with."
    )
    search_timeout_seconds: float = Field(
        1.0, gt=0, description="How long the API waits for OpenSearch before it asks the database instead."
    )

    # Streams.
    stream_connections: int = Field(10_000, ge=1, description="Streams that one API process keeps open.")
    stream_connections_per_person: int = Field(
        20, ge=1, description="Streams that one person keeps open at one API process."
    )
    stream_queue: int = Field(
        1_000, ge=10, description="Events that may wait for one stream; a client that is further behind is ended."
    )
    stream_heartbeat_seconds: float = Field(
        15.0, gt=0, description="Seconds of silence after which a stream says that it lives."
    )

    # Channels of notifications.
    delivery_retry_seconds: float = Field(
        30.0, gt=0, description="Pause after a first failure to send a notification; it doubles with each further one."
    )
    vapid_private_key: SecretStr = Field(
        SecretStr(""), description="P-256 private key for Web Push (PEM or base64); empty: made once and kept in SQL."
    )
    vapid_subject: str = Field(
        "", description="mailto: or https: address for push services; empty: contact_email or public_url."
    )
    push_private_endpoints: bool = Field(
        False, description="Whether push endpoints may be private addresses and plain HTTP (for tests only)."
    )
    smtp_host: str = Field("", description="Mail server for digests; empty: no mail is sent.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    smtp_security: str = Field("starttls", description="How mail is protected on its way: starttls, tls or none.")
    smtp_username: str = Field("", description="User at the mail server; empty: no login.")
    smtp_password: SecretStr = Field(SecretStr(""), description="Password at the mail server.")
    smtp_from: str = Field("", description="Sender of mails; empty: contact_email.")

    # Trends.
    trends_seconds: float = Field(10.0, gt=0, description="Seconds between two rankings of what trends.")
    trends_minimum_accounts: int = Field(5, ge=1, description="People below whom nothing trends.")
    trends_account_hours: float = Field(
        0.0, ge=0, description="Hours after signing up in which what people do counts for no trend."
    )
    trends_show_unreviewed: bool = Field(
        True, description="Whether trends are shown that no moderator has looked at; rejected ones never are."
    )

    # Telemetry.
    log_level: str = Field("info", description="Least severe level that is logged: debug, info, warning or error.")
    otlp_endpoint: str = Field("", description="OTLP/HTTP endpoint for spans; empty: spans are not exported.")
    trace_sample_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of new traces that are sampled when spans are exported."
    )


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process; raises `ConfigurationError` naming each setting that does not hold."""
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"FANLINE_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError(f"A setting cannot be used: {faults}.") from error
