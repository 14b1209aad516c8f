"""The demo and the README's commands, as a newcomer runs them, and a trace from the request to the delivery."""

import asyncio
import json
import re
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import psycopg
import requests
from confluent_kafka import Consumer, TopicPartition

from audit.pipeline import waiter
from connectors.kafka_clients import consumer_config
from fanline import database
from tests.conftest import CHECKOUT, Stack

LAST_LINE = re.compile(
    r"ok: 60 posts, [\d,]+ deliveries, 50 timelines equal to SQL, POST to feed p50 \d+ ms p99 \d+ ms"
)


def follow_the_readme(url: str, username: str) -> list[str]:
    """Run the README's shell lines with a person of the test's own; the lines printed, the last with the token."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", Path(CHECKOUT, "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert "username=ada" in block
    script = (
        "set -eu\n"
        + block.replace("http://127.0.0.1:8080", url)
        .replace("username=ada", f"username={username}")
        .replace("ada@example.com", f"{username}@example.com")
        + 'echo; echo "token $me"\n'
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_demo_ends_with_its_line_and_leaves_what_ran_running(system: Stack) -> None:
    done = system.fanline("demo", "--people", "50", "--follows", "500", "--posts", "60", "--rate", "30")
    assert LAST_LINE.fullmatch(done.stdout.strip().splitlines()[-1]), done.stdout
    assert "a post's way, p50/p99 ms" in done.stdout
    assert system.part("api")["state"] == "running"


def test_the_commands_of_the_readme_post_and_read(system: Stack) -> None:
    username = f"u{uuid4().hex[:12]}"
    url = f"http://127.0.0.1:{system.settings.api_port}"
    lines = follow_the_readme(url, username)
    timeline = json.loads(lines[-2][lines[-2].index("[{") :])
    assert [status["account"]["username"] for status in timeline] == [username]
    assert timeline[0]["content"] == "<p>Hello from Fanline.</p>"


def test_the_trace_of_a_request_is_in_the_row_the_change_and_the_event(system: Stack) -> None:
    username = f"u{uuid4().hex[:12]}"
    url = f"http://127.0.0.1:{system.settings.api_port}"
    token = follow_the_readme(url, username)[-1].removeprefix("token ")
    trace_id = uuid4().hex
    headers = {"Authorization": f"Bearer {token}", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-00"}
    posted = requests.post(f"{url}/api/v1/statuses", data={"status": "Traced"}, headers=headers, timeout=30)
    post_id = posted.json()["id"]
    with psycopg.connect(database.database_url(system.settings)) as connection:
        row = connection.execute("SELECT traceparent FROM posts WHERE id = %s", [post_id]).fetchone()
    assert row is not None
    assert trace_id in row[0]
    asyncio.run(_caught_up(system))
    assert find_record(system, "cdc.posts", trace_id)
    assert find_record(system, "post.created", trace_id)


async def _caught_up(system: Stack) -> None:
    await waiter(system.settings, 60)()


def find_record(system: Stack, topic: str, trace_id: str) -> bool:
    """Whether one of the topic's records has the trace id in its value or in the header `traceparent`."""
    consumer = Consumer(consumer_config(system.settings, "test-trace", "test"))
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions}
        consumer.assign([TopicPartition(topic, number, max(0, end - 1_000)) for number, end in ends.items()])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for record in consumer.consume(500, timeout=0.2):
                headers = dict(record.headers() or []) if record.error() is None else {}
                header = headers.get("traceparent") or b""
                if record.error() is None and trace_id.encode() in bytes(record.value() or b"") + bytes(header):
                    return True
    finally:
        consumer.close()
    return False
