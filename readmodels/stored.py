"""What readers find by reference: documents (readmodels/documents.py) and values (readmodels/incremental.py)."""

from collections.abc import Collection

from readmodels import documents, incremental
from readmodels.effects import Command, Effects

Kind = documents.Kind | incremental.Kind
Reference = tuple[Kind, documents.Id]


def read(reference: Reference) -> Command:
    """Reads what is stored."""
    kind, identifier = reference
    if isinstance(kind, documents.Kind):
        return documents.read((kind, identifier))
    return incremental.read((kind, identifier))


def body(reference: Reference, reply: bytes | None) -> bytes | None:
    """The content in the reply to `read`; None if it has to be filled, empty if the thing does not exist."""
    return documents.body(reply) if isinstance(reference[0], documents.Kind) else incremental.body(reply)


def fill(references: Collection[Reference], public_url: str) -> Effects[dict[Reference, bytes]]:
    """Reads what is missing from the database and writes it; the contents, empty where nothing exists."""
    of_documents, of_values = _apart(references)
    contents: dict[Reference, bytes] = {}
    if of_documents:
        contents |= (yield from documents.fill(of_documents, public_url)).items()
    if of_values:
        contents |= (yield from incremental.fill(of_values)).items()
    return contents


def load(references: Collection[Reference], public_url: str) -> Effects[dict[Reference, bytes]]:
    """The contents straight from the database, empty where nothing exists."""
    of_documents, of_values = _apart(references)
    contents: dict[Reference, bytes] = {}
    contents |= (yield from documents.load(of_documents, public_url)).items()
    contents |= (yield from incremental.load(of_values)).items()
    return contents


def _apart(references: Collection[Reference]) -> tuple[list[documents.Reference], list[incremental.Reference]]:
    of_documents: list[documents.Reference] = []
    of_values: list[incremental.Reference] = []
    for kind, identifier in references:
        if isinstance(kind, documents.Kind):
            of_documents.append((kind, identifier))
        else:
            of_values.append((kind, identifier))
    return of_documents, of_values
