"""A client of Kafka Connect's REST API, with typed answers and errors."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests

from connectors import cockroach, plan
from fanline.errors import ConfigurationError, DependencyUnavailable, FanlineError

# Connect answers 409 while its workers rebalance, which an accepted change itself starts, and to some requests 500 with
# "a rebalance is expected": ask again.
POLL_SECONDS = 0.1
# A configuration is validated by connecting to the database, whose own time-out is 10 s in Debezium.
REQUEST_TIMEOUT = (3.05, 30.0)


class ConnectorRefused(ConfigurationError):
    """Connect does not accept a configuration; `faults` maps a field to what Connect says of it."""

    def __init__(self, name: str, faults: dict[str, list[str]]) -> None:
        self.faults = faults
        lines = [f"  {key}: {message}" for key, messages in faults.items() for message in messages]
        super().__init__("\n".join([f"Kafka Connect refuses the configuration of {name}:", *lines]))


class ConnectorFailed(FanlineError):
    """A connector or one of its tasks has failed; the message gives the root cause."""


@dataclass(frozen=True)
class Status:
    """A connector's state and its tasks' states, with the trace of each failure."""

    name: str
    state: str
    tasks: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether the connector and at least one task run, and none does not."""
        return self.state == "RUNNING" and bool(self.tasks) and set(self.tasks) == {"RUNNING"}

    @property
    def failed(self) -> bool:
        """Whether the connector or any task has failed."""
        return "FAILED" in (self.state, *self.tasks)

    @property
    def reason(self) -> str:
        """Why it failed, in one sentence; empty when nothing failed."""
        return plan.root_cause(self.traces[0]) if self.traces else ""


