"""What `fanline connectors` decides, without asking anybody: templates filled in, differences, causes of failure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fanline.errors import ConfigurationError

TEMPLATES = Path(__file__).parent / "templates"
HIDDEN = "********"

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_SECRET = re.compile(r"password|secret|token|credential|jaas|private\.key|api\.?key", re.IGNORECASE)
_CAUSE = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)+[\w$]+(?:: (?P<message>.*))?$")

LONG_SENTENCE = 300
_BRACKETS = re.compile(r" ?(?:\[[^\[\]]*\]|\{[^{}]*\})")

Config = dict[str, str]


@dataclass(frozen=True)
class Template:
    """A connector's configuration before its placeholders are filled."""

    name: str
    config: Config
    source: str


@dataclass(frozen=True)
class Difference:
    """One key that differs; None where the key is missing on that side."""

    key: str
    current: str | None
    wanted: str | None


def parse_template(text: str, source: str) -> Template:
    """The template in a JSON text; raises `ConfigurationError` naming the file and what is wrong with it."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{source} is not JSON: {error}.") from error
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        wrong = [key for key, value in data.items() if not isinstance(value, str)] if isinstance(data, dict) else []
        where = f" ({', '.join(wrong)})" if wrong else ""
        raise ConfigurationError(f"{source} must be one object whose values are strings{where}.")
    name = data.pop("name", "")
    if not name or "connector.class" not in data:
        raise ConfigurationError(f"{source} must have `name` and `connector.class`.")
    return Template(name, data, source)


def load_templates(folder: Path = TEMPLATES) -> list[Template]:
    """Every `*.json` of a folder, by file name; raises `ConfigurationError` when there is none or two share a name."""
    templates = [parse_template(path.read_text("utf-8"), str(path)) for path in sorted(folder.glob("*.json"))]
    if not templates:
        raise ConfigurationError(f"{folder} has no connector template (*.json).")
    names = [template.name for template in templates]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigurationError(f"Two templates in {folder} have the same name: {', '.join(sorted(twice))}.")
    return templates


def fill(template: Template, values: Mapping[str, str]) -> Config:
    """The configuration with its `${placeholders}` filled; raises `ConfigurationError` on an unknown one."""

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(sorted(values))
            raise ConfigurationError(f"{template.source} uses ${{{match[1]}}}, which is not one of: {known}.")
        return values[match[1]]

    return {key: _PLACEHOLDER.sub(value_of, value) for key, value in template.config.items()}


def differences(current: Mapping[str, str] | None, wanted: Mapping[str, str]) -> list[Difference]:
    """What has to change to get from the running configuration to the wanted one, by key."""
    have = {key: value for key, value in (current or {}).items() if key != "name"}
    want = {key: value for key, value in wanted.items() if key != "name"}
    return [
        Difference(key, have.get(key), want.get(key))
        for key in sorted(have.keys() | want.keys())
        if have.get(key) != want.get(key)
    ]


def is_secret(key: str) -> bool:
    """Whether a key's value must not be shown."""
    return bool(_SECRET.search(key))


def describe(changes: list[Difference]) -> list[str]:
    """A readable diff, a line a side, secrets hidden."""
    lines = []
    for change in changes:
        for sign, value in (("-", change.current), ("+", change.wanted)):
            if value is not None:
                lines.append(f"{sign} {change.key} = {HIDDEN if is_secret(change.key) else value}")
    return lines


def root_cause(trace: str) -> str:
    """One sentence out of a Java stack trace: the message of the innermost cause that has one."""
    causes: list[str] = []
    first = True
    for line in trace.splitlines():
        if not (first or line.startswith("Caused by: ")):
            continue
        first = False
        match = _CAUSE.match(line.strip())
        text = (match["message"] or "") if match else line.strip()
        if text.strip():
            causes.append(text.strip())
    if not causes:
        return "The task gives no reason."
    sentence = _shorter(re.sub(r"^(?:[\w$]+\.){2,}[\w$]+: ", "", causes[-1]))
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _shorter(sentence: str) -> str:
    """A sentence too long to read without what Debezium prints of its objects in brackets."""
    shorter = sentence if len(sentence) > LONG_SENTENCE else ""
    while shorter and shorter != (without := _BRACKETS.sub("", shorter)):
        shorter = without
    return shorter or sentence
