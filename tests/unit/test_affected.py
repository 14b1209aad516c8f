from uuid import uuid4

from readmodels.affected import TABLES, affected
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.poll_documents import POLL
from readmodels.relations import VIEWER

ONE, OTHER = uuid4(), uuid4()


def test_a_post_changes_its_card_alone() -> None:
    row = {"id": 9, "author_id": str(ONE), "repost_of_id": 4, "in_reply_to_id": 7}
    assert affected("posts", row) == {(STATUS_CARD, 9)}


def test_a_follow_changes_what_the_follower_sees() -> None:
    row = {"follower_id": str(ONE), "followee_id": str(OTHER)}
    assert affected("follows", row) == {(VIEWER, ONE)}


def test_a_block_changes_both_viewers_and_a_mute_only_the_muter() -> None:
    assert affected("blocks", {"blocker_id": str(ONE), "blocked_id": str(OTHER)}) == {(VIEWER, ONE), (VIEWER, OTHER)}
    assert affected("mutes", {"muter_id": str(ONE), "muted_id": str(OTHER)}) == {(VIEWER, ONE)}


def test_deleted_media_whose_row_has_only_its_key_change_nothing_by_themselves() -> None:
    assert affected("media", {"id": str(ONE)}) == set()
    whole = {"id": str(ONE), "owner_id": str(OTHER), "post_id": 7}
    assert affected("media", whole) == {(ACCOUNT_CARD, OTHER), (STATUS_CARD, 7)}


def test_a_vote_changes_its_poll_and_a_poll_the_card_of_its_post() -> None:
    assert affected("poll_votes", {"poll_id": 3, "voter_id": str(ONE), "position": 0}) == {(POLL, 3)}
    assert affected("polls", {"id": 3, "post_id": 7}) == {(POLL, 3), (STATUS_CARD, 7)}
    assert affected("polls", {"id": 3}) == {(POLL, 3)}


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
            "poll_id",
            "user_id",
        ),
        str(ONE),
    )
    for table in TABLES:
        assert affected(table, columns | {"post_id": None, "repost_of_id": None, "in_reply_to_id": None})
