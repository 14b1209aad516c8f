"""Opens edge lists, plain or compressed with gzip."""

import gzip
import zlib
from pathlib import Path

from demo.graph import Graph, parse_edges
from fanline.errors import ConfigurationError

GZIP_MAGIC = b"\x1f\x8b"


def read_graph(path: Path) -> Graph:
    """The graph in a file; gzip is recognised by its content. Raises `ConfigurationError` with one plain sentence."""
    try:
        with path.open("rb") as start:
            compressed = start.read(2) == GZIP_MAGIC
        with gzip.open(path) if compressed else path.open("rb") as lines:
            return parse_edges(lines, str(path))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} is damaged: it starts as gzip but cannot be unpacked.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}.") from error
