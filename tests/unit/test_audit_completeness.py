"""The metric that says how right each read model is."""

from prometheus_client import REGISTRY

from audit.completeness import Completeness
from audit.models import always_models
from connectors.flows import FLOWS
from fanline.settings import Settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def share(model: str) -> float | None:
    return REGISTRY.get_sample_value("fanline_completeness_ratio", {"model": model})


def test_it_is_the_share_of_the_window() -> None:
    clock = Clock()
    completeness = Completeness(60.0, clock)
    completeness.add("some", [True, True, True, False])
    assert share("some") == 0.75
    clock.now += 40
    completeness.add("some", [True] * 4)
    assert share("some") == 0.875
    clock.now += 40
    completeness.add("some", ())
    assert share("some") == 1.0


def test_where_nothing_was_compared_within_the_window_there_is_no_value() -> None:
    clock = Clock()
    completeness = Completeness(60.0, clock)
    completeness.add("gone", [True])
    completeness.add("never", ())
    clock.now += 61
    completeness.add("gone", ())
    assert share("gone") is share("never") is None


def test_values_expire_while_the_audit_waits_for_a_server() -> None:
    clock = Clock()
    completeness = Completeness(60.0, clock)
    completeness.add("one", [True])
    clock.now += 30
    completeness.add("other", [False])
    clock.now += 31
    completeness.expire()
    assert (share("one"), share("other")) == (None, 0.0)


def test_every_read_model_names_the_flow_that_writes_it() -> None:
    flows = {model.name: model.flow for model in always_models(Settings())}
    assert set(flows.values()) <= set(FLOWS), flows
    assert (flows["inboxes"], flows["notifications"]) == ("dispatcher", "notifications")
