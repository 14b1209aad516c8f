"""What the decoders of row changes and of domain events share: dead letters, and patience with the registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from connectors.dead_letter import DeadLetters
from connectors.kafka_source import Item
from connectors.messages import Message, Progress
from connectors.waiting import Waiting
from fanline.errors import DependencyUnavailable, MalformedEvent

T = TypeVar("T")
S = TypeVar("S")


class RecordDecoder(ABC):
    """Turns batches of records and progress into items, in their order; bad records become dead letters.

    Letters are delivered before anything of their batch or after it is passed on. Raises `DeadLetterBrake` when there
    are too many.
    """

    def __init__(self, dead_letters: DeadLetters) -> None:
        self.dead_letters = dead_letters

    @abstractmethod
    def item(self, message: Message, value: bytes) -> Any:
        """The item in a record, None to drop it; raises `MalformedEvent`."""

    @abstractmethod
    def wait(self) -> None:
        """Called at the end of a batch: returns when the database shows what its records tell of."""

    def singly(self, items: Sequence[Any], made: list[Any]) -> Iterable[Item]:
        """The records and progress of a batch one by one; what is taken at once goes into `made` at its place."""
        return items

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """The items of a batch, and its progress; records without a value are dropped."""
        made: list[Any] = []
        accepted = 0
        rejected = False
        try:
            for item in self.singly(items, made):
                if type(item) is Progress:
                    made.append(item)
                    continue
                assert isinstance(item, Message)
                if item.value is None:
                    continue
                try:
                    found = self.item(item, item.value)
                    accepted += 1
                    if found is not None:
                        made.append(found)
                except MalformedEvent as reason:
                    self.dead_letters.brake.accepted(accepted)
                    accepted, rejected = 0, True
                    self.dead_letters.reject(item, reason)
        finally:
            if rejected:
                self.dead_letters.flush()
        self.dead_letters.brake.accepted(accepted)
        self.wait()
        return made


def patiently(decode: Callable[[S], T], value: S) -> T:
    """`decode(value)`, again while the server that it asks (mostly the registry, once a schema) is away.

    Raises `DependencyUnavailable` only when the process has been asked to stop meanwhile.
    """
    try:
        return decode(value)
    except DependencyUnavailable:
        return Waiting("decoder").patiently(partial(decode, value))
