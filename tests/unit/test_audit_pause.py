"""How long the audit that always runs leaves the database alone."""

import pytest

from audit.always import pause
from fanline.settings import Settings


@pytest.mark.parametrize(("worked", "seconds"), [(0.1, 10.0), (2.0, 38.0), (60.0, 150.0)])
def test_a_round_takes_a_twentieth_of_the_time_unless_its_window_would_be_empty(worked: float, seconds: float) -> None:
    assert pause(worked, Settings(audit_seconds=10.0, audit_window_seconds=300.0)) == seconds
