"""How many instances of each dataflow the local stack runs: one, unless `fanline dataflows scale` said otherwise."""

import json
from collections.abc import Mapping
from pathlib import Path

from stack.layout import Layout


def instances(layout: Layout) -> Mapping[str, int]:
    """The number of instances of the flows that have been scaled."""
    try:
        found = json.loads(_path(layout).read_text())
    except FileNotFoundError:
        return {}
    return {str(flow): int(number) for flow, number in found.items()}


def set_instances(layout: Layout, flow: str, number: int) -> None:
    """Remember how many instances of a flow to run from the next start on."""
    path = _path(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps({**instances(layout), flow: number}))
    unfinished.replace(path)


def _path(layout: Layout) -> Path:
    # Beside the recovery stores, of which there is one an instance: who removes these starts with one again.
    return layout.state / "recovery" / "instances.json"
