"""The contract of every read model: each equals its oracle whatever happens to the log, the flows and the stores.

A story in stages that build on each other: a load is read; it is sent three times; more is read by flows that are
killed again and again, and by one, two and three instances of them; the whole log is read again, twice; Redis and the
search indexes are lost; an account and posts are deleted. What flows keep is compared by content
(readmodel_content.py), and with the database by `fanline audit`. A flow is tested by standing in `FLOWS`, a read model
by standing in `audit.models`.
"""

import asyncio
import json
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from audit.models import models
from connectors.flows import EVENTS, FLOWS
from fanline import database
from fanline.resp import pack
from fanline.settings import get_settings
from readmodels import search
from readmodels.effects import Command
from sinks.opensearch_client import OpenSearchClient
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.channel_world import PushService, push_service
from tests.integration.contract import readmodel_content as contents
from tests.integration.contract import readmodel_flows as flows
from tests.integration.contract import readmodel_load as loads
from tests.integration.contract.readmodel_content import Cast, Content
from tests.integration.contract.readmodel_flows import Died
from tests.integration.contract.readmodel_load import Crowd

MODELS = ("timelines", *(model.name for model in models(get_settings())))
SEED = 20261122
CRASHES = 3
SCALES = (1, 2, 3, 1)

Contents = dict[str, Content]
Report = dict[str, Any]


