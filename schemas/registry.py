"""The contracts in the schema registry, and events encoded with the ids that it gave them."""

from typing import Any

from fanline import addresses, avro
from fanline.errors import ConfigurationError, FanlineError
from fanline.settings import Settings
from schemas import contracts

COMPATIBILITY = "BACKWARD_TRANSITIVE"


class EventEncoder:
    """Encodes domain events; made once at start, then used without any I/O."""

    def __init__(self, ids: dict[str, int], known: dict[str, contracts.Contract] | None = None) -> None:
        """`ids` are the registry's schema ids by event name, as `register_all` returns them."""
        known = contracts.load() if known is None else known
        self._schemas = {name: (schema_id, avro.parse(known[name].text)) for name, schema_id in ids.items()}

    def encode(self, name: str, event: dict[str, Any]) -> bytes:
        """The outbox payload of an event: framed Avro. Raises `ValueError` naming the field that does not fit."""
        try:
            schema_id, schema = self._schemas[name]
        except KeyError:
            raise ValueError(f"There is no event {name}; there are {', '.join(sorted(self._schemas))}.") from None
        return avro.encode(schema_id, schema, event)


def register_all(settings: Settings) -> dict[str, int]:
    """Register every contract under BACKWARD_TRANSITIVE and return the schema ids by event name; idempotent.

    Raises `ConfigurationError` when the registry holds a version that the contract would break, and
    `DependencyUnavailable` when it does not answer.
    """
    registry = avro.SchemaRegistry(addresses.registry_url(settings))
    return {name: _register(registry, contract) for name, contract in contracts.load().items()}


def encoder(settings: Settings) -> EventEncoder:
    """Register the contracts and return their encoder."""
    return EventEncoder(register_all(settings))


def _register(registry: avro.SchemaRegistry, contract: contracts.Contract) -> int:
    try:
        schema_id = registry.register(contract.subject, contract.text)
        # The rule belongs to the subject, not to the registry: row changes follow the tables and have none.
        path = f"/config/{contract.subject}"
        current = registry.call("GET", path)
        if not current.ok or current.json().get("compatibilityLevel") != COMPATIBILITY:
            registry.accepted(registry.call("PUT", path, {"compatibility": COMPATIBILITY}))
    except avro.RegistryRefused as error:
        raise ConfigurationError(f"Contract {contract.name}: {error}") from error
    return schema_id


def registry_faults(settings: Settings) -> list[str]:
    """What the running registry has against the contracts, a sentence each; empty when it accepts all."""
    registry = avro.SchemaRegistry(addresses.registry_url(settings))
    found = []
    for contract in contracts.load().values():
        path = f"/compatibility/subjects/{contract.subject}/versions?verbose=true"
        response = registry.call("POST", path, {"schema": contract.text})
        if response.status_code == 404:
            continue
        try:
            verdict = registry.accepted(response)
        except FanlineError as error:
            found.append(f"{contract.name}: {error}")
            continue
        if not verdict.get("is_compatible"):
            reasons = "; ".join(verdict.get("messages") or ()) or "incompatible with a registered version"
            found.append(f"{contract.name}: the registry refuses it: {reasons}.")
    return found
