"""What a running instance of a flow says of itself in /metrics."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import requests
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS = 2.0
# Reading all of a page would cost ten times as much.
WANTED = (
    "process_start_time_seconds",
    "fanline_records_total",
    "fanline_lag_seconds",
    "fanline_dead_letters_total",
    "fanline_sink_retries_total",
    "fanline_waiting_seconds",
    "fanline_completeness_ratio",
)


@dataclass(slots=True)
class FlowFigures:
    """One reading of one instance; counters are since `started`."""

    read_at: float
    """Monotonic seconds."""
    started: float = 0.0
    """Unix seconds."""
    records: float = 0.0
    lag_seconds: float = 0.0
    """Applied lag of the partition that is furthest behind."""
    dead_letters: float = 0.0
    sink_retries: float = 0.0
    waits_for: dict[str, float] = field(default_factory=dict)
    """Seconds that it has been waiting, by what for (connectors/waiting.py); empty while it goes on."""
    completeness: dict[str, float] = field(default_factory=dict)
    """Share of reads equal to the database by read model: of the flow that audits."""

    def rate(self, before: "FlowFigures | None") -> float:
        """Records a second since an earlier reading of the same instance; 0 when it has started anew."""
        if before is None or before.started != self.started or self.read_at <= before.read_at:
            return 0.0
        return max(0.0, self.records - before.records) / (self.read_at - before.read_at)


def read(url: str, session: requests.Session | None = None) -> FlowFigures | None:
    """The figures at a /metrics URL; None when nothing answers."""
    try:
        response = (session or requests).get(url, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
    except requests.RequestException:
        return None
    wanted = "\n".join(line for line in response.text.splitlines() if line.startswith(WANTED))
    return figures(text_string_to_metric_families(wanted + "\n"), time.monotonic())


def figures(families: Iterable[Metric], read_at: float) -> FlowFigures:
    """The figures in a page of metrics."""
    made = FlowFigures(read_at)
    for family in families:
        for sample in family.samples:
            if sample.name == "process_start_time_seconds":
                made.started = sample.value
            elif sample.name == "fanline_records_total":
                made.records += sample.value
            elif sample.name == "fanline_lag_seconds" and sample.labels["stage"] == "applied":
                made.lag_seconds = max(made.lag_seconds, sample.value)
            elif sample.name == "fanline_dead_letters_total":
                made.dead_letters += sample.value
            elif sample.name == "fanline_sink_retries_total":
                made.sink_retries += sample.value
            elif sample.name == "fanline_waiting_seconds" and sample.value:
                made.waits_for[sample.labels["dependency"]] = round(sample.value, 1)
            elif sample.name == "fanline_completeness_ratio":
                made.completeness[sample.labels["model"]] = sample.value
    return made
