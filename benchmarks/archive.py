"""Events a second that the flow `archive` puts into Parquet files, against pyarrow's writer alone.

Both write the same rows, half `post.created` and half `engagement.recorded` with the archive's own columns, in files of
the same size in a folder beside each other, and both may use every core: the flow has an instance for each, up to the
number of partitions, the ceiling as many threads that encode and compress as the flow's sink. The ceiling gets the
rows ready decoded, as Python objects in memory, and has only to make tables and files of them; the flow reads records
from Kafka, decodes them, and commits its offsets when the files are durable. For comparison: `one_instance_per_second`
is the flow with one instance, `one_thread_per_second` the ceiling without threads of writers, `tables_per_second` the
same with ready Arrow tables. Needs a running Kafka and registry.
"""

import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.report import finish, run_benchmark
from connectors.applied import AppliedOffsets
from connectors.flows import group_of
from connectors.kafka_clients import client_config
from dataflows import archive
from dataflows.run import run_flow
from fanline import avro
from fanline.avro_columns import arrow_schema
from fanline.metrics import RECORDS as READ
from fanline.settings import Settings, get_settings
from readmodels.archive import ArchiveFile, day_of
from readmodels.archive_schema import RECORD_COLUMNS
from schemas import contracts
from schemas.registry import encoder
from sinks.parquet import WRITERS
from sinks.parquet_store import ParquetStore

CONTRACTS = contracts.load()
EVENTS = ("post.created", "engagement.recorded")
RECORDS = 400_000
PARTITIONS = 2
COPIES = 3  # the flow gets each record so often: of a few seconds it matters little that one instance starts first
FILE_ROWS = 25_000  # a partition of each topic is two files, none of which waits for its time
ROUNDS = 5
WORDS = ("the", "log", "is", "what", "happened", "and", "reads", "are", "what", "it", "means", "to", "us", "later")


def event(name: str, number: int, chance: random.Random) -> dict[str, Any]:
    """An event as the API writes it, with ids of its own and a text of some words."""
    made = CONTRACTS[name].example | {"post_id": str(117_000_000_000_000_000 + number * 65_536)}
    if name == "post.created":
        made |= {
            "text": " ".join(chance.choices(WORDS, k=chance.randint(3, 40))),
            "author_id": str(uuid.UUID(int=chance.getrandbits(128))),
            "hashtags": chance.sample(WORDS, chance.randint(0, 3)),
        }
    else:
        made |= {"account_id": str(uuid.UUID(int=chance.getrandbits(128)))}
    return made


