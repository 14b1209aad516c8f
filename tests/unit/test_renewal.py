"""What is said of connectors before they begin anew with another database."""

from connectors.renewal import Renewal

OLD = {"database.hostname": "old", "database.port": "5432", "database.dbname": "a", "slot.name": "fanline_outbox"}
NEW = OLD | {"database.hostname": "new", "snapshot.mode": "no_data"}


def test_a_move_is_told_by_the_database_and_nothing_else():
    assert Renewal("x", OLD, NEW).moves
    assert not Renewal("x", OLD | {"database.password": "other"}, OLD).moves
    assert not Renewal("x", None, NEW).moves


def test_it_is_said_what_is_dropped_and_what_is_read():
    assert Renewal("x", OLD, NEW).sentence() == (
        "x: sends the rest of a at old:5432, forgets its place there and drops its slot; makes the slot fanline_outbox"
        " anew in a at new:5432 and reads only what is written from then on"
    )
    assert "reads all rows" in Renewal("x", OLD, NEW | {"snapshot.mode": "initial"}).sentence()


def test_a_renewal_that_was_interrupted_goes_on_and_one_that_is_done_is_left_alone():
    assert Renewal("x", NEW, NEW, stopped=True).sentence() == "x: begins to read a at new:5432"
    done = Renewal("x", NEW, NEW)
    assert not done.is_needed
    assert done.sentence() == "x: reads a at new:5432 already and is left alone"
