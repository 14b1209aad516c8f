from collections import Counter

import pytest

from demo.graph import scale_free
from demo.plan import BESIDES, Kind, Mix, Step, plan
from fanline.errors import ConfigurationError

GRAPH = scale_free(50, 500)


def steps(posts: int = 2_000, **options: object) -> list[Step]:
    return plan(GRAPH, posts, 50, **options)  # type: ignore[arg-type]


def test_a_plan_has_as_many_writes_as_asked_for_and_deletes_on_top() -> None:
    kinds = Counter(step.kind for step in steps())
    assert sum(number for kind, number in kinds.items() if kind not in BESIDES) == 2_000
    assert all(kinds[kind] > 10 for kind in Kind)


def test_writes_are_evenly_spaced() -> None:
    times = [step.at for step in steps(100) if step.kind not in BESIDES]
    assert times == pytest.approx([number / 50 for number in range(100)])


def test_answers_are_to_settled_posts_of_people_whom_the_writer_follows() -> None:
    planned = steps()
    answers = [step for step in planned if step.kind not in (Kind.POST, Kind.DELETE)]
    for step in answers:
        assert step.target is not None
        target = planned[step.target]
        assert target.kind in (Kind.POST, Kind.REPLY)
        assert target.person in GRAPH.following(step.person)
        assert target.at + 1 <= step.at


def test_nobody_deletes_twice_or_somebody_elses_and_nobody_answers_what_is_deleted() -> None:
    planned = steps()
    deleted: set[int] = set()
    for step in planned:
        if step.target is not None:
            assert step.target not in deleted
        if step.kind is Kind.DELETE:
            assert step.target is not None
            assert planned[step.target].person == step.person
            deleted.add(step.target)


def test_nobody_reposts_the_same_post_twice() -> None:
    reposts = [(step.person, step.target) for step in steps(mix=Mix(reposts=0.9)) if step.kind is Kind.REPOST]
    assert len(reposts) == len(set(reposts)) > 100


def test_nobody_favourites_the_same_post_twice() -> None:
    liked = [(step.person, step.target) for step in steps(mix=Mix(favourites=0.9)) if step.kind is Kind.FAVOURITE]
    assert len(liked) == len(set(liked)) > 100


def test_only_the_chosen_people_write() -> None:
    assert {step.person for step in steps(200, writers=[3, 4])} == {3, 4}


def test_the_same_seed_gives_the_same_plan() -> None:
    assert steps(seed=1) == steps(seed=1)
    assert steps(seed=1) != steps(seed=2)


@pytest.mark.parametrize(("posts", "rate"), [(-1, 1.0), (1, 0.0), (1, -2.0)])
def test_an_impossible_plan_is_refused(posts: int, rate: float) -> None:
    with pytest.raises(ConfigurationError):
        plan(GRAPH, posts, rate)
