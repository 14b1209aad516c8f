"""Read models built again beside the ones that serve, while people post and follow."""

import asyncio
import random
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from api.context import public_url_of
from audit.pipeline import waiter
from audit.run import choose
from audit.stores import Stores
from audit.visitors import admitted
from demo.graph import scale_free
from demo.load import tokens_by_number
from demo.people import Loaded, load_graph
from demo.plan import plan
from demo.poster import Poster
from fanline import database
from readmodels import generations
from readmodels.effects import Query, command
from readmodels.trend_uses import TAG
from rebuild import run
from rebuild.models import rebuildable
from rebuild.state import BUILD, COMPARE, KEPT, State, load
from tests.conftest import Stack
from tests.integration.api_world import Person, running_api
from tests.integration.contract.readmodel_load import read

GRAPH, CALM_GRAPH = scale_free(60, 800, seed=5), scale_free(12, 24, seed=5)
POSTS, RATE = 60, 20.0
MODELS = generations.MODELS
NAME = "rebuilt"
"""How the names of the people of these tests begin: only they are compared, whoever else earlier tests have left."""
CALM = "rebuilt_calm"
"""Some who post and follow now and then: of the others something is always under way when the command compares."""
COMPARED = re.compile(r"^(\w+): ([\d,]+) compared with the database, ([\d,]+) equal; ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Crowd:
    """The people of these tests."""

    busy: Loaded
    calm: Loaded

    @property
    def ids(self) -> list[UUID]:
        """Everybody."""
        return [*self.busy.ids, *self.calm.ids]


@pytest.fixture(scope="module")
def stores(system: Stack) -> Iterator[Stores]:
    opened = Stores(system.settings)
    opened.load_functions()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def crowd(system: Stack, stores: Stores) -> Crowd:
    """People who have read everything that is kept only for those who read, and a poll."""
    asyncio.run(run.free(stores, rebuildable(system.settings).values(), waiter(system.settings, 120)))
    made = Crowd(load_graph(stores.connection, GRAPH, NAME), load_graph(stores.connection, CALM_GRAPH, CALM))

    async def look(people: list[Person]) -> None:
        async with running_api(system.settings) as api:
            question = {"options": ["yes", "no"], "expires_in": 3600}
            poll = (await api.status(people[-1], "well?", poll=question))["poll"]
            for voter in people[:3]:
                (await api.post(f"/api/v1/polls/{poll['id']}/votes", voter, json={"choices": [0]})).ok()
            await read(api, people)

    with admitted(stores.connection, made.ids, "Rebuild", public_url_of(system.settings)) as tokens:
        names = zip(made.ids, [*made.busy.usernames, *made.calm.usernames], strict=True)
        asyncio.run(look([Person(str(each), name, tokens[each]) for each, name in names]))
    return made


@contextmanager
def under_load(system: Stack, crowd: Crowd) -> Iterator[None]:
    """People post, follow and stop to follow until the block ends."""
    over, url = threading.Event(), public_url_of(system.settings)

    async def post(tokens: Mapping[UUID, str]) -> None:
        seed = 5
        while not over.is_set():
            busy, calm = plan(GRAPH, POSTS, RATE, seed=seed), plan(CALM_GRAPH, 1, RATE, seed=seed)
            posters = (
                Poster(url, steps, tokens_by_number(steps, those.ids, tokens))
                for steps, those in ((busy, crowd.busy), (calm, crowd.calm))
            )
            for outcome in await asyncio.gather(*(poster.run() for poster in posters)):
                assert outcome.failures == []
            seed += 1

    def follow_and_unfollow() -> None:
        dice = random.Random(5)
        with database.connect(system.settings, autocommit=True) as own:
            while not over.wait(0.04):
                pair = dice.sample(crowd.busy.ids if dice.random() < 0.99 else crowd.calm.ids, 2)
                if own.execute("DELETE FROM follows WHERE (follower_id, followee_id) = (%s, %s)", pair).rowcount == 0:
                    own.execute("INSERT INTO follows VALUES (%s, %s)", pair)

    with (
        database.connect(system.settings, autocommit=True) as connection,
        admitted(connection, crowd.ids, "Rebuild", url) as tokens,
        ThreadPoolExecutor(2) as threads,
    ):
        loads = [threads.submit(lambda: asyncio.run(post(tokens))), threads.submit(follow_and_unfollow)]
        try:
            yield
            assert not any(each.done() for each in loads), "the load has ended before the rebuilds"
        finally:
            over.set()
            for each in loads:
                each.result()


def test_every_model_is_rebuilt_switched_rolled_back_and_freed_under_load_and_stays_equal_to_sql(
    system: Stack, stores: Stores, crowd: Crowd
) -> None:
    known = rebuildable(system.settings)
    with under_load(system, crowd):
        for model in MODELS:
            before = load(stores, model)
            said = system.fanline("rebuild", model, "--prefix", CALM).stdout
            assert "is kept for a rollback" in said, said
            compared = {name: (checked, equal) for name, checked, equal in COMPARED.findall(said)}
            assert compared.keys() == {check for part in known[model].parts for check in part.checks}
            for checked, equal in compared.values():
                assert checked == equal != "0", said
            assert load(stores, model).written == before.serving
        for model, rebuilt in known.items():
            switched = load(stores, model)
            rolled_back = run.roll_back(stores, rebuilt)
            assert (rolled_back.serving, rolled_back.written) == (switched.written, switched.serving)
    system.fanline("audit", "--prefix", NAME)
    # The generation that was kept is equal, too.
    for rebuilt in known.values():
        run.roll_back(stores, rebuilt)
    system.fanline("audit", "--prefix", NAME)
    asyncio.run(run.free(stores, known.values(), waiter(system.settings, 120)))
    for model, rebuilt in known.items():
        assert load(stores, model).written is None
        for prefix in rebuilt.prefixes:
            assert not list(stores.scan(generations.pattern(prefix, load(stores, model).serving - 1)))
    system.fanline("audit", "--prefix", NAME)


def test_trends_and_search_are_built_again_in_one_go(system: Stack, stores: Stores, crowd: Crowd) -> None:
    tag = stores.rows(Query("SELECT username FROM users WHERE id = %(id)s", {"id": crowd.ids[0]}))[0]["username"]
    wrong = TAG.use_key(tag.encode(), 0)
    stores.redis([command(wrong, b"ZADD", 1, b"what no post has")])
    assert "counted again" in system.fanline("rebuild", "trends").stdout
    assert stores.redis([command(wrong, b"EXISTS")]) == [0]
    assert "which is searched now" in system.fanline("rebuild", "search").stdout
    system.fanline("audit", "--prefix", NAME)


def test_an_interrupted_rebuild_goes_on_where_it_was(system: Stack, stores: Stores, crowd: Crowd) -> None:
    cards = replace(rebuildable(system.settings)["cards"])
    asyncio.run(run.begin(stores, cards, waiter(system.settings, 120)))

    class Interrupted(Exception):
        pass

    def interrupt(state: State) -> None:
        assert state.seconds_left is not None
        raise Interrupted

    with pytest.raises(Interrupted):
        run.build(stores, cards, interrupt)
    stopped = load(stores, "cards")
    assert stopped.step == BUILD
    assert 0 < stopped.done < stopped.total
    assert "is being built" in system.fanline("rebuild", "cards", "--status").stdout
    seen: list[int] = []
    assert run.build(stores, cards, lambda state: seen.append(state.done)).step == COMPARE
    assert seen[0] > stopped.done
    assert "is kept for a rollback" in system.fanline("rebuild", "cards", "--keep-hours", "0", "--prefix", NAME).stdout
    kept = load(stores, "cards")
    system.fanline("rebuild", "cards", "--rollback")
    assert load(stores, "cards").serving == kept.written
    assert "freed generation" in system.fanline("rebuild", "--free").stdout


def test_a_generation_that_differs_does_not_serve(system: Stack, stores: Stores, crowd: Crowd) -> None:
    system.fanline("rebuild", "cards", "--no-switch", "--prefix", NAME)
    built = load(stores, "cards")
    assert built.written is not None
    damaged = rebuildable(system.settings)["cards"].prefixes[0]
    with generations.using("cards", built.written):
        key = generations.key(damaged, "cards", str(crowd.ids[0]).encode())
    stores.redis([command(key, b"SET", b"\xff" * 8 + b"nonsense")])
    refused = system.fanline("rebuild", "cards", "--prefix", NAME, check=False)
    assert refused.returncode != 0
    assert "nothing is switched" in refused.stderr
    assert load(stores, "cards").serving == built.serving
    # Nor does one that has lost what nothing builds again.
    cards = rebuildable(system.settings)["cards"]
    for prefix in cards.prefixes:
        for keys in stores.scan(generations.pattern(prefix, built.written)):
            stores.redis([command(each, b"UNLINK") for each in keys])
    idle = replace(cards, parts=tuple(replace(part, build=lambda *_: None) for part in cards.parts))

    async def at_once() -> None:
        """Nobody writes."""

    compared = asyncio.run(run.compare(stores, idle, choose(stores, None, NAME), at_once))
    assert all(tally.checked == 0 for tally in compared.made.values())
    assert all(compared.lacking[name] == tally.checked > 0 for name, tally in compared.serving.items())
    assert not compared.is_equal
    assert "freed generation" in system.fanline("rebuild", "cards", "--free").stdout


def test_what_cannot_be_done_is_one_plain_sentence(system: Stack, stores: Stores) -> None:
    for arguments in (["weather"], ["archive"], ["search", "--rollback"], ["cards", "--rollback"], []):
        done = system.fanline("rebuild", *arguments, check=False)
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1
    assert load(stores, "cards").step != KEPT