class ConnectClient:
    """A typed client of one Connect cluster; every method may raise `DependencyUnavailable`."""

    def __init__(self, url: str, timeout_seconds: float = 60.0) -> None:
        self.url = url
        self.timeout_seconds = timeout_seconds
        self._session = requests.Session()

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()

    def __enter__(self) -> "ConnectClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """Every connector of the cluster."""
        return sorted(self._call("GET", "/connectors").json())

    def config(self, name: str) -> plan.Config | None:
        """The configuration that a connector has, None when there is no such connector."""
        response = self._call("GET", f"/connectors/{quote(name)}/config", missing=True)
        return None if response.status_code == 404 else dict(response.json())

    def status(self, name: str) -> Status | None:
        """The state of a connector, None when there is no such connector (or not yet)."""
        response = self._call("GET", f"/connectors/{quote(name)}/status", missing=True)
        if response.status_code == 404:
            return None
        body = response.json()
        parts = [body["connector"], *body["tasks"]]
        return Status(
            name,
            body["connector"]["state"],
            tuple(task["state"] for task in body["tasks"]),
            tuple(part["trace"] for part in parts if part["state"] == "FAILED" and part.get("trace")),
        )

    def task_configs(self, name: str) -> list[plan.Config]:
        """The configuration of each task; it follows the connector's a little later."""
        response = self._call("GET", f"/connectors/{quote(name)}/tasks", missing=True)
        return [] if response.status_code == 404 else [dict(task["config"]) for task in response.json()]

    def validate(self, name: str, config: plan.Config) -> dict[str, list[str]]:
        """Connect's own verdict: the faults of each field, empty when it accepts the configuration."""
        if config["connector.class"] == cockroach.CONNECTOR_CLASS and (own := cockroach.faults(config)):
            return own
        # An unknown class would be answered with an internal server error.
        plugins = sorted(entry["class"] for entry in self._call("GET", "/connector-plugins").json())
        if config["connector.class"] not in plugins:
            known = ", ".join(plugins)
            return {"connector.class": [f"Kafka Connect has no {config['connector.class']}, it has: {known}."]}
        plugin = config["connector.class"].rsplit(".", 1)[-1]
        response = self._call(
            "PUT", f"/connector-plugins/{quote(plugin)}/config/validate", body={"name": name, **config}, refusable=True
        )
        if response.status_code >= 400:
            return {"connector.class": [_message(response)]}
        values = [entry["value"] for entry in response.json()["configs"]]
        return {value["name"]: value["errors"] for value in values if value["errors"]}

    def put(self, name: str, config: plan.Config) -> None:
        """Create or change a connector; raises `ConnectorRefused` naming the fields."""
        faults = self.validate(name, config)
        if faults:
            raise ConnectorRefused(name, faults)
        response = self._call("PUT", f"/connectors/{quote(name)}/config", body=config, refusable=True)
        if response.status_code >= 400:
            raise ConnectorRefused(name, {"connector": [_message(response)]})

    def restart(self, name: str, *, only_failed: bool = False) -> None:
        """Restart a connector and its tasks."""
        query = f"includeTasks=true&onlyFailed={str(only_failed).lower()}"
        self._existing("POST", name, f"/restart?{query}")

    def pause(self, name: str) -> None:
        """Pause a connector; its slot keeps the log."""
        self._existing("PUT", name, "/pause")

    def resume(self, name: str) -> None:
        """Resume a paused connector."""
        self._existing("PUT", name, "/resume")

    def offsets(self, name: str) -> list[dict[str, Any]]:
        """The positions that a connector has committed; they outlive it."""
        response = self._call("GET", f"/connectors/{quote(name)}/offsets", missing=True)
        return [] if response.status_code == 404 else list(response.json()["offsets"])

    def forget_place(self, name: str) -> None:
        """Stop a connector and make it forget where it was; it stays stopped."""
        self._existing("PUT", name, "/stop")
        self.wait(name, lambda status: status.state == "STOPPED" and not status.tasks, ignore_failure=True)
        self._existing("DELETE", name, "/offsets")

    def reset(self, name: str) -> None:
        """Make a connector forget where it was: it starts as a new one does, with its snapshot."""
        self.forget_place(name)
        self._existing("PUT", name, "/resume")

    def forget(self, name: str) -> None:
        """Remove a connector with its position: one of the same name starts anew with its snapshot."""
        self.forget_place(name)
        self._existing("DELETE", name, "")

    def delete(self, name: str) -> None:
        """Remove a connector; its slot stays in the database and keeps the log until it is dropped."""
        self._existing("DELETE", name, "")

    def wait(self, name: str, done: Callable[[Status], bool], *, ignore_failure: bool = False) -> Status:
        """Wait until `done`; raises `ConnectorFailed` on failure and `DependencyUnavailable` when time is up."""
        deadline = time.monotonic() + self.timeout_seconds
        status = None
        while time.monotonic() < deadline:
            status = self.status(name)
            if status and status.failed and not ignore_failure:
                raise ConnectorFailed(f"Connector {name} failed: {status.reason}")
            if status and done(status):
                return status
            time.sleep(POLL_SECONDS)
        state = f"{status.state}, tasks: {', '.join(status.tasks) or 'none'}" if status else "unknown to Kafka Connect"
        raise DependencyUnavailable(f"Connector {name} is not running after {self.timeout_seconds:g} s ({state}).")

    def _existing(self, method: str, name: str, path: str) -> None:
        if self._call(method, f"/connectors/{quote(name)}{path}", missing=True).status_code == 404:
            raise ConfigurationError(f"Kafka Connect has no connector {name}: see fanline connectors status.")

    def _call(
        self, method: str, path: str, *, body: Any = None, missing: bool = False, refusable: bool = False
    ) -> requests.Response:
        deadline = time.monotonic() + self.timeout_seconds
        while True:
            try:
                response = self._session.request(method, self.url + path, json=body, timeout=REQUEST_TIMEOUT)
            except requests.RequestException as error:
                raise DependencyUnavailable(f"Kafka Connect does not answer at {self.url}.") from error
            if not _is_rebalancing(response) or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        accepted = response.ok or (missing and response.status_code == 404)
        if accepted or (refusable and 400 <= response.status_code < 500 and response.status_code != 409):
            return response
        raise DependencyUnavailable(
            f"Kafka Connect answers {response.status_code} to {method} {path}: {_message(response)}"
        )


def _is_rebalancing(response: requests.Response) -> bool:
    return response.status_code == 409 or (response.status_code == 500 and "rebalance" in _message(response))


def _message(response: requests.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason
