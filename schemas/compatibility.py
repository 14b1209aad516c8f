"""Avro's resolution rules: whether a new schema reads everything that an old one wrote; pure.

Covers what the contracts use (records, enums, arrays, maps, unions, primitives); other types are refused by name.
"""

from typing import Any

Schema = Any

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
_PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}


def incompatibilities(reader: Schema, writer: Schema, path: str = "") -> list[str]:
    """Why `reader` cannot read what `writer` wrote, a sentence a place; empty when it can."""
    where = path or "the schema"
    if isinstance(writer, list):
        return [fault for branch in writer for fault in incompatibilities(reader, branch, path)]
    if isinstance(reader, list):
        if any(not incompatibilities(branch, writer, path) for branch in reader):
            return []
        return [f"{where}: {_kind(writer)} is not in the new union."]
    kind = _kind(writer)
    if kind != _kind(reader):
        if _kind(reader) in _PROMOTIONS.get(kind, ()):
            return []
        return [f"{where}: {kind} became {_kind(reader)}."]
    if kind == "record":
        return _records(reader, writer, path)
    if kind == "enum":
        return _enums(reader, writer, where)
    if kind == "array":
        return incompatibilities(reader["items"], writer["items"], f"{path}[]")
    if kind == "map":
        return incompatibilities(reader["values"], writer["values"], f"{path}{{}}")
    if kind not in _PRIMITIVES:
        return [f"{where}: {kind} is not a type that contracts use."]
    return _logical(reader, writer, where)


def _records(reader: Schema, writer: Schema, path: str) -> list[str]:
    if _full_name(reader) != _full_name(writer):
        return [f"{path or 'the schema'}: record {_full_name(writer)} became {_full_name(reader)}."]
    written = {field["name"]: field for field in writer["fields"]}
    faults = []
    for field in reader["fields"]:
        name = f"{path}.{field['name']}".lstrip(".")
        old = next((written[each] for each in (field["name"], *field.get("aliases", ())) if each in written), None)
        if old is not None:
            faults += incompatibilities(field["type"], old["type"], name)
        elif "default" not in field:
            faults.append(f"{name}: a new field needs a default.")
    return faults


def _enums(reader: Schema, writer: Schema, where: str) -> list[str]:
    gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if gone and "default" not in reader:
        return [f"{where}: the enum lost {', '.join(gone)}."]
    return []


def _logical(reader: Schema, writer: Schema, where: str) -> list[str]:
    # Avro would read the bare number, in another unit.
    old, new = (schema.get("logicalType") if isinstance(schema, dict) else None for schema in (writer, reader))
    return [] if old == new else [f"{where}: logical type {old} became {new}."]


def _kind(schema: Schema) -> str:
    return "union" if isinstance(schema, list) else str(schema["type"] if isinstance(schema, dict) else schema)


def _full_name(schema: Schema) -> str:
    namespace = schema.get("namespace")
    return f"{namespace}.{schema['name']}" if namespace else str(schema["name"])
