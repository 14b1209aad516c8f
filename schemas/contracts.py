"""The domain events' contracts as files: `avro/<event>.avsc`, an example each, and every version ever released.

A contract's versions are `avro/versions/<event>.<number>.avsc`, from 1, and never change.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fanline import avro
from fanline.errors import ConfigurationError
from schemas.compatibility import incompatibilities

FOLDER = Path(__file__).parent / "avro"


@dataclass(frozen=True)
class Contract:
    """One domain event: its topic's name, its schema as text, and an example record."""

    name: str
    text: str
    example: dict[str, Any]
    versions: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The registry's subject of the topic's values."""
        return f"{self.name}-value"


def load(folder: Path = FOLDER) -> dict[str, Contract]:
    """Every contract by event name; raises `ConfigurationError` when a file is missing."""
    contracts = {}
    for path in sorted(folder.glob("*.avsc")):
        name = path.stem
        example = folder / "examples" / f"{name}.json"
        if not example.exists():
            raise ConfigurationError(f"Contract {name} has no example: {example} is missing.")
        released = sorted((folder / "versions").glob(f"{name}.*.avsc"), key=lambda each: int(each.stem.split(".")[-1]))
        contracts[name] = Contract(
            name,
            path.read_text("utf-8"),
            json.loads(example.read_text("utf-8")),
            tuple(each.read_text("utf-8") for each in released),
        )
    return contracts


def faults(contract: Contract) -> list[str]:
    """What is wrong with a contract, a sentence each: schema, documentation, example, BACKWARD_TRANSITIVE, release."""
    try:
        schema = avro.parse(contract.text)
    except ValueError as error:
        return [f"{contract.name}: {error}."]
    found = [f"{contract.name}: {what} has no doc." for what in _undocumented(json.loads(contract.text))]
    try:
        avro.encode(0, schema, contract.example)
    except ValueError as error:
        found.append(f"{contract.name}: the example does not fit: {error}.")
    current = json.loads(contract.text)
    for number, text in enumerate(contract.versions, start=1):
        for fault in incompatibilities(current, json.loads(text)):
            found.append(f"{contract.name}: cannot read what version {number} wrote: {fault}")
    if not found and (not contract.versions or json.loads(contract.versions[-1]) != current):
        found.append(f"{contract.name}: the schema has changed and is not released: run fanline schemas release.")
    return found


def release(contract: Contract, folder: Path = FOLDER) -> int | None:
    """Keep the current schema as the next version; its number, or None when it is the newest already.

    Raises `ConfigurationError` when it breaks a version that was released before.
    """
    if contract.versions and json.loads(contract.versions[-1]) == json.loads(contract.text):
        return None
    broken = [fault for fault in faults(contract) if not fault.endswith("fanline schemas release.")]
    if broken:
        raise ConfigurationError("\n".join(broken))
    number = len(contract.versions) + 1
    path = folder / "versions" / f"{contract.name}.{number}.avsc"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(contract.text, "utf-8")
    return number


def _undocumented(schema: dict[str, Any]) -> list[str]:
    missing = [] if schema.get("doc") else ["the record"]
    return missing + [f"field {field['name']}" for field in schema["fields"] if not field.get("doc")]
