"""Dead letters in memory, for tests of what is rejected; what becomes of letters is tested with a real Kafka."""

from connectors.messages import Message
from fanline.errors import MalformedEvent


class Letters:
    """Keeps what is rejected, and is its own brake, which never stops."""

    def __init__(self) -> None:
        self.brake = self
        self.found: list[tuple[Message, str]] = []
        self.understood = 0

    def reject(self, message: Message, reason: MalformedEvent) -> None:
        self.found.append((message, str(reason)))

    def accepted(self, count: int = 1) -> None:
        self.understood += count

    def flush(self) -> None:
        pass
