from uuid import uuid4

from readmodels.affected import TABLES, affected
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.relations import OWN_REPOSTS, VIEWER

ONE, OTHER = uuid4(), uuid4()


def test_a_repost_changes_the_count_of_its_original_and_what_the_author_has_reposted() -> None:
    row = {"id": 9, "author_id": str(ONE), "repost_of_id": 4, "in_reply_to_id": None}
    expected = {(STATUS_CARD, 9), (STATUS_COUNTS, 9), (ACCOUNT_COUNTS, ONE), (STATUS_COUNTS, 4), (OWN_REPOSTS, ONE)}
    assert affected("posts", row) == expected


def test_a_reply_changes_the_count_of_what_it_answers() -> None:
    row = {"id": 9, "author_id": str(ONE), "repost_of_id": None, "in_reply_to_id": 4}
    assert (STATUS_COUNTS, 4) in affected("posts", row)


def test_a_follow_changes_two_counts_and_one_viewer() -> None:
    row = {"follower_id": str(ONE), "followee_id": str(OTHER)}
    assert affected("follows", row) == {(ACCOUNT_COUNTS, ONE), (ACCOUNT_COUNTS, OTHER), (VIEWER, ONE)}


def test_a_block_changes_both_viewers_and_a_mute_only_the_muter() -> None:
    assert affected("blocks", {"blocker_id": str(ONE), "blocked_id": str(OTHER)}) == {(VIEWER, ONE), (VIEWER, OTHER)}
    assert affected("mutes", {"muter_id": str(ONE), "muted_id": str(OTHER)}) == {(VIEWER, ONE)}


def test_deleted_media_whose_row_has_only_its_key_change_nothing_by_themselves() -> None:
    assert affected("media", {"id": str(ONE)}) == set()
    whole = {"id": str(ONE), "owner_id": str(OTHER), "post_id": 7}
    assert affected("media", whole) == {(ACCOUNT_CARD, OTHER), (STATUS_CARD, 7)}


def test_every_table_that_is_read_affects_something() -> None:
    columns = dict.fromkeys(
        (
            "id",
            "author_id",
            "follower_id",
            "followee_id",
            "blocker_id",
            "blocked_id",
            "muter_id",
            "muted_id",
            "owner_id",
        ),
        str(ONE),
    )
    for table in TABLES:
        assert affected(table, columns | {"post_id": None, "repost_of_id": None, "in_reply_to_id": None})
