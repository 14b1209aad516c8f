"""Read models built again beside the ones that serve, while people post and follow."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from api.context import public_url_of
from audit.pipeline import waiter
from audit.stores import Stores
from audit.visitors import admitted
from demo.graph import scale_free
from demo.load import tokens_by_number
from demo.people import Loaded, load_graph
from demo.plan import plan
from demo.poster import Outcome, Poster
from fanline import database
from readmodels import aggregates, generations
from readmodels.effects import Query, command
from readmodels.trend_uses import TAG
from rebuild import run
from rebuild.models import rebuildable
from rebuild.state import BUILD, COMPARE, KEPT, State, load
from tests.conftest import Stack

GRAPH = scale_free(60, 800, seed=5)
POSTS, RATE = 600, 40.0
MODELS = generations.MODELS


@pytest.fixture(scope="module")
def stores(system: Stack) -> Iterator[Stores]:
    opened = Stores(system.settings)
    opened.load_functions()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def crowd(system: Stack, stores: Stores) -> Loaded:
    for model in MODELS:
        system.fanline("rebuild", model, "--free")
    loaded = load_graph(stores.connection, GRAPH, "rebuilt")
    system.fanline("audit", "--prefix", "rebuilt")  # which reads, and thereby warms, their timelines
    now, kept = int(time.time()), aggregates.retention(2, 60, 730)
    for person in loaded.ids[:20]:
        stores.drive(aggregates.read(person, aggregates.MINUTE, now - 3_600, now, now, kept))
    return loaded


def test_every_model_is_rebuilt_switched_rolled_back_and_freed_under_load_and_stays_equal_to_sql(
    system: Stack, stores: Stores, crowd: Loaded
) -> None:
    url = public_url_of(system.settings)
    steps = plan(GRAPH, POSTS, RATE, seed=5)
    outcomes: list[Outcome] = []
    over = threading.Event()
    with (
        database.connect(system.settings, autocommit=True) as connection,
        admitted(connection, crowd.ids, "Rebuild", url) as tokens,
    ):
        poster = Poster(url, steps, tokens_by_number(steps, crowd.ids, tokens))

        def follow_and_unfollow() -> None:
            dice = random.Random(5)
            with database.connect(system.settings, autocommit=True) as own:
                while not over.wait(0.02):
                    pair = dice.sample(crowd.ids, 2)
                    if (
                        own.execute("DELETE FROM follows WHERE (follower_id, followee_id) = (%s, %s)", pair).rowcount
                        == 0
                    ):
                        own.execute("INSERT INTO follows VALUES (%s, %s)", pair)

        load_thread = threading.Thread(target=lambda: outcomes.append(asyncio.run(poster.run())))
        follows_thread = threading.Thread(target=follow_and_unfollow)
        load_thread.start()
        follows_thread.start()
        try:
            for model in MODELS:
                before = load(stores, model)
                said = system.fanline("rebuild", model).stdout
                assert "is kept for a rollback" in said, said
                assert load(stores, model).written == before.serving
            for model, rebuilt in rebuildable(system.settings).items():
                switched = load(stores, model)
                rolled_back = run.roll_back(stores, rebuilt)
                assert (rolled_back.serving, rolled_back.written) == (switched.written, switched.serving)
        finally:
            over.set()
            load_thread.join()
            follows_thread.join()
    [outcome] = outcomes
    assert outcome.failures == []
    system.fanline("audit", "--prefix", "rebuilt")
    # The generation that was kept is equal, too.
    for rebuilt in rebuildable(system.settings).values():
        run.roll_back(stores, rebuilt)
    system.fanline("audit", "--prefix", "rebuilt")
    asyncio.run(run.free(stores, rebuildable(system.settings).values(), waiter(system.settings, 120)))
    for model, rebuilt in rebuildable(system.settings).items():
        assert load(stores, model).written is None
        for prefix in rebuilt.prefixes:
            assert not list(stores.scan(generations.pattern(prefix, load(stores, model).serving - 1)))
    system.fanline("audit", "--prefix", "rebuilt")


def test_trends_and_search_are_built_again_in_one_go(system: Stack, stores: Stores, crowd: Loaded) -> None:
    tag = stores.rows(Query("SELECT username FROM users WHERE id = %(id)s", {"id": crowd.ids[0]}))[0]["username"]
    wrong = TAG.use_key(tag.encode(), 0)
    stores.redis([command(wrong, b"ZADD", 1, b"what no post has")])
    assert "counted again" in system.fanline("rebuild", "trends").stdout
    assert stores.redis([command(wrong, b"EXISTS")]) == [0]
    assert "which is searched now" in system.fanline("rebuild", "search").stdout
    system.fanline("audit", "--prefix", "rebuilt")


def test_an_interrupted_rebuild_goes_on_where_it_was(system: Stack, stores: Stores, crowd: Loaded) -> None:
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
    assert "is kept for a rollback" in system.fanline("rebuild", "cards", "--keep-hours", "0").stdout
    kept = load(stores, "cards")
    system.fanline("rebuild", "cards", "--rollback")
    assert load(stores, "cards").serving == kept.written
    assert "freed generation" in system.fanline("rebuild", "--free").stdout


def test_a_generation_that_differs_does_not_serve(system: Stack, stores: Stores, crowd: Loaded) -> None:
    system.fanline("rebuild", "cards", "--no-switch")
    built = load(stores, "cards")
    assert built.written is not None
    damaged = rebuildable(system.settings)["cards"].prefixes[0]
    with generations.using("cards", built.written):
        key = generations.key(damaged, "cards", str(crowd.ids[0]).encode())
    stores.redis([command(key, b"SET", b"\xff" * 8 + b"nonsense")])
    refused = system.fanline("rebuild", "cards", check=False)
    assert refused.returncode != 0
    assert "nothing is switched" in refused.stderr
    assert load(stores, "cards").serving == built.serving
    assert "freed generation" in system.fanline("rebuild", "cards", "--free").stdout


def test_what_cannot_be_done_is_one_plain_sentence(system: Stack, stores: Stores) -> None:
    for arguments in (["weather"], ["archive"], ["search", "--rollback"], ["cards", "--rollback"], []):
        done = system.fanline("rebuild", *arguments, check=False)
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1
    assert load(stores, "cards").step != KEPT
