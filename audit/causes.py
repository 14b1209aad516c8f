"""What may have made a read model differ, as far as Kafka and the flows tell of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from connectors import flow_metrics
from connectors.backlog import Backlog
from connectors.flows import metrics_port
from connectors.letter_log import read_ledger, read_records
from connectors.payload import Payloads
from fanline.errors import FanlineError
from fanline.settings import Settings

# A flow that has run for longer than this has had nothing to do with what came since.
RECENT_SECONDS = 3_600.0
LETTERS_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Cause:
    """The likeliest cause as a sentence, and what it was concluded from."""

    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)


class Causes:
    """Looks for causes; everything that it asks is read only. What does not answer is left out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._payloads = Payloads(settings)

    def of(self, flow: str, subject: Any) -> Cause:
        """The cause of a difference in what a flow writes about a subject (an id)."""
        letters = self._letters(flow, str(subject))
        starts = self._started_seconds_ago(flow)
        behind = self._behind(flow)
        facts = {"flow": flow, "dead_letters": letters, "flow_started_seconds_ago": starts, "behind_records": behind}
        if letters:
            first = letters[0]
            place = f"{first['topic']} [{first['partition']}] offset {first['offset']}"
            return Cause(f"The flow rejected {len(letters)} records of it, first {place}: {first['reason']}", facts)
        if not starts:
            return Cause(f"The flow {flow} does not answer: it is down, or too busy.", facts)
        if behind:
            return Cause(f"The flow {flow} is behind by {behind} records.", facts)
        if min(starts) < RECENT_SECONDS:
            return Cause(f"The flow {flow} was started {min(starts):.0f} s ago; nothing was rejected.", facts)
        return Cause("Neither a dead letter nor a restart explains it: changed by hand, lost, or a defect.", facts)

    def _letters(self, flow: str, subject: str) -> list[dict[str, Any]]:
        """The dead letters of the flow, not dealt with, whose key or value names the subject."""
        try:
            letters = read_ledger(flow, self._settings).open()[-LETTERS_LOOKED_AT:]
            records = list(read_records(flow, letters, self._settings)) if letters else []
        except FanlineError:
            return []
        return [
            {
                "topic": letter.origin.topic,
                "partition": letter.origin.partition,
                "offset": letter.origin.offset,
                "reason": letter.reason,
            }
            for letter, record in records
            if subject in f"{self._payloads.decoded(record.key)} {self._payloads.decoded(record.value)}"
        ]

    def _started_seconds_ago(self, flow: str) -> Sequence[float]:
        """How long each instance of the flow runs; empty when none answers."""
        ages = []
        for instance in count():
            port = metrics_port(self._settings.flows_metrics_port, flow, instance)
            figures = flow_metrics.read(f"http://{self._settings.host}:{port}/metrics")
            if figures is None:
                break
            ages.append(round(time.time() - figures.started, 1))
        return ages

    def _behind(self, flow: str) -> int | None:
        """Records that the flow has not applied; None when Kafka does not tell."""
        backlog = Backlog(self._settings)
        try:
            return sum(each.records for each in backlog.measure() if each.flow == flow)
        except FanlineError:
            return None
        finally:
            backlog.close()
