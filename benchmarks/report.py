"""What every benchmark prints, and how it ends."""

import json
import sys
from collections.abc import Callable
from typing import Any

from fanline.errors import FanlineError
from fanline.logging import configure_logging


def finish(name: str, **figures: Any) -> dict[str, Any]:
    """The JSON object that a benchmark ends with; `ratio` is added where `value` and `ceiling` are there."""
    if figures.get("ceiling"):
        figures.setdefault("ratio", round(figures["value"] / figures["ceiling"], 3))
    return {"name": name, **figures}


def run_benchmark(main: Callable[[], dict[str, Any]]) -> None:
    """Run a benchmark as a process: its object is the last line, an expected failure one sentence and its exit code."""
    configure_logging("benchmark", level="error")
    try:
        result = main()
    except FanlineError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(result), flush=True)
    sys.exit(1 if "error" in result else 0)
