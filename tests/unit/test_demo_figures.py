from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from audit.compare import Difference, Tally
from demo.figures import Figures, add
from demo.graph import Graph
from demo.journey import Journey, summarise
from demo.load import source, summary_line
from demo.panel import Panel
from demo.plan import Kind, Step
from demo.poster import Acknowledged, Outcome
from demo.posting import since
from demo.run import Result, journey_lines, last_line
from fanline.cli_audit import as_dictionary, as_table
from fanline.errors import ConfigurationError

PAGE = """
# TYPE fanline_deliveries counter
fanline_deliveries_total 40.0
# TYPE fanline_dead_letters counter
fanline_dead_letters_total{flow="cards",reason="MalformedAvro"} 1.0
# TYPE fanline_lag_seconds gauge
fanline_lag_seconds{flow="timelines",stage="applied",topic="cdc.posts",partition="0"} 0.5
fanline_lag_seconds{flow="timelines",stage="applied",topic="cdc.posts",partition="1"} 1.5
# TYPE fanline_home_reads counter
fanline_home_reads_total{source="sql",reason="cold"} 3.0
fanline_home_reads_total{source="sql",reason="building"} 2.0
fanline_home_reads_total{source="redis",reason="warm"} 9.0
# TYPE fanline_sink_seconds histogram
fanline_sink_seconds_bucket{flow="timelines",sink="redis",le="0.001"} 2.0
fanline_sink_seconds_bucket{flow="timelines",sink="redis",le="0.002"} 4.0
fanline_sink_seconds_bucket{flow="timelines",sink="redis",le="+Inf"} 4.0
fanline_sink_seconds_bucket{flow="cards",sink="batch",le="+Inf"} 90.0
"""


def figures() -> Figures:
    read = Figures()
    add(read, text_string_to_metric_families(PAGE))
    return read


def way() -> list[Journey]:
    return [Journey(1, 1.0, 1.005, 1.02, 1.022, 1.04, 1.05), Journey(2, 1.0)]


def outcome(*failures: str) -> Outcome:
    done = Acknowledged(Step(0.0, Kind.POST, 0), 7, 1.0, 1.01)
    return Outcome(acknowledged=[done], failures=list(failures), seconds=2.0)


def test_metrics_of_processes_are_added_up_and_the_worst_lag_is_kept() -> None:
    read = figures()
    add(read, text_string_to_metric_families(PAGE))
    assert read.deliveries == 80
    assert read.dead_letters == 2
    assert read.lags == {("timelines", "applied"): 1.5}
    assert read.home_reads == {"sql": 10, "redis": 18}
    assert read.redis_ms(50) == pytest.approx(1.0)
    assert read.redis_ms(75) == pytest.approx(1.5)


def test_what_was_counted_between_two_readings_is_their_difference() -> None:
    before, after = figures(), figures()
    add(after, text_string_to_metric_families(PAGE))
    between = since(after, before)
    assert (between.deliveries, between.home_reads) == (40, {"sql": 5, "redis": 9})


def test_a_panel_without_a_terminal_prints_plain_lines_with_rates_and_stages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("demo.panel.time.monotonic", lambda: now)
    with Panel(Console(force_terminal=False), 1_000) as panel:
        panel.update(0, Figures(), [])
        now = 102.0
        panel.update(100, figures(), way())
    assert capsys.readouterr().out.strip() == (
        "2.0 s | 100 of 1,000 posts | 50 posts/s | 20 deliveries/s | lag timelines 1.50 s"
        " | a post's way in ms: commit 5 + debezium 15 + kafka 2 + dataflow 18 + rest 10 = 50"
    )


def test_a_panel_on_a_terminal_shows_every_lag(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=120)
    with Panel(console, 1_000) as panel:
        console.print(panel._table(100, figures(), way()))
    shown = capsys.readouterr().out
    for text in ("100 of 1,000", "timelines, applied", "1.50 s", "debezium 15", "dead letters"):
        assert text in shown


def test_the_last_line_of_the_demo_has_the_fixed_form() -> None:
    timelines = Tally()
    timelines.add("ada", Difference())
    result = Result(outcome(), 1_234, summarise(way()), {"timelines": timelines})
    assert last_line(result) == (
        "ok: 1 posts, 1,234 deliveries, 1 timelines equal to SQL, POST to feed p50 50 ms p99 50 ms"
    )
    assert journey_lines(summarise(way()), Figures()) == [
        "a post's way, p50/p99 ms of 1 posts: commit 5/5, debezium 15/15, kafka 2/2, dataflow 18/18, rest 10/10"
    ]
    assert "dataflow 18/18 (of which Redis 1.0/2.0), rest 10/10" in journey_lines(summarise(way()), figures())[0]
    assert journey_lines(None, Figures()) == []


def test_a_load_is_summed_up_in_one_line() -> None:
    assert summary_line(outcome()) == (
        "1 posts, 0 favourites and bookmarks and 0 deletes in 2.0 s, 0 posts/s, POST p50 10 ms p99 10 ms"
    )
    assert summary_line(outcome("x")).endswith(", 1 failed")


def test_a_load_takes_its_people_from_a_file_or_grows_them(tmp_path: Path) -> None:
    path = tmp_path / "My Graph.txt.gz"
    path.write_bytes(b"a b\n")
    from_file = source(path, None, None, 0, None)
    assert from_file.name == "my_graph"
    assert from_file.graph == Graph(["a", "b"], [(0, 1)])
    grown = source(None, 10, None, 0, None)
    assert (grown.name, len(grown.graph.follows)) == ("demo10", 90)
    assert len(source(None, None, None, 0, "x").graph.follows) == 20_000
    with pytest.raises(ConfigurationError, match="a file has its own people"):
        source(path, 10, None, 0, None)


def test_an_audit_is_printed_as_json_and_as_a_table_with_examples() -> None:
    tally = Tally()
    tally.add("ada", Difference(missing=2))
    tally.add("bob", Difference())
    assert as_dictionary({"timelines": tally}) == {
        "timelines": {
            "checked": 2,
            "equal": 1,
            "missing": 2,
            "extra": 0,
            "duplicate": 0,
            "out_of_order": 0,
            "examples": ["ada: 2 missing"],
        }
    }
    heading, row, example = as_table({"timelines": tally}).splitlines()
    assert heading.split() == ["checked", "equal", "missing", "extra", "duplicate", "out", "of", "order"]
    assert row.split() == ["timelines", "2", "1", "2", "0", "0", "0"]
    assert example == "  ada: 2 missing"
