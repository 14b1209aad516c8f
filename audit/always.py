"""The audit that always runs: it looks at some people and posts every few seconds, counts, repairs and explains.

What differs is looked at again when the pipeline has passed the moment of the first look. It is drift only if the
database has answered the same both times: then nothing is under way that could explain it. Subjects that change all the
time are left for another round.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import psycopg
from prometheus_client import start_http_server

from audit.causes import Causes
from audit.compare import Difference
from audit.completeness import Completeness
from audit.model import Model
from audit.models import always_models
from audit.sampling import sample
from audit.stores import Stores
from connectors.barrier import Barrier
from fanline import metrics
from fanline.errors import BarrierTimeout, ConfigurationError, DependencyUnavailable
from fanline.logging import get_logger
from fanline.settings import Settings

# Of looks at what moves, before it is left for another round.
LOOKS = 3
BARRIER_SECONDS = 30.0
# A round is followed by this many times its work without one: a twentieth of a database's time at most.
PAUSES = 19
# Servers that are away are asked for again after this.
PAUSE_SECONDS = 2.0

_log = get_logger(__name__)


class AlwaysAudit:
    """One round after the other; one thread only. `wait` returns when the pipeline has passed all that is committed."""

    def __init__(
        self, stores: Stores, models: Sequence[Model], wait: Callable[[], object], causes: Causes, settings: Settings,
        completeness: Completeness,
    ) -> None:  # fmt: skip
        self._stores, self._models, self._pass, self._causes = stores, models, wait, causes
        self._settings, self._completeness = settings, completeness
        self._waited = 0.0

    def round(self) -> float:
        """Looks once at a sample of everything; the seconds of work that it was, waits for the pipeline apart.

        Raises what an unavailable server raises, and `BarrierTimeout`.
        """
        began, self._waited = time.monotonic(), 0.0
        self._stores.serve_generations()
        subjects = sample(self._stores, self._settings.audit_sample)
        for model in self._models:
            self.look(model, model.subjects(self._stores, subjects))
        return time.monotonic() - began - self._waited

    def look(self, model: Model, subjects: Sequence[Any]) -> dict[Any, Difference]:
        """Compares some subjects of a model; those that drift, repaired or not, with their differences."""
        began = time.monotonic()
        found = model.check(self._stores, subjects)
        suspects = [subject for subject, difference in found.items() if difference]
        compared = [subject for subject, difference in found.items() if difference is not None]
        drifting: dict[Any, Difference] = {}
        moving = suspects
        for _ in range(LOOKS):
            if not moving:
                break
            drift, moving = self._look_again(model, moving)
            drifting |= drift
        metrics.STALENESS_SECONDS.labels(model.name).set(time.monotonic() - began if suspects else 0.0)
        settled = [subject for subject in compared if subject not in moving]
        metrics.AUDITED.labels(model.name).inc(len(settled))
        self._completeness.add(model.name, [subject not in drifting for subject in settled])
        for subject, difference in drifting.items():
            self._drifts(model, subject, difference)
        return drifting

    def _look_again(self, model: Model, subjects: Sequence[Any]) -> tuple[dict[Any, Difference], list[Any]]:
        """The subjects that drift, and those that the database has changed meanwhile; the others are equal by now."""
        before = {subject: self._answers(model, subject)[0] for subject in subjects}
        self._wait()
        drifting: dict[Any, Difference] = {}
        moving: list[Any] = []
        for subject in subjects:
            answers, difference = self._answers(model, subject)
            if difference and answers == before[subject]:
                drifting[subject] = difference
            elif difference:
                moving.append(subject)
        return drifting, moving

    def _wait(self) -> None:
        began = time.monotonic()
        self._pass()
        self._waited += time.monotonic() - began

    def _answers(self, model: Model, subject: Any) -> tuple[int, Difference | None]:
        with self._stores.answers() as answers:
            difference = model.check(self._stores, [subject]).get(subject)
            return answers(), difference

    def _drifts(self, model: Model, subject: Any, difference: Difference) -> None:
        """Counts, explains and repairs one difference."""
        for kind, number in asdict(difference).items():
            if number:
                metrics.DRIFT.labels(model.name, kind).inc(number)
        cause = self._causes.of(model.flow, subject)
        told = {"model": model.name, "subject": str(subject), "difference": str(difference), "cause": cause.sentence}
        _log.warning("drift", **told, **cause.facts)
        if not self._settings.audit_repair:
            return
        model.repair(self._stores, [subject])
        _, left = self._answers(model, subject)
        if left:
            # Somebody may have written between the repair and this look.
            self._wait()
            _, left = self._answers(model, subject)
        metrics.DRIFT_REPAIRS.labels(model.name, "failed" if left else "repaired").inc()
        if left:
            _log.error("drift not repaired", model=model.name, subject=str(subject), difference=str(left))
        else:
            _log.info("drift repaired", model=model.name, subject=str(subject))


def pause(worked: float, settings: Settings) -> float:
    """The seconds until the next round: there are two in the window that completeness is taken from at least."""
    return max(settings.audit_seconds, min(PAUSES * worked, settings.audit_window_seconds / 2))


def run(settings: Settings, stop: threading.Event, port: int) -> None:
    """Rounds until `stop` is set, with /metrics on a port; waits for servers that are away."""
    try:
        start_http_server(port, addr=settings.host)
    except OSError as error:
        raise ConfigurationError(f"Port {port} for /metrics (FANLINE_METRICS_PORT) cannot be used: {error}.") from error
    _log.info("audit starts", sample=settings.audit_sample, seconds=settings.audit_seconds)
    completeness = Completeness(settings.audit_window_seconds)
    while not stop.is_set():
        try:
            _rounds(settings, stop, completeness)
        except (DependencyUnavailable, BarrierTimeout, psycopg.OperationalError) as error:
            _log.warning("the audit waits", reason=str(error))
            completeness.expire()
            stop.wait(PAUSE_SECONDS)
    _log.info("audit ends")


def _rounds(settings: Settings, stop: threading.Event, completeness: Completeness) -> None:
    stores = Stores(settings)
    try:
        stores.load_functions()
        with Barrier(settings) as barrier:
            audit = AlwaysAudit(
                stores, always_models(settings), lambda: barrier.wait(BARRIER_SECONDS), Causes(settings), settings,
                completeness,
            )  # fmt: skip
            while not stop.is_set():
                stop.wait(pause(audit.round(), settings))
    finally:
        stores.close()
