import pytest

from demo.journey import STAGES, Journey, percentile, summarise


def journey(visible: float | None = 1.050) -> Journey:
    return Journey(7, 1.0, 1.005, 1.020, 1.022, 1.040, visible)


def test_a_journey_is_divided_into_its_stages() -> None:
    assert journey().stages() == pytest.approx(
        {"commit": 5.0, "debezium": 15.0, "kafka": 2.0, "dataflow": 18.0, "rest": 10.0}
    )
    assert journey().total_ms() == pytest.approx(50.0)


def test_a_journey_that_is_not_over_has_no_stages() -> None:
    assert journey(None).stages() is None
    assert journey(None).total_ms() is None


def test_a_stage_that_clocks_make_negative_is_zero() -> None:
    stages = Journey(7, 1.0, 0.999, 1.0, 1.0, 1.0, 1.0).stages()
    assert stages is not None
    assert stages["commit"] == 0.0


def test_a_summary_has_percentiles_of_the_whole_and_of_each_stage() -> None:
    summary = summarise([journey(1.040 + number / 1_000) for number in range(1, 101)] + [journey(None)])
    assert summary is not None
    assert summary.journeys == 100
    assert (summary.p50_ms, summary.p99_ms) == pytest.approx((90.0, 139.0))
    assert tuple(summary.stages) == STAGES
    assert summary.stages["rest"] == pytest.approx((50.0, 99.0))


def test_nothing_finished_has_no_summary() -> None:
    assert summarise([journey(None)]) is None


@pytest.mark.parametrize(("values", "percent", "expected"), [([1.0], 99, 1.0), ([3.0, 1.0, 2.0], 50, 2.0)])
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected
