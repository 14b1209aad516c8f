"""Avro in Confluent's framing: a zero byte, the schema's id (4 bytes, big endian), the binary record.

Schemas come from the registry once per process and id: an id never changes its meaning. Decoding is fastavro's C code
on a parsed schema; what is left for Python per record is one look-up.
"""

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import requests
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType

from fanline.errors import DependencyUnavailable, FanlineError, MalformedEvent

Record = dict[str, Any]
ParsedSchema = Any

HEADER = struct.Struct(">bI")
REQUEST_TIMEOUT = (3.05, 10.0)

# What fastavro's reader raises on bytes that do not fit the schema.
_READ_ERRORS = (
    EOFError,
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    OverflowError,
    SchemaResolutionError,
    MemoryError,
)


class UnknownSchema(MalformedEvent):
    """The registry answers, and has no schema with the id in the record."""


class MalformedAvro(MalformedEvent):
    """The record's bytes do not fit its framing or its schema."""


class RegistryRefused(FanlineError):
    """The registry does not accept what was sent to it, such as an incompatible schema."""


class SchemaRegistry:
    """The Confluent-compatible registry API, as far as a codec needs it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()

    def schema(self, schema_id: int) -> str | None:
        """The schema text with this id, None when there is none."""
        response = self.call("GET", f"/schemas/ids/{schema_id}")
        if response.status_code == 404:
            return None
        return str(self.accepted(response)["schema"])

    def register(self, subject: str, schema: str) -> int:
        """The id of a schema under a subject, registering it when it is new; raises `RegistryRefused`."""
        return int(self.accepted(self.call("POST", f"/subjects/{subject}/versions", {"schema": schema}))["id"])

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Any request; silence and server errors are `DependencyUnavailable`, the rest is the caller's to judge."""
        try:
            response = self._session.request(method, self.url + path, json=body, timeout=REQUEST_TIMEOUT)
        except requests.RequestException as error:
            raise DependencyUnavailable(f"The schema registry does not answer at {self.url}.", "registry") from error
        if response.status_code >= 500 or response.status_code == 429:
            raise DependencyUnavailable(
                f"The schema registry answers {response.status_code} to {method} {path}.", "registry"
            )
        return response

    def accepted(self, response: requests.Response) -> Record:
        """The JSON object of a response; raises `RegistryRefused` with the registry's message on a client error."""
        try:
            body = response.json()
        except ValueError as error:
            raise DependencyUnavailable(f"What answers at {self.url} is no schema registry.", "registry") from error
        if not response.ok:
            raise RegistryRefused(f"The schema registry refuses: {body.get('message', response.reason)}")
        return dict(body)


class AvroDecoder:
    """Decodes framed records; one object a process, not shared between threads while it learns a schema."""

    def __init__(self, fetch_schema: Callable[[int], str | None]) -> None:
        """`fetch_schema` gives the text of a schema id or None; `SchemaRegistry.schema` in production."""
        self._fetch = fetch_schema
        self._parsed: dict[int, ParsedSchema] = {}

    def decode(self, data: bytes) -> Record:
        """The record in `data`.

        Raises `MalformedAvro` or `UnknownSchema` (both `MalformedEvent`: dead letters), or `DependencyUnavailable` when
        the schema is not known yet and the registry is down: to be tried again, never a dead letter.
        """
        if len(data) < HEADER.size:
            raise MalformedAvro(f"The record has {len(data)} bytes, fewer than the framing's {HEADER.size}.")
        magic, schema_id = HEADER.unpack_from(data)
        if magic != 0:
            raise MalformedAvro(f"The record starts with byte {data[0]}, not with the framing's 0.")
        schema = self.schema(schema_id)
        body = io.BytesIO(data)
        body.seek(HEADER.size)
        try:
            record = schemaless_reader(body, schema)
        except UnicodeDecodeError as error:
            raise MalformedAvro(f"A string of schema {schema_id} is not valid UTF-8: {error.reason}.") from error
        except _READ_ERRORS as error:
            raise MalformedAvro(f"The record does not fit schema {schema_id}: {_reason(error)}.") from error
        if body.tell() != len(data):
            raise MalformedAvro(
                f"The record has {len(data) - body.tell()} bytes more than schema {schema_id} describes."
            )
        if not isinstance(record, dict):
            raise MalformedAvro(f"Schema {schema_id} describes no record.")
        return record

    def schema(self, schema_id: int) -> ParsedSchema:
        """The parsed schema with this id; raises as `decode` does."""
        schema = self._parsed.get(schema_id)
        return self._learn(schema_id) if schema is None else schema

    def _learn(self, schema_id: int) -> ParsedSchema:
        text = self._fetch(schema_id)
        if text is None:
            raise UnknownSchema(f"The registry has no schema with id {schema_id}.")
        try:
            schema = parse(text)
        except ValueError as error:
            raise MalformedAvro(f"Schema {schema_id} cannot be used: {_reason(error)}.") from error
        self._parsed[schema_id] = schema
        return schema


def parse(text: str) -> ParsedSchema:
    """A schema text made ready for reading and writing; raises `ValueError` when it is not an Avro schema."""
    try:
        return parse_schema(json.loads(text))
    except (SchemaParseException, UnknownType, KeyError, TypeError, AttributeError) as error:
        raise ValueError(_reason(error)) from error


def encode(schema_id: int, schema: ParsedSchema, record: Record) -> bytes:
    """The framed bytes of a record; raises `ValueError` saying what does not fit the schema."""
    body = io.BytesIO()
    body.write(HEADER.pack(0, schema_id))
    try:
        schemaless_writer(body, schema, record, strict_allow_default=True)
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(_reason(error)) from error
    return body.getvalue()


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
