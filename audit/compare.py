"""How far an answer is from its oracle. Pure."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """What is wrong with one answer; all zero when it equals its oracle."""

    missing: int = 0
    extra: int = 0
    duplicate: int = 0
    out_of_order: int = 0

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(self).items() if count)


def compare_sequences(expected: Sequence[Hashable], actual: Sequence[Hashable]) -> Difference:
    """Compares lists whose order counts.

    `out_of_order` is how many of the items that both have come after one that should follow them; an item that
    comes again counts as a duplicate and for nothing else.
    """
    place = {item: index for index, item in enumerate(expected)}
    unique = list(dict.fromkeys(actual))
    furthest = -1
    out_of_order = 0
    for index in (place[item] for item in unique if item in place):
        out_of_order += index < furthest
        furthest = max(furthest, index)
    return Difference(
        missing=len(place.keys() - set(unique)),
        extra=len(set(unique) - place.keys()),
        duplicate=len(actual) - len(unique),
        out_of_order=out_of_order,
    )


def compare_sets(expected: Iterable[Hashable], actual: Iterable[Hashable]) -> Difference:
    """Compares collections whose order does not count."""
    wanted, found = set(expected), list(actual)
    unique = set(found)
    return Difference(missing=len(wanted - unique), extra=len(unique - wanted), duplicate=len(found) - len(unique))


def compare_documents(expected: bytes, actual: bytes) -> Difference:
    """Compares ready-made documents; an empty one means that nothing is there, a wrong one is missing and extra."""
    if expected == actual:
        return Difference()
    return Difference(missing=int(bool(expected)), extra=int(bool(actual)))


@dataclass(slots=True)
class Tally:
    """The sum over one read model's answers, and the first few subjects that differ."""

    checked: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    duplicate: int = 0
    out_of_order: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, subject: object, difference: Difference) -> None:
        """Count one answer."""
        self.checked += 1
        if not difference:
            self.equal += 1
            return
        self.missing += difference.missing
        self.extra += difference.extra
        self.duplicate += difference.duplicate
        self.out_of_order += difference.out_of_order
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{subject}: {difference}")


Report = Mapping[str, Tally]
"""A tally for each read model."""


def is_equal(report: Report) -> bool:
    """Whether no answer differs from its oracle."""
    return all(tally.equal == tally.checked for tally in report.values())
