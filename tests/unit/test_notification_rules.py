from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from fanline.ids import created_ms
from readmodels.notification_rules import (
    DEFAULTS,
    PROBES_A_MS,
    Candidate,
    Look,
    cause,
    decide,
    hints,
    identifier,
    microseconds,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
ADA, BOB = UUID(int=1), UUID(int=2)
A, B = str(ADA), str(BOB)


def candidate(**changes: Any) -> Candidate:
    """Bob, whom Ada does not follow and who has been here for years, likes a post of Ada's."""
    facts: dict[str, Any] = {
        "user_id": ADA, "type": "favourite", "from_account_id": BOB, "post_id": 5, "report_id": None,
        "moderation_action_id": None, "happened_at": NOW, "recipient_suspended": False, "sender_suspended": False,
        "sender_limited": False, "sender_since": NOW - timedelta(days=1000), "visible": True, "blocked": False,
        "muted": False, "conversation_muted": False, "hidden": False, "may_be_filtered": False,
        "for_not_following": "accept", "for_not_followers": "accept", "for_new_accounts": "accept",
        "for_private_mentions": "accept", "for_limited_accounts": "accept", "following": False,
        "followed_since": NOW - timedelta(days=100), "permitted": False, "unasked_private_mention": False,
    }  # fmt: skip
    return Candidate(**facts | changes)


def test_what_no_policy_can_filter_is_accepted() -> None:
    assert decide(candidate()) == "accept"


def test_who_has_set_no_policy_has_private_mentions_and_limited_people_filtered_and_nothing_else() -> None:
    usual = {"may_be_filtered": True, "followed_since": None, "sender_since": NOW} | DEFAULTS
    assert decide(candidate(**usual)) == "accept"
    assert decide(candidate(**usual, unasked_private_mention=True)) == "filter"
    assert decide(candidate(**usual, sender_limited=True)) == "filter"
    assert decide(candidate(**usual, sender_limited=True, unasked_private_mention=True, following=True)) == "accept"


@pytest.mark.parametrize(
    "why", ["recipient_suspended", "sender_suspended", "blocked", "muted", "conversation_muted", "hidden"]
)
def test_nobody_is_told_what_they_hide_or_may_not_see(why: str) -> None:
    assert decide(candidate(**{why: True})) == "drop"
    assert decide(candidate(visible=False)) == "drop"


def test_a_warning_reaches_even_whoever_hides_everything() -> None:
    assert decide(candidate(type="moderation_warning", muted=True, hidden=True)) == "accept"


@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ("for_not_following", {}),
        ("for_not_followers", {"followed_since": None}),
        ("for_not_followers", {"followed_since": NOW - timedelta(days=2)}),
        ("for_new_accounts", {"sender_since": NOW - timedelta(days=29)}),
        ("for_private_mentions", {"unasked_private_mention": True}),
        ("for_limited_accounts", {"sender_limited": True}),
    ],
)
def test_each_part_of_a_policy_applies_to_its_own_senders_only(part: str, facts: dict[str, Any]) -> None:
    policy = {"may_be_filtered": True, part: "filter"}
    assert decide(candidate(**policy, **facts)) == "filter"
    assert decide(candidate(**policy | {"may_be_filtered": False}, **facts)) == "accept"
    assert decide(candidate(**policy, **facts, permitted=True)) == "accept"
    harmless = {"following": True, "followed_since": NOW - timedelta(days=4)}
    assert decide(candidate(**policy, **facts | harmless)) == "accept"


def test_the_strictest_part_wins() -> None:
    both = {"may_be_filtered": True, "for_not_following": "filter", "for_new_accounts": "drop"}
    assert decide(candidate(**both, sender_since=NOW)) == "drop"
    assert decide(candidate(**both)) == "filter"


@pytest.mark.parametrize("kind", ["poll", "status", "update", "admin.report", "admin.sign_up"])
def test_policies_do_not_apply_to_what_one_has_asked_for(kind: str) -> None:
    assert decide(candidate(type=kind, may_be_filtered=True, for_not_following="drop")) == "accept"