@dataclass
class Story:
    """The stack with its dataflows stopped, and what these tests know of it."""

    stack: Stack
    crowd: Crowd
    cast: Cast
    service: PushService
    folder: Path

    def content(self) -> Contents:
        """What every flow keeps, once all is read and sent."""
        flows.until_read(self.stack)
        flows.until_sent(self.stack)
        return contents.content(self.stack.settings, self.cast)

    def audit(self) -> Report:
        """What the audit finds of everybody."""
        done = self.stack.fanline("audit", "--json", "--prefix", f"{loads.NAME}_", check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        report: Report = json.loads(done.stdout)
        return report

    def pushed(self) -> dict[str, list[str]]:
        """What each browser was sent."""
        return {name: sorted(browser.ids()) for name, browser in self.service.browsers.items()}


@dataclass
class Stage:
    """What one stage of the story has come to."""

    content: Contents
    pushed: dict[str, list[str]]


@pytest.fixture(scope="module")
def story(system: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with push_service() as service:
        crowd = loads.gather(system, service)
        system.fanline("dataflows", "stop")
        try:
            yield Story(system, crowd, Cast(set(crowd.ids)), service, tmp_path_factory.mktemp("contract"))
        finally:
            system.fanline("dataflows", "stop")
            system.fanline("dataflows", "start")


@pytest.fixture(scope="module")
def loaded(story: Story) -> tuple[Report, Stage, int]:
    """The load was written while flows ran, and then sent twice more: the audit, the content before, and how many."""
    stack = story.stack
    start = flows.places(stack)
    with flows.running(stack, story.folder / "loaded"):
        story.cast.posts |= loads.load(stack, story.crowd)
        flows.until_read(stack)
        loads.look(stack, story.crowd)
        report = story.audit()
        with contents.opened(stack.settings) as stores:
            story.cast.take_in(stores)
        stage = Stage(story.content(), story.pushed())
        sent = flows.send_again(stack, start, flows.places(stack), times=2)
        flows.until_read(stack)
    return report, stage, sent


@pytest.fixture(scope="module")
def before(loaded: tuple[Report, Stage, int]) -> Stage:
    """What flows kept when the load was read once."""
    return loaded[1]


@pytest.fixture(scope="module")
def tripled(story: Story, loaded: tuple[Report, Stage, int]) -> Stage:
    """The load was sent three times."""
    return Stage(story.content(), story.pushed())


@pytest.fixture(scope="module")
def crashed(story: Story, tripled: Stage) -> tuple[list[Died], Report]:
    """More was written while no flow ran, and then read by flows that were killed in between."""
    stack, dice = story.stack, random.Random(SEED)
    story.cast.posts |= loads.load_more(stack, story.crowd)
    died: list[Died] = []
    for number in range(CRASHES):
        died += flows.crash(stack, story.folder / f"crash-{number}", flows.deaths(dice))
    for each in died:
        print(f"{each.flow}: killed {each.death}, {each.unread} records not applied")  # noqa: T201
    with flows.running(stack, story.folder / "after"):
        flows.until_read(stack)
        return died, story.audit()


@pytest.fixture(scope="module")
def rescaled(story: Story, crashed: Any) -> tuple[list[dict[str, set[str]]], Report, Stage]:
    """Flows ran in one, two, three and one instance while people wrote."""
    stack, committed = story.stack, []
    with loads.under_load(stack, story.crowd):
        for number, instances in enumerate(SCALES):
            flows.forget_shares(stack)
            with flows.running(stack, story.folder / f"scale-{number}", instances):
                flows.until_passed(stack)
                committed.append(flows.instances_of(stack))
    with flows.running(stack, story.folder / "scaled"):
        flows.until_read(stack)
        report = story.audit()
        with contents.opened(stack.settings) as stores:
            story.cast.take_in(stores)
        return committed, report, Stage(story.content(), story.pushed())


@pytest.fixture(scope="module")
def replayed(story: Story, rescaled: Any) -> list[tuple[dict[str, int], Stage]]:
    """The whole log was read again, twice: how many records each flow had to read, and what came of it."""
    stages = []
    for time in ("first", "second"):
        again = flows.go_back(story.stack)
        with flows.running(story.stack, story.folder / time):
            stages.append((again, Stage(story.content(), story.pushed())))
    return stages


@pytest.fixture(scope="module")
def wiped(story: Story, replayed: Any) -> Report:
    """The stack's own flows have lost everything in Redis and OpenSearch while people wrote."""
    stack = story.stack
    quick = {"FANLINE_ARCHIVE_FILE_SECONDS": "1"}
    replace(stack, environment=stack.environment | quick).fanline("dataflows", "start")
    prefix = stack.settings.search_prefix
    client = OpenSearchClient(stack.settings)
    try:
        with loads.under_load(stack, story.crowd), contents.opened(stack.settings) as stores:
            stores.redis([Command(b"", pack(b"FLUSHALL"))])
            for kind in search.KINDS:
                for index in client.behind([kind.read_alias(prefix)])[kind.read_alias(prefix)]:
                    client.delete(index)
            loads.look(stack, story.crowd)
    finally:
        client.close()
    flows.until_read(stack)
    # The first reader of what is missing has it from the database, and puts it where the second one finds it.
    loads.look(stack, story.crowd)
    loads.look(stack, story.crowd)
    return story.audit()


@pytest.fixture(scope="module")
def deleted(story: Story, wiped: Report) -> tuple[UUID, set[int], Contents]:
    """Somebody's account is deleted, and all posts of somebody else: who, which posts of both, and what is left."""
    stack = story.stack
    gone, silent = story.crowd.loaded.ids[3], story.crowd.loaded.ids[4]
    loads.look(stack, story.crowd)
    with database.connect(stack.settings, autocommit=True) as connection:
        with contents.opened(stack.settings) as stores:
            story.cast.take_in(stores)
        rows = connection.execute("SELECT author_id, id FROM posts WHERE author_id = ANY(%s)", [[gone, silent]])
        written: dict[UUID, set[int]] = {gone: set(), silent: set()}
        for author, post in rows.fetchall():
            written[author].add(post)
        with loads.signed_in(stack, story.crowd) as people:
            asyncio.run(delete_all(stack, people[4], written[silent]))
        connection.execute("DELETE FROM users WHERE id = %s", [gone])
    return gone, written[gone] | written[silent], story.content()


async def delete_all(stack: Stack, person: Person, posts: set[int]) -> None:
    async with running_api(stack.settings) as api:
        for answer in await asyncio.gather(
            *(api.request("DELETE", f"/api/v1/statuses/{post}", person) for post in posts)
        ):
            answer.ok()


def differing(tally: dict[str, Any]) -> dict[str, Any]:
    """A tally that is not as it should be."""
    return tally if not tally["checked"] or tally["equal"] != tally["checked"] else {}


@pytest.mark.parametrize("model", MODELS)
def test_equals_its_oracle(loaded: tuple[Report, Stage, int], model: str) -> None:
    assert differing(loaded[0][model]) == {}


@pytest.mark.parametrize("flow", FLOWS)
def test_keeps_something_of_the_load(before: Stage, flow: str) -> None:
    assert before.content[flow]


def test_what_is_kept_is_all_known(story: Story, before: Stage) -> None:
    assert contents.unknown_prefixes(story.stack.settings) == set()


@pytest.mark.parametrize("flow", FLOWS)
def test_three_times_each_record_make_no_difference(
    loaded: tuple[Report, Stage, int], tripled: Stage, flow: str
) -> None:
    assert loaded[2] > 1_000
    assert contents.changed(loaded[1].content[flow], tripled.content[flow]) == {}


@pytest.mark.parametrize("model", MODELS)
def test_equals_its_oracle_after_its_flow_was_killed_at_any_snapshot(
    crashed: tuple[list[Died], Report], model: str
) -> None:
    assert differing(crashed[1][model]) == {}


def test_every_flow_was_killed_and_most_before_they_were_through(crashed: tuple[list[Died], Report]) -> None:
    died = crashed[0]
    assert [(each.flow, each.code, each.said) for each in died if each.code != -signal.SIGKILL] == []
    assert len({each.flow for each in died if each.unread}) >= len(FLOWS) / 2


@pytest.mark.parametrize("model", MODELS)
def test_equals_its_oracle_after_one_two_three_and_one_instance_under_load(rescaled: Any, model: str) -> None:
    assert differing(rescaled[1][model]) == {}


@pytest.mark.parametrize("flow", FLOWS)
def test_all_instances_of_a_flow_have_taken_part(rescaled: Any, flow: str) -> None:
    for instances, committed in zip(SCALES, rescaled[0], strict=True):
        assert {f"{instance}/{instances}" for instance in range(instances)} <= committed[flow]


@pytest.mark.parametrize("flow", FLOWS)
def test_reading_the_whole_log_again_twice_makes_no_difference(rescaled: Any, replayed: Any, flow: str) -> None:
    """It would if a crash or another number of instances had lost something that the oracle cannot know of."""
    before: Stage = rescaled[2]
    for again, stage in replayed:
        assert again[flow] > 0
        assert contents.changed(before.content[flow], stage.content[flow]) == {}
        assert contents.digest(before.content[flow]) == contents.digest(stage.content[flow])


def test_nobody_is_pushed_anything_twice(before: Stage, tripled: Stage, rescaled: Any, replayed: Any) -> None:
    assert any(before.pushed.values())
    assert tripled.pushed == before.pushed
    assert all(len(ids) == len(set(ids)) for ids in rescaled[2].pushed.values())
    assert [stage.pushed for _, stage in replayed] == [rescaled[2].pushed] * len(replayed)


def test_the_archive_has_each_record_once(story: Story, replayed: Any) -> None:
    written = flows.records_of(story.stack, EVENTS)
    records = contents.archived(story.stack.settings, every_record=True)
    assert len(written) > len(contents.archived(story.stack.settings)) > 0
    assert records.keys() == written
    assert {key for key, rows in records.items() if len(rows) != 1} == set()


@pytest.mark.parametrize("model", MODELS)
def test_equals_its_oracle_after_redis_and_the_indexes_were_lost_under_load(wiped: Report, model: str) -> None:
    assert differing(wiped[model]) == {}


@pytest.mark.parametrize("flow", [flow for flow in FLOWS if flow != "archive"])
def test_of_a_deleted_account_and_deleted_posts_no_trace_is_left(story: Story, deleted: Any, flow: str) -> None:
    gone, posts, left = deleted
    known = contents.left_by_design(story.stack.settings, gone, posts)
    assert {key: each for key, each in contents.traces(left[flow], [gone], posts).items() if key not in known} == {}


def test_of_a_deleted_account_and_deleted_posts_nothing_can_be_read(story: Story, deleted: Any) -> None:
    gone, posts, _ = deleted

    async def read(api: Api) -> None:
        (await api.get(f"/api/v1/accounts/{gone}")).fails(404)
        for post in posts:
            (await api.get(f"/api/v1/statuses/{post}")).fails(404)

    async def run() -> None:
        async with running_api(story.stack.settings) as api:
            await read(api)

    asyncio.run(run())
    assert {name: tally for name, tally in story.audit().items() if tally["equal"] != tally["checked"]} == {}


def test_the_archive_forgets_an_account_when_it_is_told_to(story: Story, deleted: Any) -> None:
    gone, _, left = deleted
    kept = contents.traces(left["archive"], [gone], set())
    assert kept
    story.stack.fanline("archive", "erase", str(gone))
    erased = contents.archived(story.stack.settings)
    assert contents.traces(erased, [gone], set()) == {}
    assert erased == {key: rows for key, rows in left["archive"].items() if key not in kept}
