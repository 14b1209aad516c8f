"""What the OpenSearch sink promises beyond the contract of all sinks."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.flows import dead_letter_topic
from readmodels.indexed import IndexWrite
from sinks.opensearch import IndexMissing, write
from sinks.opensearch_client import OpenSearchClient
from tests.conftest import Stack
from tests.integration.contract.conftest import Bench, Target

MAPPINGS = {"mappings": {"dynamic": "strict", "properties": {"number": {"type": "integer"}}}}


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenSearchClient]:
    made = OpenSearchClient(stack.settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def indexes(client: OpenSearchClient) -> Iterator[tuple[str, str, str]]:
    """An alias and the two indexes behind it."""
    name = f"sink-{secrets.token_hex(5)}"
    for number in (1, 2):
        client.create(f"{name}-{number}", MAPPINGS | {"aliases": {name: {}}})
    yield name, f"{name}-1", f"{name}-2"
    for number in (1, 2):
        client.delete(f"{name}-{number}")


def document(number: int) -> bytes:
    return json.dumps({"number": number}).encode()


def test_the_newest_version_stays_whatever_comes_later(client: OpenSearchClient, indexes: tuple[str, str, str]) -> None:
    alias, first, _ = indexes

    def numbers(*writes: tuple[int, bytes | None]) -> dict[str, Any]:
        for version, body in writes:
            assert not write(client, [IndexWrite(alias, "a", version, body)]).again
        return client.documents(first, ["a"])

    assert numbers((5, document(5)), (4, document(4)), (3, None)) == {"a": {"number": 5}}
    # The same version again says the same; a late write does not bring back what was deleted.
    assert numbers((5, document(5)), (6, None), (6, None), (5, document(5))) == {}
    assert numbers((7, document(7))) == {"a": {"number": 7}}


def test_every_index_behind_the_alias_is_written(client: OpenSearchClient, indexes: tuple[str, str, str]) -> None:
    alias, first, second = indexes
    client.change_aliases([{"remove": {"index": second, "alias": alias}}])
    write(client, [IndexWrite(alias, "a", 1, document(1))])
    client.change_aliases([{"add": {"index": second, "alias": alias}}])
    write(client, [IndexWrite(alias, "b", 1, document(2))])
    assert client.documents(first, ["a", "b"]).keys() == {"a", "b"}
    assert client.documents(second, ["a", "b"]).keys() == {"b"}


def test_without_an_index_nothing_is_written(client: OpenSearchClient) -> None:
    with pytest.raises(IndexMissing, match="no index behind nothing-here"):
        write(client, [IndexWrite("nothing-here", "a", 1, document(1))])


@pytest.mark.parametrize("target", ["opensearch"], indirect=True)
def test_a_document_that_opensearch_refuses_is_a_dead_letter_with_its_reason(bench: Bench, target: Target) -> None:
    topic = bench.topic()
    flow = bench.start(target.plan(topic))
    marks = bench.produce(topic, 100)
    (refused,) = bench.produce(topic, 1, value=b'{"surprise": 1}')
    marks |= bench.produce(topic, 100)
    bench.until_applied(topic)
    assert target.marks() == marks
    (letter,) = bench.read(dead_letter_topic(bench.flow))
    headers = dict(letter.headers())
    assert letter.value() == b'{"surprise": 1}'
    place = [headers[f"original_{name}"].decode() for name in ("topic", "partition", "offset")]
    assert "/".join(place) == refused
    assert b"surprise" in headers["reason"]
    flow.stop()