def test_a_cause_is_the_same_for_every_event_of_a_fact_and_another_for_everything_else() -> None:
    same = cause(candidate())
    assert same == cause(candidate(muted=True, sender_limited=True))
    others = [
        candidate(type="reblog"), candidate(from_account_id=ADA), candidate(post_id=6), candidate(report_id=ADA),
        candidate(moderation_action_id=ADA), candidate(happened_at=NOW + timedelta(microseconds=1)),
    ]  # fmt: skip
    assert len({same, *map(cause, others)}) == len(others) + 1
    assert -(2**63) <= same < 2**63


def test_a_mention_is_told_once_whenever_it_was_written() -> None:
    first = candidate(type="mention")
    assert cause(first) == cause(first._replace(happened_at=NOW + timedelta(hours=1)))


def test_an_identifier_sorts_by_the_time_of_the_fact() -> None:
    earlier, later = candidate(), candidate(happened_at=NOW + timedelta(milliseconds=1))
    assert created_ms(identifier(earlier)) == microseconds(NOW) // 1000
    assert identifier(earlier) < identifier(later)


def test_probes_differ_and_move_on_through_time() -> None:
    probes = [identifier(candidate(), probe) for probe in range(3 * PROBES_A_MS)]
    assert len(set(probes)) == len(probes)
    ms = microseconds(NOW) // 1000
    assert [created_ms(number) - ms for number in probes] == [0] * PROBES_A_MS + [1] * PROBES_A_MS + [2] * PROBES_A_MS


POST = {"post_id": "5", "repost_of_id": None, "author_id": B}


@pytest.mark.parametrize(
    ("name", "event", "look"),
    [
        ("post.created", POST, Look(posts={5}, published={5})),
        ("post.created", POST | {"repost_of_id": "4"}, Look(reposts={5})),
        ("post.updated", POST, Look(posts={5}, edited={5})),
        ("post.deleted", POST, Look()),
        ("post.deleted", POST | {"repost_of_id": "4"}, Look(ended_reposts={(BOB, 4)})),
        ("engagement.recorded", {"kind": "favourite", "undone": False, "account_id": B, "post_id": "5"},
         Look(favourites={(BOB, 5)})),
        ("engagement.recorded", {"kind": "favourite", "undone": True, "account_id": B, "post_id": "5"},
         Look(ended_favourites={(BOB, 5)})),
        ("engagement.recorded", {"kind": "vote", "undone": False, "account_id": B, "post_id": "5"}, Look()),
        ("follow.created", {"follower_id": B, "followee_id": A},
         Look(follows={(BOB, ADA)}, ended_requests={(BOB, ADA)})),
        ("follow.deleted", {"follower_id": B, "followee_id": A}, Look(ended_follows={(BOB, ADA)})),
        ("follow.requested", {"follower_id": B, "followee_id": A, "undone": False},
         Look(follow_requests={(BOB, ADA)})),
        ("follow.requested", {"follower_id": B, "followee_id": A, "undone": True}, Look(ended_requests={(BOB, ADA)})),
        ("report.created", {"report_id": A}, Look(reports={ADA})),
        ("moderation.recorded", {"action_id": A}, Look(actions={ADA})),
        ("account.created", {"account_id": A}, Look(sign_ups={ADA})),
        ("cdc.blocks", {"__deleted": "false", "blocker_id": A, "blocked_id": B}, Look(blocks={(ADA, BOB)})),
        ("cdc.blocks", {"__deleted": "true", "blocker_id": A, "blocked_id": B}, Look()),
    ],
)  # fmt: skip
def test_an_event_says_where_to_look(name: str, event: dict[str, Any], look: Look) -> None:
    found = Look()
    found.note(hints(name, event))
    assert found == look


def test_looks_add_up() -> None:
    both = Look(posts={1}, blocks={(ADA, BOB)})
    both.note([("posts", 2), ("posts", 1), ("follows", (BOB, ADA))])
    assert both == Look(posts={1, 2}, blocks={(ADA, BOB)}, follows={(BOB, ADA)})
