"""Runs one dataflow as one process: `python -m dataflows.run NAME`.

One worker, its recovery store, its /metrics, its logs. SIGTERM and SIGINT end the sources; the flow drains, takes its
last snapshot, commits its offsets and exits 0. A typed error is one plain sentence on standard error and its exit code.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from bytewax._bytewax import run_main
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from prometheus_client import start_http_server

from connectors import lifecycle, recovery
from connectors.flows import FLOWS, UNHURRIED, flows_of, metrics_port
from connectors.progress import close_groups
from fanline.errors import ConfigurationError, FanlineError
from fanline.logging import configure_logging, get_logger
from fanline.settings import Settings, get_settings
from fanline.tracing import configure_tracing, shut_down_tracing

# A pause of an unhurried flow may last so much longer, in nanoseconds, so that pauses end together; and its number of
# prctl(2), which Python has no function for.
TIMER_SLACK_NS = 20_000_000
PR_SET_TIMERSLACK = 29

_log = get_logger(__name__)


def main(arguments: list[str]) -> int:
    """Run the named flow; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise ConfigurationError(f"Name one dataflow: {', '.join(FLOWS)}.")
        run(arguments[0])
    except FanlineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def run(name: str, prepare: Callable[[], None] | None = None) -> None:
    """Run `dataflows.NAME.flow` until it ends or the process is asked to stop; raises the typed error that ended it.

    `prepare` is called first, when it is certain that no other process runs this instance of the flow.
    """
    settings = get_settings()
    flows = flows_of(settings.database_dialect)
    if name not in flows:
        raise ConfigurationError(f"There is no dataflow {name!r}; there are {', '.join(flows)}.")
    if settings.flow_instance >= settings.flow_instances:
        raise ConfigurationError(
            f"FANLINE_FLOW_INSTANCE is {settings.flow_instance}, but FANLINE_FLOW_INSTANCES is "
            f"{settings.flow_instances}: instances are counted from 0."
        )
    # Python's standard error moves to a descriptor of its own, so that `_engine_reports` can have number 2.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    configure_logging(name)
    configure_tracing(name)
    serve_metrics(name, settings)
    if name in UNHURRIED:
        _rest_longer()

    def build() -> Dataflow:
        if prepare is not None:
            prepare()
            # What the store knows is from before; the group's offsets hold now, whatever happens next.
            folder = recovery.folder(name, settings.flow_instance, settings)
            recovery.forget(folder)
            _init_store(folder)
        return _load(name)

    try:
        run_flow(name, build, settings)
    finally:
        shut_down_tracing()


def run_flow(name: str, build: Callable[[], Dataflow], settings: Settings) -> None:
    """Run a flow with a recovery store, snapshots and a clean end; raises the typed error that ended it.

    `build` makes the flow; it is called when the process holds the store.
    """
    lifecycle.reset(name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: lifecycle.request_stop())
    folder = recovery.folder(name, settings.flow_instance, settings)
    with _only_one(folder, name):
        flow = build()
        # A batch is thousands of short-lived tuples, for which Python's default of a collection every 700 objects
        # doubles the cost of a record; what was built so far stays, and need not be looked at again.
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        _log.info("flow starts", flow=name, instance=settings.flow_instance, instances=settings.flow_instances)
        started = time.monotonic()
        try:
            with _engine_reports(folder / "engine.log"):
                run_main(  # type: ignore[no-untyped-call]
                    flow,
                    epoch_interval=timedelta(seconds=settings.epoch_seconds),
                    recovery_config=RecoveryConfig(  # type: ignore[no-untyped-call]
                        str(folder), backup_interval=timedelta(0)
                    ),
                )
            lifecycle.raise_close_failure()
        except BaseException as error:
            typed = typed_cause(error)
            if typed is None:
                raise
            raise typed from None
        finally:
            close_groups()
            lifecycle.reset()
        _log.info("flow ends", flow=name, seconds=round(time.monotonic() - started, 1))


def serve_metrics(name: str, settings: Settings) -> None:
    """Serve /metrics on FANLINE_METRICS_PORT or the flow's own port; raises `ConfigurationError` when it is taken."""
    port = settings.metrics_port or metrics_port(settings.flows_metrics_port, name, settings.flow_instance)
    try:
        start_http_server(port, addr=settings.host)
    except OSError as error:
        raise ConfigurationError(f"Port {port} for /metrics (FANLINE_METRICS_PORT) cannot be used: {error}.") from error


def _rest_longer() -> None:
    """Let the pauses of this process be longer than asked for.

    The engine looks for work every millisecond, which costs a process without any 2 to 3 % of a core.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS)


def typed_cause(error: BaseException | None) -> FanlineError | None:
    """The typed error that Bytewax has wrapped; None when there is none."""
    while error is not None:
        if isinstance(error, FanlineError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _load(name: str) -> Dataflow:
    flow = importlib.import_module(f"dataflows.{name}").flow
    found = flow if isinstance(flow, Dataflow) else flow()
    assert isinstance(found, Dataflow)
    return found


@contextlib.contextmanager
def _only_one(folder: Path, name: str) -> Iterator[None]:
    """Hold the recovery store, which two processes must not share; make it when it is not there."""
    with recovery.held(folder, name):
        _init_store(folder)
        yield


def _init_store(folder: Path) -> None:
    if not any(folder.glob(recovery.PARTS)):
        init_db_dir(str(folder), 1)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _engine_reports(log: Path) -> Iterator[None]:
    """Send the engine's own panic reports, which come before every exception, to a file beside the recovery store.

    They go to descriptor 2, and would hide the one sentence that tells what is wrong. Nothing is done unless Python's
    standard error is another descriptor.
    """
    if sys.stderr.fileno() == 2:
        yield
        return
    kept = os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
