"""Avro records to Arrow columns, a field at a time for all records at once.

Decoding record by record in Python costs 4 to 11 us an event, several times what pyarrow needs to write it. Here each
record has a cursor in one array of bytes, and every step of the schema moves all cursors together, so that the work a
record is some numpy operations' share. Each record is held to its own bytes: one that does not fit is
marked, and has no effect on the others. Source: the Avro 1.12 specification, "Binary encoding".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# A number has at most ten bytes; cursors may read so far past the end before it is noticed.
_PADDING = b"\0" * 16
_MAX_SHIFT = 63
# Most numbers are lengths and branches, which have one byte: what each such byte means.
_ONE_BYTE = 0x7F
_SMALL = np.array([(byte >> 1) ^ -(byte & 1) for byte in range(256)], np.int64)
_INLINE = 12
# An array of more items is no list of mentions but garbage that would be decoded item by item.
MAX_ITEMS = 100_000

_PLAIN = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
}
_LOGICAL = {
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}


class UnsupportedSchema(ValueError):
    """The schema has a type that is not decoded here: a map, a fixed, a union other than with null."""


def arrow_schema(schema: dict[str, Any]) -> pa.Schema:
    """The columns of a record's schema, all nullable; raises `UnsupportedSchema`."""
    return pa.schema(list(_type(schema, {})))


def decode(
    schema: dict[str, Any], pieces: Sequence[bytes], framing: bytes = b"", sizes: Longs | None = None
) -> tuple[pa.RecordBatch, Bools]:
    """The columns of records, and which of them do not fit the schema (their values mean nothing).

    Each piece is a value, or, when `sizes` tells where they end, several in a row. Each value is to begin with
    `framing`. Raises `UnsupportedSchema`.
    """
    if sizes is None:
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
    ends = np.cumsum(sizes)
    starts = ends - sizes
    data = np.frombuffer(b"".join((*pieces, _PADDING)), np.uint8)
    bad = sizes < len(framing)
    for number, byte in enumerate(framing):
        bad |= data[starts + number] != byte
    cursors = _Cursors(data, starts + len(framing), ends, bad)
    wanted = arrow_schema(schema)
    columns = _record(cursors, schema, {})
    cursors.bad |= cursors.at != cursors.ends
    return pa.RecordBatch.from_arrays(columns, schema=wanted), cursors.bad


class _Cursors:
    """Where decoding is in each record, where each ends, and which were found not to fit.

    Cursors only move on, so that of a record that ends too early it is seen at the last that they are past its end.
    """

    def __init__(self, data: npt.NDArray[np.uint8], at: Longs, ends: Longs, bad: Bools) -> None:
        self.data, self.at, self.ends, self.bad = data, at, ends, bad
        self._past_the_last = len(data) - len(_PADDING) + 1

    def __len__(self) -> int:
        return len(self.at)

    def some(self, rows: Longs) -> "_Cursors":
        """Cursors of some records; `back` brings what became of them."""
        return _Cursors(self.data, self.at[rows], self.ends[rows], self.bad[rows])

    def back(self, rows: Longs, moved: "_Cursors") -> None:
        """Take over the places of cursors that moved apart."""
        self.at[rows], self.bad[rows] = moved.at, moved.bad

    def longs(self) -> Longs:
        """A number each: zigzag, seven bits a byte, the lowest first."""
        byte = self.data[self.at]
        values = _SMALL[byte]
        self.at = self.at + 1
        longer = np.flatnonzero(byte > _ONE_BYTE)
        if longer.size:
            values[longer] = self._longer(longer, byte[longer])
        self.at = np.minimum(self.at, self._past_the_last)
        return values

    def _longer(self, rows: Longs, first: npt.NDArray[np.uint8]) -> Longs:
        """The numbers of some rows, of whose bytes the first is read."""
        values = (first & _ONE_BYTE).astype(np.uint64)
        more = np.arange(len(rows))
        shift = 7
        while more.size:
            if shift > _MAX_SHIFT:
                self.bad[rows[more]] = True
                break
            byte = self.data[self.at[rows[more]]]
            values[more] |= (byte & _ONE_BYTE).astype(np.uint64) << np.uint64(shift)
            self.at[rows[more]] += 1
            more = more[byte > _ONE_BYTE]
            shift += 7
        return (values >> np.uint64(1)).astype(np.int64) ^ -(values & np.uint64(1)).astype(np.int64)

    def take(self, sizes: Longs) -> tuple[Longs, Longs]:
        """Pass over as many bytes each; their starts and sizes, 0 where there are not so many."""
        self.bad |= (sizes < 0) | (sizes > self.ends - self.at)
        sizes = np.where(self.bad, 0, sizes)
        start = self.at
        self.at = start + sizes
        return start, sizes

    def fixed(self, size: int) -> npt.NDArray[np.uint8]:
        """`size` bytes each, as the rows of a matrix."""
        start, _ = self.take(np.full(len(self), size, np.int64))
        return self.data[np.minimum(start, len(self.data) - size)[:, None] + np.arange(size)]


