"""Logic apart from I/O: read models are generators that yield what they need and are sent the answers.

A generator yields a `Redis` (a batch of commands; it is sent their replies, in order) or a `Query` (it is sent the
rows). Whoever drives it, a flow, the API or a simulation that interleaves several of them and crashes them at any
step, decides how the I/O is done. The pattern is psycopg's (psycopg/generators.py).
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fanline.resp import pack

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Command:
    """One Redis command: the key that decides its node, and its bytes in the Redis protocol."""

    key: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Redis:
    """A batch of commands, pipelined: those of one node run in order, nodes run side by side."""

    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class Query:
    """A SQL query with named parameters; its rows are mappings from column to value."""

    sql: str
    parameters: Mapping[str, Any]


Effects = Generator[Redis | Query, Any, Result]


def command(key: bytes, name: bytes, *arguments: bytes | int) -> Command:
    """`NAME key arguments...`."""
    return Command(key, pack(name, key, *map(_bytes, arguments)))


def call(function: bytes, keys: Sequence[bytes], *arguments: bytes | int, read_only: bool = False) -> Command:
    """`FCALL function` (or `FCALL_RO`) over keys that share one hash tag."""
    name = b"FCALL_RO" if read_only else b"FCALL"
    return Command(keys[0], pack(name, function, b"%d" % len(keys), *keys, *map(_bytes, arguments)))


def drive(effects: Effects[Result], redis: Callable[[Redis], Any], query: Callable[[Query], Any]) -> Result:
    """Runs a generator to its end with synchronous I/O."""
    answer: Any = None
    while True:
        try:
            wanted = effects.send(answer)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        answer = redis(wanted) if isinstance(wanted, Redis) else query(wanted)


def _bytes(argument: bytes | int) -> bytes:
    return argument if isinstance(argument, bytes) else b"%d" % argument