def fill(settings: Settings, topics: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Produce the events of each contract to its topic, `COPIES` times; returns them."""
    chance = random.Random(7)
    encode = encoder(settings).encode
    producer = Producer(
        client_config(settings, "benchmark") | {"linger.ms": 20, "queue.buffering.max.messages": RECORDS * COPIES}
    )
    made: dict[str, list[dict[str, Any]]] = {}
    for name, topic in topics.items():
        made[name] = [event(name, number, chance) for number in range(RECORDS // len(topics))]
        for number, each in enumerate(made[name]):
            header: dict[str, str | bytes | None] = {"id": str(uuid.UUID(int=number))}
            value, key = encode(name, each), each["post_id"].encode()
            for _ in range(COPIES):
                producer.produce(topic, value, key, number % PARTITIONS, headers=header)
    producer.flush()
    return made


def schema_of(name: str) -> pa.Schema:
    """The Arrow schema of the archive's rows of an event."""
    return pa.schema([*RECORD_COLUMNS, *arrow_schema(avro.parse(CONTRACTS[name].text))])


def rows_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events with the columns that the archive adds to them."""
    return [
        {
            "kafka_partition": number % PARTITIONS,
            "kafka_offset": number // PARTITIONS,
            "kafka_timestamp": 1_795_348_800_000 + number,
            "kafka_key": each["post_id"],
            "event_id": str(uuid.UUID(int=number)),
            **each,
        }
        for number, each in enumerate(events)
    ]


def writer_alone(folder: Path, made: dict[str, list[dict[str, Any]]], writers: int) -> float:
    """Seconds of pyarrow for tables and files of the rows; without `writers`, this thread writes the files itself."""
    store = ParquetStore(folder.as_uri())
    began = time.perf_counter()
    with ThreadPoolExecutor(max(writers, 1)) as pool:
        written = []
        for name, rows in made.items():
            schema = schema_of(name)
            for first in range(0, len(rows), FILE_ROWS):
                table = pa.Table.from_pylist(rows[first : first + FILE_ROWS], schema=schema)
                file = ArchiveFile(name, day_of(0), "00000000", 0, first, first + table.num_rows - 1)
                if writers:
                    written.append(pool.submit(store.put, file, table))
                else:
                    store.put(file, table)
        for each in written:
            each.result()
    return time.perf_counter() - began


def tables_alone(folder: Path, made: dict[str, list[dict[str, Any]]]) -> float:
    """Seconds of pyarrow for files of ready tables."""
    store = ParquetStore(folder.as_uri())
    tables = [(name, pa.Table.from_pylist(rows, schema=schema_of(name))) for name, rows in made.items()]
    began = time.perf_counter()
    for name, table in tables:
        for first in range(0, table.num_rows, FILE_ROWS):
            part = table.slice(first, FILE_ROWS)
            store.put(ArchiveFile(name, day_of(0), "00000000", 1, first, first + part.num_rows - 1), part)
    return time.perf_counter() - began


def run_instance(name: str, topics: Sequence[str], settings: Settings, began: "SimpleQueue[float]") -> None:
    """What an instance's process does until it is told to stop; `began` gets the time of its first record."""

    def watch() -> None:
        # Connecting takes a second or two, which is no part of a rate.
        while not sum(READ.labels(name, topic)._value.get() for topic in topics):
            time.sleep(0.002)
        began.put(time.monotonic())

    def build() -> Any:
        flow = archive.build(name, topics, settings)
        threading.Thread(target=watch, daemon=True).start()
        return flow

    run_flow(name, build, settings)


def through_the_flow(settings: Settings, topics: Sequence[str], instances: int) -> float:
    """Seconds from the flow's first record to the commit of its last offset."""
    name = f"benchmark-{uuid.uuid4().hex[:8]}"
    group = group_of(name)
    offsets = AppliedOffsets(settings, "benchmark")
    places = offsets.partitions(topics)
    # As the flow runs in production: in a process that has nothing else in its memory.
    spawn = multiprocessing.get_context("spawn")
    began: SimpleQueue[float] = spawn.SimpleQueue()
    processes = []
    for number in range(instances):
        own = settings.model_copy(update={"flow_instance": number, "flow_instances": instances})
        processes.append(spawn.Process(target=run_instance, args=(name, topics, own, began)))
        processes[-1].start()
    try:
        while sum(offsets.committed({group: places})[group].values()) < RECORDS * COPIES:
            if any(process.exitcode is not None for process in processes):
                raise RuntimeError("an instance of the flow has ended")
            time.sleep(0.05)
        ended = time.monotonic()
        return ended - min(began.get() for _ in processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def main() -> dict[str, Any]:
    """Measure."""
    rates: dict[str, list[float]] = {"flow": [], "one_instance": [], "writer": [], "one_thread": [], "tables": []}
    instances = min(os.cpu_count() or 1, PARTITIONS)
    with tempfile.TemporaryDirectory() as folder:
        admin = AdminClient(client_config(get_settings(), "benchmark"))
        topics = {name: f"benchmark-{uuid.uuid4().hex[:8]}-{name}" for name in EVENTS}
        for created in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in topics.values()]).values():
            created.result(15)
        try:
            made = {name: rows_of(events) for name, events in fill(get_settings(), topics).items()}
            for number in range(ROUNDS):
                state = Path(folder, str(number))
                rates["writer"].append(RECORDS / writer_alone(state / "threads", made, WRITERS))
                rates["one_thread"].append(RECORDS / writer_alone(state / "alone", made, 0))
                rates["tables"].append(RECORDS / tables_alone(state / "alone", made))
                for kind, several in {"flow": instances, "one_instance": 1}.items():
                    changed = {
                        "state_dir": state / kind,
                        "archive_url": (state / kind / "files").as_uri(),
                        "archive_file_rows": FILE_ROWS,
                        "archive_file_seconds": 3600.0,
                    }
                    settings = get_settings().model_copy(update=changed)
                    rates[kind].append(RECORDS * COPIES / through_the_flow(settings, list(topics.values()), several))
                print(" ".join(f"{kind} {values[-1]:,.0f}/s" for kind, values in rates.items()))
        finally:
            for gone in admin.delete_topics([*topics.values()]).values():
                gone.result(15)
    value, ceiling = statistics.median(rates["flow"]), statistics.median(rates["writer"])
    return finish(
        "archive",
        value=round(value),
        unit="events/s",
        ceiling=round(ceiling),
        instances=instances,
        one_instance_per_second=round(statistics.median(rates["one_instance"])),
        one_thread_per_second=round(statistics.median(rates["one_thread"])),
        tables_per_second=round(statistics.median(rates["tables"])),
    )


if __name__ == "__main__":
    run_benchmark(main)