def _record(cursors: _Cursors, schema: dict[str, Any], names: dict[str, Any]) -> list[pa.Array]:
    names[schema["name"]] = schema
    return [_array(cursors, field["type"], names) for field in schema["fields"]]


def _array(cursors: _Cursors, schema: Any, names: dict[str, Any]) -> pa.Array:
    schema, kind = _resolved(schema, names)
    if kind == "union":
        return _optional(cursors, schema, names)
    if kind == "record":
        arrays = _record(cursors, schema, names)
        return pa.StructArray.from_arrays(arrays, fields=[_type(schema, names).field(n) for n in range(len(arrays))])
    if kind == "enum":
        names[schema["name"]] = schema
        return _enum(cursors, schema["symbols"])
    if kind == "array":
        return _items(cursors, schema["items"], names)
    if kind in ("string", "bytes"):
        return _texts(cursors, kind == "string")
    if kind in ("int", "long"):
        wanted = _type(schema, names)
        plain = pa.array(cursors.longs())
        return plain if wanted == pa.int64() else _narrowed(plain, wanted)
    if kind == "boolean":
        flags = cursors.fixed(1)[:, 0] if len(cursors) else np.zeros(0, np.uint8)
        cursors.bad |= flags > 1
        return pa.array(flags == 1)
    if kind in ("float", "double"):
        size, of = (4, "<f4") if kind == "float" else (8, "<f8")
        return pa.array(np.ascontiguousarray(cursors.fixed(size)).view(of)[:, 0])
    return pa.nulls(len(cursors))


def _narrowed(plain: pa.Array, wanted: pa.DataType) -> pa.Array:
    if wanted.bit_width == 32:
        return plain.cast(pa.int32(), safe=False).cast(wanted)
    return plain.cast(wanted)


def _optional(cursors: _Cursors, schema: list[Any], names: dict[str, Any]) -> pa.Array:
    some = 1 if schema[0] == "null" else 0
    branch = cursors.longs()
    cursors.bad |= (branch < 0) | (branch > 1)
    rows = np.flatnonzero(branch == some)
    if rows.size == len(cursors):
        return _array(cursors, schema[some], names)
    if not rows.size:
        return pa.nulls(len(cursors), _type(schema[some], names))
    moved = cursors.some(rows)
    values = _array(moved, schema[some], names)
    cursors.back(rows, moved)
    places = np.zeros(len(cursors), np.int64)
    places[rows] = np.arange(len(rows))
    return values.take(pa.array(places, mask=branch != some))


def _enum(cursors: _Cursors, symbols: list[str]) -> pa.Array:
    index = cursors.longs()
    cursors.bad |= (index < 0) | (index >= len(symbols))
    return pa.array(symbols).take(pa.array(np.where(cursors.bad, 0, index)))


