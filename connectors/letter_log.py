"""Reads and writes dead-letter topics for an operator: `fanline dlq` and the pipeline page."""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from connectors.flows import dead_letter_topic, retry_topic
from connectors.kafka_clients import (
    REQUEST_TIMEOUT_SECONDS,
    client_config,
    consumer_config,
    quiet_config,
    typed_error,
    typed_errors,
)
from connectors.letters import RESOLUTION, Ledger, Letter, Resolution, own_headers, resolution_value
from connectors.messages import Message, message_of
from connectors.replay import retry_headers
from fanline.errors import ConfigurationError, DependencyUnavailable, FanlineError
from fanline.settings import Settings

# Letters in one transaction: enough that commits cost little, few enough that flows do not wait for one.
LETTERS_A_TRANSACTION = 500
TRANSACTION_SECONDS = 30.0
MAX_REQUEST_BYTES = 8 * 1024 * 1024


class LetterReader:
    """Reads flows' letters from where the last read ended. One thread only; use it in a `with` statement."""

    def __init__(self, flows: Iterable[str], settings: Settings) -> None:
        self._settings = settings
        self._missing = {dead_letter_topic(flow) for flow in flows}
        self._consumer = Consumer(consumer_config(settings, "fanline-dlq", "fanline-dlq") | quiet_config())
        self._unread: set[str] = set()

    def __enter__(self) -> "LetterReader":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()

    def records(self) -> Iterator[Message]:
        """Everything up to the end at the first time, later what has arrived since; resolutions included.

        Raises `DependencyUnavailable`.
        """
        with typed_errors(self._settings):
            self._take_up()
            while True:
                # A wait ends with the first record; for more than one it would last until all have come.
                first = self._consumer.consume(1, REQUEST_TIMEOUT_SECONDS) if self._unread else []
                batch = first + self._consumer.consume(500, 0)
                if not batch:
                    if self._unread:
                        raise DependencyUnavailable(f"Kafka does not give the records of {min(self._unread)}.")
                    return
                for record in batch:
                    if (error := record.error()) is None:
                        yield message_of(record)
                    else:
                        self._take_event(str(record.topic()), error)

    def _take_up(self) -> None:
        """Begin with the topics that there are by now."""
        if not self._missing:
            return
        existing = self._consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
        found = [topic for topic in sorted(self._missing) if topic in existing]
        if found:
            self._consumer.incremental_assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in found])
            self._unread.update(found)
            self._missing.difference_update(found)

    def _take_event(self, topic: str, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(topic)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            # Retention has removed what would come next: from the start of what is left, at the next read.
            self._consumer.incremental_unassign([TopicPartition(topic, 0)])
            self._unread.discard(topic)
            self._missing.add(topic)
        elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
            raise typed_error(self._settings, error)


class Ledgers:
    """The ledgers of flows, kept up to date by `read`."""

    def __init__(self, flows: Iterable[str], settings: Settings) -> None:
        self.of_flow = {flow: Ledger() for flow in flows}
        self._reader = LetterReader(self.of_flow, settings)

    def read(self) -> Mapping[str, Ledger]:
        """The ledgers by flow, with everything that has come; raises `DependencyUnavailable`."""
        flows = {dead_letter_topic(flow): ledger for flow, ledger in self.of_flow.items()}
        for record in self._reader.records():
            flows[record.topic].take(record)
        return self.of_flow

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()


def read_ledgers(flows: Iterable[str], settings: Settings) -> Mapping[str, Ledger]:
    """All letters of some flows and what has become of them."""
    with contextlib.closing(Ledgers(flows, settings)) as ledgers:
        return ledgers.read()


def read_ledger(flow: str, settings: Settings) -> Ledger:
    """All of a flow's letters and what has become of them."""
    return read_ledgers([flow], settings)[flow]


def read_records(flow: str, letters: Collection[Letter], settings: Settings) -> Iterator[tuple[Letter, Message]]:
    """The chosen letters with their records, in order."""
    chosen = {letter.offset: letter for letter in letters}
    with LetterReader([flow], settings) as reader:
        for record in reader.records():
            if record.offset in chosen:
                yield chosen[record.offset], record


class Resolver:
    """Replays or drops letters, each once, also when two operators try at the same time or the process dies.

    What is sent back and the record that says so are one Kafka transaction, and a later `Resolver` of the same flow
    ends an earlier one. Read the letters after it is made.
    """

    def __init__(self, flow: str, settings: Settings) -> None:
        self._flow, self._settings = flow, settings
        config = (
            client_config(settings, f"dlq-{flow}")
            | quiet_config()
            | {
                "transactional.id": f"fanline-dlq-{flow}",
                "message.max.bytes": MAX_REQUEST_BYTES,
                "compression.type": "lz4",
            }
        )
        self._producer = Producer(config)
        with typed_errors(settings):
            # A broker that is away is known sooner than a transaction gives up.
            self._producer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS)
            self._producer.init_transactions(TRANSACTION_SECONDS)

    def drop(self, letters: Sequence[Letter]) -> None:
        """Say that nobody needs the letters any more; they stay in the topic until it forgets them."""
        with self._transaction():
            self._resolve("dropped", [letter.offset for letter in letters])

    def replay(self, letters: Sequence[Letter]) -> list[Letter]:
        """Send the records back to the flow; returns those that cannot be, as their value is nowhere any more."""
        partitions = self._partitions()
        gone: list[Letter] = []
        batch: list[tuple[Letter, Message]] = []
        for letter, record in read_records(self._flow, letters, self._settings):
            if letter.omitted_bytes is not None:
                original = fetch(letter, self._settings)
                if original is None:
                    gone.append(letter)
                    continue
                record = record._replace(value=original)
            batch.append((letter, record))
            if len(batch) == LETTERS_A_TRANSACTION:
                self._send(batch, partitions)
                batch = []
        if batch:
            self._send(batch, partitions)
        return gone

    def _send(self, batch: Sequence[tuple[Letter, Message]], partitions: int) -> None:
        topic = retry_topic(self._flow)
        with self._transaction():
            for letter, record in batch:
                headers = retry_headers(*letter.origin, letter.original_ms, own_headers(record))
                # Spelled out, as the client's types take one kind of list for headers.
                self._producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition=letter.origin.partition % partitions,
                    headers=[(name, value) for name, value in headers],
                )
            self._resolve("replayed", [letter.offset for letter, _ in batch])

    def _resolve(self, how: Resolution, offsets: Sequence[int]) -> None:
        self._producer.produce(
            dead_letter_topic(self._flow), resolution_value(offsets), partition=0, headers=[(RESOLUTION, how.encode())]
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._producer.begin_transaction()
            yield
            self._producer.commit_transaction(TRANSACTION_SECONDS)
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED):
                raise FanlineError(
                    f"Somebody else deals with the dead letters of {self._flow} at this moment."
                ) from error
            if fault.txn_requires_abort():
                self._producer.abort_transaction(TRANSACTION_SECONDS)
            raise typed_error(self._settings, fault) from error

    def _partitions(self) -> int:
        topic = retry_topic(self._flow)
        with typed_errors(self._settings):
            found = self._producer.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS).topics[topic]
        if found.error is not None:
            raise ConfigurationError(f"There is no topic {topic}: run fanline topics.")
        return len(found.partitions)


def fetch(letter: Letter, settings: Settings) -> bytes | None:
    """The value of a letter's record in its own topic; None when it is not there any more."""
    topic, partition, offset = letter.origin
    with (
        typed_errors(settings),
        contextlib.closing(Consumer(consumer_config(settings, "fanline-dlq", "dlq") | quiet_config())) as reader,
    ):
        reader.assign([TopicPartition(topic, partition, offset)])
        for record in reader.consume(1, REQUEST_TIMEOUT_SECONDS):
            if record.error() is None and record.offset() == offset:
                return record.value()
    return None
