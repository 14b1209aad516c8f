"""What a rebuild says of itself, what it covers, and when it may switch."""

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import cast

import pytest

import readmodels
from audit.compare import Difference
from audit.models import Model, Subjects, models
from audit.stores import Stores
from fanline.errors import ConfigurationError
from fanline.settings import Settings
from readmodels import documents, generations, incremental
from rebuild import otherwise, run
from rebuild.models import Made, Part, Rebuildable, rebuildable
from rebuild.run import Compared
from rebuild.state import BUILD, COMPARE, KEPT, State, require_step

READ_MODELS = [
    importlib.import_module(f"readmodels.{module.name}") for module in pkgutil.iter_modules(readmodels.__path__)
]


def test_a_model_without_a_rebuild_says_what_serves() -> None:
    assert State("cards", serving=3).sentence() == "cards: generation 3 serves."


def test_progress_is_told_with_an_estimate_at_the_rate_so_far() -> None:
    state = State("cards", written=1, step=BUILD, done=250, total=1_000, seconds=10.0)
    assert state.seconds_left == 30.0
    assert state.sentence().endswith("1 is being built: 250 of 1,000, about 30 s left.")
    assert State("cards", written=1, step=BUILD, total=10).sentence().endswith("1 is being built: 0 of 10.")


def test_a_kept_generation_tells_how_long_it_stays() -> None:
    state = State("cards", serving=1, written=0, step=KEPT, free_after=time() + 7_200)
    assert state.sentence() == "cards: generation 1 serves, 0 is kept for a rollback, 2.0 h more."


def test_a_step_out_of_turn_is_refused_in_words() -> None:
    assert require_step(State("cards", written=1, step=COMPARE), COMPARE, "switch to") == 1
    with pytest.raises(ConfigurationError, match=r"nothing to roll back. cards: generation 0 serves."):
        require_step(State("cards"), KEPT, "roll back")


def test_every_model_that_has_generations_can_be_rebuilt() -> None:
    assert tuple(rebuildable(Settings())) == generations.MODELS


def kinds() -> Iterator[tuple[str, bytes]]:
    """The model and prefix of every kind of document and value."""
    for module in READ_MODELS:
        for value in vars(module).values():
            if isinstance(value, documents.Kind):
                yield value.model, value.prefix
            elif isinstance(value, incremental.Kind):
                yield incremental.MODEL, value.prefix


def other_keys() -> Iterator[tuple[str, bytes]]:
    """The model and prefix of every key that is made with a prefix of its own."""
    for module in READ_MODELS:
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("generations"), attr="key"),
                    args=[ast.Constant(bytes() as prefix), ast.Name("MODEL"), *_],
                ):
                    yield module.MODEL, prefix


def test_every_kind_and_prefix_of_a_model_is_built_and_freed_with_it() -> None:
    found = {*kinds(), *other_keys()}
    assert {("cards", b"p"), ("followers", b"celebrities"), ("engagement", b"n")} <= found
    covered = {(model.name, prefix) for model in rebuildable(Settings()).values() for prefix in model.prefixes}
    assert covered == found


def test_everything_that_the_audit_compares_of_kinds_is_compared_before_a_switch() -> None:
    compared = {check for model in rebuildable(Settings()).values() for part in model.parts for check in part.checks}
    others = {"notifications", "search_users", "search_posts", "trend_tags", "trend_posts"}
    assert compared == {model.name for model in models(Settings())} - others


Held = dict[int, set[int]]
"""The posts that each generation has."""


async def compare(
    monkeypatch: pytest.MonkeyPatch, held: Held, build: Callable[[Made, Sequence[int]], None], wrong: int | None = None
) -> Compared:
    """Generation 1 of cards is compared beside generation 0; `wrong` is a post that does not equal the database."""

    def check(_: Stores, subjects: Sequence[int]) -> Mapping[int, Difference | None]:
        there = held[generations.current("cards")]
        return {each: Difference(missing=int(each == wrong)) if each in there else None for each in subjects}

    async def wait() -> None: ...

    status_cards = Model("status_cards", lambda _, subjects: subjects.posts, check, lambda *_: None, "cards")
    part = Part("posts", lambda _, made, ids: build(made, ids), ("status_cards",))
    monkeypatch.setattr(run, "models", lambda _: (status_cards,))
    monkeypatch.setattr(run, "load", lambda *_: State("cards", serving=0, written=1, step=COMPARE))
    stores = cast(Stores, SimpleNamespace(settings=None))
    return await run.compare(stores, Rebuildable("cards", (b"s",), (part,)), Subjects([], [1, 2, 3]), wait)


async def test_a_generation_that_is_empty_does_not_equal_the_one_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = await compare(monkeypatch, {0: {1, 2}, 1: set()}, lambda made, ids: None)
    assert compared.made["status_cards"].checked == 0
    assert compared.lacking == {"status_cards": 2}
    assert not compared.is_equal


async def test_what_readers_have_filled_since_the_walk_is_built_before_the_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: Held = {0: {1, 2}, 1: {1}}
    compared = await compare(monkeypatch, held, lambda made, ids: held[made.number].update(ids))
    assert held[1] == {1, 2}
    assert (compared.made["status_cards"].checked, compared.lacking) == (2, {"status_cards": 0})
    assert compared.is_equal


async def test_what_expires_meanwhile_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    held: Held = {0: {1, 2}, 1: {1}}
    compared = await compare(monkeypatch, held, lambda made, ids: held[made.serving].difference_update(ids))
    assert compared.lacking == {"status_cards": 0}
    assert compared.is_equal


async def test_a_generation_that_differs_from_the_database_is_not_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = await compare(monkeypatch, {0: {1, 2}, 1: {1, 2}}, lambda made, ids: None, wrong=2)
    assert not compared.is_equal


def test_a_generation_is_due_when_it_was_kept_long_enough() -> None:
    kept = State("cards", serving=1, written=0, step=KEPT, free_after=100.0)
    assert [kept.is_due(99.0), kept.is_due(100.0)] == [False, True]
    assert not State("cards", written=1, step=BUILD, free_after=100.0).is_due(101.0)


def test_who_wants_the_archive_built_again_is_told_the_way_back() -> None:
    assert "fanline offsets reset archive --to TIME" in str(otherwise.refuse("archive", []))
