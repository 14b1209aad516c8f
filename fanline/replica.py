"""The move to another database without writing to both: what is copied from where to where, by which names."""

from dataclasses import dataclass
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from fanline.database import database_url
from fanline.errors import ConfigurationError
from fanline.settings import Settings

Direction = Literal["forward", "back"]

# Of a database alone: its schema's revision, what passes by in its log, and the replication's own books.
LEFT_OUT = frozenset(["alembic_version", "heartbeat", "outbox", "replica_constraints", "replica_positions", "signal"])
READ_WRITE = "-c default_transaction_read_only=off"
"""Options of the replication's own sessions, which write while nobody else may."""


@dataclass(frozen=True)
class Route:
    """One direction of a move: its databases, and the names that belong to it."""

    direction: Direction
    source: Settings
    target: Settings
    connect_url: str
    """The source as Kafka Connect reaches it, with a role that may replicate and read every table."""

    @property
    def topic(self) -> str:
        """The prefix of its topic; every change goes to one partition, so that their order is the source's."""
        return f"replica-{self.direction}"

    @property
    def changes(self) -> str:
        """Its topic."""
        return f"{self.topic}.changes"

    @property
    def slot(self) -> str:
        """The replication slot and the publication in the source."""
        return f"fanline_replica_{self.direction}"

    @property
    def flow(self) -> str:
        """The name of its flow, from which its consumer group follows."""
        return f"replicate-{self.direction}"


def route(settings: Settings, direction: Direction) -> Route:
    """A direction between `database_url` and `replica_database_url`; raises `ConfigurationError` without the second."""
    other = settings.replica_database_url.get_secret_value()
    if not other:
        raise ConfigurationError("FANLINE_REPLICA_DATABASE_URL is not set: it names the database to move to.")
    mine, theirs = (
        settings.model_copy(update={"database_url": SecretStr(make_conninfo(url, options=READ_WRITE))})
        for url in (database_url(settings), other)
    )
    source, target = (mine, theirs) if direction == "forward" else (theirs, mine)
    place = conninfo_to_dict(database_url(source))
    role = settings.replica_connect_role.get_secret_value() or "postgres"
    user, _, password = role.partition(":")
    place.pop("options", None)
    place |= {"user": user} | ({"password": password} if password else {})
    if not password:
        place.pop("password", None)
    return Route(direction, source, target, make_conninfo("", **place))
