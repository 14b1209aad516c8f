"""What the flows and the API say of themselves: their /metrics, read and added up."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.context import public_url_of
from connectors.flows import FLOWS
from fanline.settings import Settings

_TIMEOUT = aiohttp.ClientTimeout(total=2)


@dataclass(slots=True)
class Figures:
    """One reading; a process that did not answer adds nothing."""

    deliveries: int = 0
    dead_letters: int = 0
    lags: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds by flow and stage: of the partition that is furthest behind."""
    home_reads: dict[str, int] = field(default_factory=dict)
    """Home timelines read, by where they were answered from."""
    redis_seconds: dict[float, float] = field(default_factory=dict)
    """Deliveries' payloads by the longest time from sending to Redis' acknowledgement: a cumulative histogram."""

    def redis_ms(self, percent: float) -> float | None:
        """So many per cent of the payloads to Redis took at most these milliseconds; None without any."""
        seconds = histogram_quantile(self.redis_seconds, percent / 100)
        return None if seconds is None else 1_000 * seconds


def metrics_urls(settings: Settings) -> list[str]:
    """Where the local flows and the API serve their metrics."""
    first = settings.flows_metrics_port
    flows = [f"http://{settings.host}:{first + number}/metrics" for number in range(len(FLOWS))]
    return [*flows, f"{public_url_of(settings)}/metrics"]


async def read_figures(session: aiohttp.ClientSession, settings: Settings) -> Figures:
    """The sum over all processes that answer."""
    pages = await asyncio.gather(*(_page(session, url) for url in metrics_urls(settings)))
    figures = Figures()
    for page in pages:
        add(figures, text_string_to_metric_families(page))
    return figures


def add(figures: Figures, families: Iterable[Metric]) -> None:
    """Add one process' metrics to a reading."""
    for family in families:
        for sample in family.samples:
            _add_sample(figures, sample.name, sample.labels, sample.value)


def _add_sample(figures: Figures, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == "fanline_deliveries_total":
        figures.deliveries += int(value)
    elif name == "fanline_dead_letters_total":
        figures.dead_letters += int(value)
    elif name == "fanline_lag_seconds":
        key = (labels["flow"], labels["stage"])
        figures.lags[key] = max(value, figures.lags.get(key, 0.0))
    elif name == "fanline_sink_seconds_bucket" and labels["flow"] == "timelines":
        bound = float(labels["le"])
        figures.redis_seconds[bound] = figures.redis_seconds.get(bound, 0.0) + value
    elif name == "fanline_home_reads_total":
        source = labels["source"]
        figures.home_reads[source] = figures.home_reads.get(source, 0) + int(value)


def histogram_quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The quantile by Prometheus' rule: linear inside a bucket, the last finite bound above all of them.

    `buckets` are cumulative counts by upper bound. None when nothing was counted.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (buckets[bound] - below)
        lower, below = bound, buckets[bound]
    return lower


async def _page(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(url, timeout=_TIMEOUT) as response:
            return await response.text()
    except (aiohttp.ClientError, TimeoutError):
        return ""
