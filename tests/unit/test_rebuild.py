"""What a rebuild says of itself."""

from time import time

import pytest

from fanline.errors import ConfigurationError
from fanline.settings import Settings
from readmodels import generations
from rebuild.models import rebuildable
from rebuild.state import BUILD, COMPARE, KEPT, State, require_step


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
