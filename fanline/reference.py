"""Writes docs/settings.md and docs/metrics.md from the code: `python -m fanline.reference`.

A test compares the files with what this module makes, so the two cannot drift. The sections are the comments
(`# Kafka.`) that group the declarations in `fanline/settings.py` and `fanline/metrics.py`.
"""

import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import get_args, get_origin

from prometheus_client import Counter, Gauge, Histogram
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from fanline import metrics
from fanline.settings import Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"

_SECTION = re.compile(r"^\s*# (?P<title>.+)\.$")
_DECLARATION = re.compile(r"^\s*(?P<name>[A-Za-z_]+)(: \S.*)? = ")


def settings_page() -> str:
    """The Markdown page that lists every setting: variable, type, default and meaning."""
    prefix = Settings.model_config["env_prefix"]
    rows = [
        (name, f"| `{prefix}{name.upper()}` | {_type(field)} | {_default(field)} | {field.description or ''} |")
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "Each setting is an environment variable. A value that cannot be used stops the process with a sentence that "
        "names the variable. Secrets are never logged.",
        "| Variable | Type | Default | Meaning |\n|---|---|---|---|",
        rows,
        Settings,
    )


def metrics_page() -> str:
    """The Markdown page that lists every Prometheus metric: name, type, labels and meaning."""
    rows = [
        (name, f"| `{_exposed_name(metric)}` | {metric._type} | {_labels(metric)} | {metric._documentation} |")
        for name, metric in vars(metrics).items()
        if isinstance(metric, Counter | Gauge | Histogram)
    ]
    return _page(
        "Metrics",
        "The API serves its metrics at `/metrics`; each dataflow serves its own on its metrics port "
        "([settings](settings.md)). Durations are in seconds. They are declared in `fanline/metrics.py`.",
        "| Metric | Type | Labels | Meaning |\n|---|---|---|---|",
        rows,
        metrics,
    )


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    return {DOCS / "settings.md": settings_page(), DOCS / "metrics.md": metrics_page()}


def main() -> int:
    """Write the pages; returns 0."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _page(title: str, introduction: str, header: str, rows: Iterable[tuple[str, str]], source: object) -> str:
    sections = _sections(source)
    parts = [f"# {title}", f"<!-- Made by `python -m fanline.reference`. -->\n\n{introduction}"]
    section = ""
    for name, row in rows:
        if sections.get(name, "") != section or len(parts) == 2:
            section = sections.get(name, "")
            parts.append(f"## {section}\n\n{header}" if section else header)
        parts[-1] += f"\n{row}"
    return "\n\n".join(parts) + "\n"


def _sections(source: object) -> dict[str, str]:
    """The comment above each declaration's group, by the declaration's name."""
    assert isinstance(source, type | ModuleType)
    sections: dict[str, str] = {}
    title = ""
    for line in inspect.getsource(source).splitlines():
        if match := _SECTION.match(line):
            title = match["title"]
        elif match := _DECLARATION.match(line):
            sections.setdefault(match["name"], title)
    return sections


def _type(field: FieldInfo) -> str:
    options = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind = options[0] if len(options) == 1 and get_origin(field.annotation) is UnionType else field.annotation
    name = "secret" if kind is SecretStr else {"Path": "path", "str": "text"}.get(getattr(kind, "__name__", ""), "")
    limits = [
        f"{sign} {getattr(item, attribute)}"
        for item in field.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(item, attribute)
    ]
    shown = name or getattr(kind, "__name__", str(kind).replace("typing.", "").replace("|", "or"))
    return ", ".join([shown, *limits])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        # Only an empty default may be shown: any other would publish a secret.
        return "(empty)" if not value.get_secret_value() else "(set)"
    return "(empty)" if value is None or not str(value) else f"`{value}`"


def _exposed_name(metric: Counter | Gauge | Histogram) -> str:
    suffix = "_total" if isinstance(metric, Counter) else ""
    return f"{metric._name}{suffix}"


def _labels(metric: Counter | Gauge | Histogram) -> str:
    return ", ".join(f"`{label}`" for label in metric._labelnames)


if __name__ == "__main__":
    sys.exit(main())
