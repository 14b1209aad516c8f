"""Commands of the read models, run on a private Valkey."""

from typing import Any

from fanline.redis_nodes import RedisNodes
from readmodels.effects import Command


class Redis:
    """A private Valkey that runs commands of the read models, with their functions."""

    def __init__(self, nodes: RedisNodes) -> None:
        self._nodes = nodes

    def __call__(self, *commands: Command) -> list[Any]:
        """The replies."""
        return self._nodes.execute([(found.key, found.data) for found in commands])
