"""Shows what is in a record to a person, as far as it can be read."""

from typing import Any

from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.errors import DependencyUnavailable, MalformedEvent
from fanline.settings import Settings

# A line on a terminal; whoever needs all of a large value takes it from the topic.
PREVIEW_BYTES = 200


class Payloads:
    """Decodes Avro where it fits; the registry is asked once a schema."""

    def __init__(self, settings: Settings) -> None:
        self._decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)

    def decoded(self, data: bytes | None) -> Any:
        """The record as JSON can have it, else its text or its bytes in hexadecimal digits."""
        if data is None:
            return None
        try:
            return plain(self._decoder.decode(data))
        except (MalformedEvent, DependencyUnavailable):
            return readable(data)


def readable(data: bytes | None) -> str | None:
    """Text where it is one, else `0x...`, cut to `PREVIEW_BYTES`."""
    if data is None:
        return None
    cut = data[:PREVIEW_BYTES]
    more = f" ... {len(data)} bytes" if len(data) > len(cut) else ""
    try:
        text = cut.decode()
    except UnicodeDecodeError:
        text = ""
    return (text if text.isprintable() and text else f"0x{cut.hex()}") + more


def plain(value: Any) -> Any:
    """A decoded value with nothing in it that JSON lacks."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return readable(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
