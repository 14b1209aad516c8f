"""Runs every benchmark, or those named: `python -m benchmarks [NAME...]`.

Those with servers of their own come first, so that they have the machine for themselves. Starts the system for the
others if it does not run, and stops it again then. Each benchmark's last line is shown, and all of
them once more at the end.
"""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import benchmarks
from fanline.settings import get_settings
from stack import status
from stack.layout import Layout

HELPERS = {"__main__", "report"}
OWN_SERVERS = (
    "fanout", "followers", "home", "engagement", "cards", "aggregates", "trends", "search", "notifications",
    "dispatcher", "channels",
)  # fmt: skip


def names() -> list[str]:
    """The benchmarks, by name: every module here that can be run."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if is_benchmark(module.name))


def is_benchmark(name: str) -> bool:
    """Whether a module of this folder is a benchmark: it runs as a program."""
    source = Path(benchmarks.__path__[0], f"{name}.py")
    return name not in HELPERS and source.exists() and '__name__ == "__main__"' in source.read_text(encoding="utf-8")


def run(name: str) -> str | None:
    """Run one benchmark, showing what it prints; its last line, or None when it failed."""
    print(f"--- {name}", flush=True)
    with subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    if process.returncode:
        print(f"benchmarks.{name} failed with exit code {process.returncode}", file=sys.stderr)
        return None
    json.loads(last)
    return last


def main(wanted: list[str]) -> int:
    """Run the wanted benchmarks (all if none is named); non-zero when one failed."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"There is no benchmark {unknown[0]!r}; there are {', '.join(names())}.", file=sys.stderr)
        return 2
    report = status.collect(Layout(get_settings()))
    parts = [*report["servers"], *report["dataflows"], report["api"]]
    ran_before = any(part["pid"] is not None for part in parts)
    chosen = wanted or names()
    results = {name: run(name) for name in chosen if name in OWN_SERVERS}
    if subprocess.run([sys.executable, "-m", "fanline.cli", "up"], check=False).returncode:
        return 1
    try:
        results |= {name: run(name) for name in chosen if name not in OWN_SERVERS}
    finally:
        if not ran_before:
            subprocess.run([sys.executable, "-m", "fanline.cli", "down"], stdout=subprocess.DEVNULL, check=False)
    print("--- all")
    for name, last in results.items():
        print(last or json.dumps({"name": name, "error": "failed"}))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