def _texts(cursors: _Cursors, is_text: bool) -> pa.Array:
    # Arrow's view layout: size, then either up to 12 bytes or the first four, the buffer's number and the start in it.
    # Casting it copies the texts one behind the other in C++, and looks neither at what follows a short text nor at a
    # long one's first four bytes.
    start, sizes = cursors.take(cursors.longs())
    views = np.zeros((len(sizes), 4), np.int32)
    views[:, 0] = sizes
    views[:, 3] = start
    short = np.flatnonzero((sizes <= _INLINE) & (sizes > 0))
    if short.size:
        heads = np.ndarray(len(cursors.data) - _INLINE + 1, f"V{_INLINE}", cursors.data, strides=(1,))
        views[short, 1:] = heads[start[short]].view(np.int32).reshape(-1, 3)
    buffers = [None, pa.py_buffer(views), pa.py_buffer(cursors.data)]
    texts = pa.Array.from_buffers(pa.binary_view(), len(sizes), buffers).cast(pa.binary())
    if not is_text:
        return texts
    try:
        return texts.cast(pa.string())
    except pa.ArrowInvalid:
        wrong = np.array([not _is_utf8(each) for each in texts.to_pylist()], np.bool_)
        cursors.bad |= wrong
        return texts.take(pa.array(np.arange(len(wrong)), mask=wrong)).cast(pa.string())


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _items(cursors: _Cursors, items: Any, names: dict[str, Any]) -> pa.Array:
    of: list[Longs] = []
    arrays: list[pa.Array] = []
    counts = np.zeros(len(cursors), np.int64)
    rows = np.arange(len(cursors))
    while rows.size:
        moved = cursors.some(rows)
        block = moved.longs()
        # What lies past a record's end is no count.
        moved.bad |= moved.at > moved.ends
        sized = np.flatnonzero(block < 0)
        sizes = moved.some(sized)
        # A negative count is followed by the block's size in bytes, for readers that skip it.
        sizes.longs()
        moved.back(sized, sizes)
        left = np.abs(block)
        moved.bad |= left > MAX_ITEMS
        left[moved.bad] = 0
        counts[rows] += left
        cursors.back(rows, moved)
        more = rows[left > 0]
        left = left[left > 0]
        rows = more
        while more.size:
            moved = cursors.some(more)
            arrays.append(_array(moved, items, names))
            of.append(more)
            cursors.back(more, moved)
            left = left - 1
            more, left = more[left > 0], left[left > 0]
    values = pa.concat_arrays(arrays) if arrays else pa.array([], _type(items, names))
    order = np.argsort(np.concatenate(of), kind="stable") if of else np.zeros(0, np.int64)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(order)))


def _type(schema: Any, names: dict[str, Any]) -> pa.DataType:
    schema, kind = _resolved(schema, names)
    if kind == "union":
        if len(schema) != 2 or "null" not in schema:
            raise UnsupportedSchema("A union must be of null and one other type.")
        return _type(schema[1] if schema[0] == "null" else schema[0], names)
    if kind == "record":
        names[schema["name"]] = schema
        return pa.struct([pa.field(field["name"], _type(field["type"], names)) for field in schema["fields"]])
    if kind == "enum":
        names[schema["name"]] = schema
        return pa.string()
    if kind == "array":
        return pa.list_(_type(schema["items"], names))
    if kind not in _PLAIN:
        raise UnsupportedSchema(f"The type {kind} is not supported.")
    logical = schema.get("logicalType") if isinstance(schema, dict) else None
    return _LOGICAL.get(logical, _PLAIN[kind]) if logical else _PLAIN[kind]


def _resolved(schema: Any, names: dict[str, Any]) -> tuple[Any, str]:
    """A schema without references, and its kind."""
    if isinstance(schema, list):
        return schema, "union"
    if isinstance(schema, dict):
        return schema, str(schema["type"])
    if schema in names:
        return names[schema], str(names[schema]["type"])
    return schema, str(schema)
