"""Notifications from what people do, through the log and the flows, to inboxes and the API, over the real servers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.notification_world import (
    do,
    rows,
    told,
    until,
    until_caught_up,
    until_inbox_equals_oracle,
    until_told,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


async def follow(api: Api, who: Person, whom: Person, **fields: Any) -> None:
    (await api.post(f"/api/v1/accounts/{whom.id}/follow", who, json=fields)).ok()


async def test_everybody_is_told_what_others_do_to_them(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    await follow(api, bob, ada, notify=True)
    post = await api.status(ada, "Hello.")
    await do(api, bob, "favourite", post)
    await do(api, bob, "reblog", post)
    reply = await api.status(eve, "And so say I.", in_reply_to_id=post["id"])
    mention = await api.status(eve, f"Look, @{ada.username}!")
    await until_told(
        api, ada,
        ("follow", bob.id, None), ("favourite", bob.id, post["id"]), ("reblog", bob.id, post["id"]),
        ("mention", eve.id, reply["id"]), ("mention", eve.id, mention["id"]),
    )  # fmt: skip
    await until_told(api, bob, ("status", ada.id, post["id"]))
    assert await told(api, eve) == []
    seen = await until_inbox_equals_oracle(api, ada)
    assert [item.id for item in seen.items] == sorted((item.id for item in seen.items), reverse=True)


async def test_what_is_taken_back_is_told_no_longer_and_told_again_when_it_comes_again(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    post = await api.status(ada, "Hello.")
    await until_told(api, ada)
    await follow(api, bob, ada)
    await do(api, bob, "favourite", post)
    await do(api, bob, "reblog", post)
    everything = [("follow", bob.id, None), ("favourite", bob.id, post["id"]), ("reblog", bob.id, post["id"])]
    await until_told(api, ada, *everything)
    (await api.post(f"/api/v1/accounts/{ada.id}/unfollow", bob)).ok()
    await do(api, bob, "unfavourite", post)
    await do(api, bob, "unreblog", post)
    await until_told(api, ada)
    await do(api, bob, "favourite", post)
    await until_told(api, ada, ("favourite", bob.id, post["id"]))
    (await api.request("DELETE", f"/api/v1/statuses/{post['id']}", ada)).ok()
    await until_told(api, ada)
    await until_inbox_equals_oracle(api, ada)


async def test_dismissing_and_clearing_is_seen_at_once_and_stays(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    posts = [await api.status(ada, f"Number {number}.") for number in range(3)]
    for post in posts:
        await do(api, bob, "favourite", post)
    await until_told(api, ada, *(("favourite", bob.id, post["id"]) for post in posts))
    newest = (await api.get("/api/v1/notifications?limit=1", ada)).ok()[0]
    assert (await api.get(f"/api/v1/notifications/{newest['id']}", ada)).ok() == newest
    (await api.get(f"/api/v1/notifications/{newest['id']}", bob)).fails(404)
    (await api.post(f"/api/v1/notifications/{newest['id']}/dismiss", ada)).ok()
    assert [status for _, _, status in await told(api, ada)] == [posts[1]["id"], posts[0]["id"]]
    (await api.post(f"/api/v1/notifications/{newest['id']}/dismiss", ada)).fails(404)
    (await api.post("/api/v1/notifications/clear", ada)).ok()
    assert await told(api, ada) == []
    seen = await until_inbox_equals_oracle(api, ada)
    assert seen.items == []


async def test_unread_are_those_above_the_marker(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    posts = [await api.status(ada, f"Number {number}.") for number in range(3)]
    for post in posts:
        await do(api, bob, "favourite", post)
    await until_told(api, ada, *(("favourite", bob.id, post["id"]) for post in posts))
    assert (await api.get("/api/v1/notifications/unread_count", ada)).ok() == {"count": 3}
    assert (await api.get("/api/v2/notifications/unread_count", ada)).ok() == {"count": 3}
    second = (await api.get("/api/v1/notifications", ada)).ok()[1]["id"]
    (await api.post("/api/v1/markers", ada, json={"notifications": {"last_read_id": second}})).ok()
    assert (await api.get("/api/v1/notifications/unread_count", ada)).ok() == {"count": 1}

    async def in_redis() -> bool:
        return (await until_inbox_equals_oracle(api, ada)).marker == int(second)

    await until(in_redis, "the marker in the inbox")
    assert (await api.get("/api/v1/notifications/unread_count?types[]=mention", ada)).ok() == {"count": 0}


async def test_pages_and_selections_are_those_of_the_client_api(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    post = await api.status(ada, "Hello.")
    for who in (bob, eve):
        await do(api, who, "favourite", post)
        await do(api, who, "reblog", post)
    everything = [(verb, who.id, post["id"]) for who in (bob, eve) for verb in ("favourite", "reblog")]
    await until_told(api, ada, *everything)
    in_order = await told(api, ada)
    first = await api.get("/api/v1/notifications?limit=3", ada)
    newest, *_, oldest = (each["id"] for each in first.ok())
    older, newer = first.headers["Link"].split(", ")
    assert f"max_id={oldest}>" in older
    assert 'rel="next"' in older
    assert f"min_id={newest}>" in newer
    assert await told(api, ada, f"?limit=3&max_id={oldest}") == in_order[3:]
    assert await told(api, ada, f"?since_id={oldest}") == in_order[:2]
    assert await told(api, ada, f"?limit=1&min_id={oldest}") == in_order[1:2]
    assert {kind for kind, _, _ in await told(api, ada, "?types[]=reblog")} == {"reblog"}
    assert {kind for kind, _, _ in await told(api, ada, "?exclude_types[]=reblog")} == {"favourite"}
    assert {who for _, who, _ in await told(api, ada, f"?account_id={eve.id}")} == {eve.id}


async def test_a_block_takes_away_what_the_blocked_one_has_told_and_nothing_new_comes(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    post = await api.status(ada, "Hello.")
    for who in (bob, eve):
        await do(api, who, "favourite", post)
    await until_told(api, ada, ("favourite", bob.id, post["id"]), ("favourite", eve.id, post["id"]))
    (await api.post(f"/api/v1/accounts/{eve.id}/block", ada)).ok()
    await until_told(api, ada, ("favourite", bob.id, post["id"]))
    (await api.post(f"/api/v1/accounts/{eve.id}/unblock", ada)).ok()
    await do(api, bob, "reblog", post)
    await until_told(api, ada, ("favourite", bob.id, post["id"]), ("reblog", bob.id, post["id"]))


async def test_muted_people_and_conversations_and_hidden_words_tell_nothing(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    post, other = await api.status(ada, "Hello."), await api.status(ada, "Again.")
    (await api.post(f"/api/v1/accounts/{eve.id}/mute", ada)).ok()
    await do(api, ada, "mute", other)
    keyword = {"keywords_attributes": [{"keyword": "spoiler", "whole_word": True}]}
    hide = {"title": "No", "context": ["notifications"], "filter_action": "hide"}
    (await api.post("/api/v2/filters", ada, json=hide | keyword)).ok()
    await do(api, eve, "favourite", post)
    await do(api, bob, "favourite", other)
    await api.status(bob, f"@{ada.username} a spoiler!")
    heard = await api.status(bob, f"@{ada.username} spoilers are another word.")
    await until_told(api, ada, ("mention", bob.id, heard["id"]))


async def test_what_a_policy_filters_is_a_request_until_it_is_accepted(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    policy = (
        await api.request("PATCH", "/api/v2/notifications/policy", ada, json={"for_not_following": "filter"})
    ).ok()
    assert (policy["for_not_following"], policy["for_new_accounts"]) == ("filter", "accept")
    await follow(api, ada, eve)
    post = await api.status(ada, "Hello.")
    for who in (bob, eve):
        await do(api, who, "favourite", post)
    await until_told(api, ada, ("favourite", eve.id, post["id"]))

    async def asked() -> bool:
        return len((await api.get("/api/v1/notifications/requests", ada)).ok()) == 1

    await until(asked, "a request")
    (request,) = (await api.get("/api/v1/notifications/requests", ada)).ok()
    assert (request["account"]["id"], request["notifications_count"]) == (bob.id, "1")
    assert (await api.get("/api/v2/notifications/policy", ada)).ok()["summary"] == {
        "pending_requests_count": 1,
        "pending_notifications_count": 1,
    }
    assert ("favourite", bob.id, post["id"]) in await told(api, ada, "?include_filtered=true")
    (await api.post(f"/api/v1/notifications/requests/{request['id']}/accept", ada)).ok()
    await until_told(api, ada, ("favourite", bob.id, post["id"]), ("favourite", eve.id, post["id"]))
    await do(api, bob, "reblog", post)
    await until_told(
        api, ada,
        ("favourite", bob.id, post["id"]), ("favourite", eve.id, post["id"]), ("reblog", bob.id, post["id"]),
    )  # fmt: skip
    await until_inbox_equals_oracle(api, ada)


async def test_without_a_policy_strangers_who_write_privately_are_a_request(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    policy = (await api.get("/api/v2/notifications/policy", ada)).ok()
    assert [part for part, what in policy.items() if what == "filter"] == [
        "for_private_mentions",
        "for_limited_accounts",
    ]
    await follow(api, ada, eve)
    private = await api.status(bob, f"@{ada.username} psst", visibility="direct")
    friendly = await api.status(eve, f"@{ada.username} psst", visibility="direct")
    open_to_all = await api.status(bob, f"@{ada.username} hello")
    wanted = [("mention", eve.id, friendly["id"]), ("mention", bob.id, open_to_all["id"])]
    await until_told(api, ada, *wanted)
    (request,) = (await api.get("/api/v1/notifications/requests", ada)).ok()
    assert (request["account"]["id"], request["last_status"]["id"]) == (bob.id, private["id"])
    answer = await api.status(ada, f"@{bob.username} what?", visibility="direct", in_reply_to_id=private["id"])
    more = await api.status(bob, f"@{ada.username} nothing", visibility="direct", in_reply_to_id=answer["id"])
    await until_told(api, ada, *wanted, ("mention", bob.id, more["id"]))
    changed = await api.request("PATCH", "/api/v2/notifications/policy", ada, json={"for_new_accounts": "drop"})
    kept = ("for_private_mentions", "for_limited_accounts", "for_new_accounts", "for_not_following")
    assert [changed.ok()[part] for part in kept] == ["filter", "filter", "drop", "accept"]


async def test_groups_say_who_and_how_many(api: Api) -> None:
    ada, *others = await api.people("ada", "bob", "eve", "joe")
    post, mentioned = await api.status(ada, "Hello."), await api.status(others[0], f"@{ada.username} hi")
    for who in others:
        await do(api, who, "favourite", post)
    wanted = [("favourite", who.id, post["id"]) for who in others] + [("mention", others[0].id, mentioned["id"])]
    await until_told(api, ada, *wanted)
    results = (await api.get("/api/v2/notifications?expand_accounts=partial_avatars", ada)).ok()
    liked, said = results["notification_groups"]
    assert (liked["type"], liked["notifications_count"], liked["status_id"]) == ("favourite", 3, post["id"])
    assert set(liked["sample_account_ids"]) == {who.id for who in others}
    assert (said["group_key"], said["sample_account_ids"]) == (
        f"ungrouped-{said['most_recent_notification_id']}",
        [others[0].id],
    )
    assert {status["id"] for status in results["statuses"]} == {post["id"], mentioned["id"]}
    shown = {account["id"] for account in (*results["accounts"], *results["partial_accounts"])}
    assert shown == {who.id for who in others}
    key = liked["group_key"]
    (one,) = (await api.get(f"/api/v2/notifications/{key}", ada)).ok()["notification_groups"]
    assert (one["group_key"], one["notifications_count"]) == (key, 3)
    people = (await api.get(f"/api/v2/notifications/{key}/accounts", ada)).ok()
    assert [account["id"] for account in people] == liked["sample_account_ids"]
    single = (await api.get("/api/v2/notifications?grouped_types[]=follow", ada)).ok()["notification_groups"]
    assert len(single) == 4
    (await api.post(f"/api/v2/notifications/{key}/dismiss", ada)).ok()
    assert await told(api, ada) == [("mention", others[0].id, mentioned["id"])]
    (await api.get("/api/v2/notifications/favourite-1-2", ada)).fails(404)


async def test_a_poll_that_ends_is_told_to_its_author_and_voters(api: Api, system: Stack) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    post = await api.status(ada, "Which?", poll={"options": ["A", "B"], "expires_in": 300})
    (await api.post(f"/api/v1/polls/{post['poll']['id']}/votes", bob, json={"choices": [0]})).ok()
    ends = "UPDATE polls SET expires_at = clock_timestamp() + INTERVAL '1 second' WHERE id = %s"
    rows(system.settings, ends, post["poll"]["id"])
    await until_told(api, ada, ("poll", ada.id, post["id"]))
    await until_told(api, bob, ("poll", ada.id, post["id"]))
    assert await told(api, eve) == []


async def test_moderators_hear_of_reports_and_whom_they_warn_hears_of_it(api: Api, system: Stack) -> None:
    ada, bob, mod = await api.people("ada", "bob", "mod")
    appoint = "UPDATE identities SET role = 'moderator' WHERE user_id = %s"
    rows(system.settings, appoint, mod.id)
    post = await api.status(bob, "Buy!")
    form = {"account_id": bob.id, "status_ids": [post["id"]], "category": "spam", "comment": "Spam."}
    report = (await api.post("/api/v1/reports", ada, json=form)).ok()
    assert (report["status_ids"], report["target_account"]["id"]) == ([post["id"]], bob.id)
    await until_told(api, mod, ("admin.report", ada.id, None), query=f"?account_id={ada.id}")
    (heard,) = (await api.get(f"/api/v1/notifications?account_id={ada.id}", mod)).ok()
    assert (heard["report"]["id"], heard["report"]["comment"]) == (report["id"], "Spam.")
    act = f"/api/v1/admin/accounts/{bob.id}/action"
    (await api.post(act, ada, json={"type": "none"})).fails(403)
    (await api.post(act, mod, json={"type": "silence", "text": "Stop it.", "report_id": report["id"]})).ok()
    await until_told(api, bob, ("moderation_warning", bob.id, None))
    (warning,) = (await api.get("/api/v1/notifications", bob)).ok()
    assert (warning["moderation_warning"]["action"], warning["moderation_warning"]["text"]) == ("silence", "Stop it.")
    assert (await api.get(f"/api/v1/accounts/{bob.id}", ada)).ok()["limited"] is True
    rows(system.settings, appoint.replace("'moderator'", "'user'"), mod.id)


async def test_killed_flows_and_a_replay_of_everything_neither_lose_nor_repeat_anything(
    api: Api, system: Stack
) -> None:
    ada, *others = await api.people("ada", *["fan"] * 5)
    post = await api.status(ada, "Hello.")
    await until_told(api, ada)
    system.kill("notifications")
    for who in others[:3]:
        await do(api, who, "favourite", post)
    system.kill("dispatcher")
    for who in others[3:]:
        await do(api, who, "favourite", post)
    await until_told(api, ada, *(("favourite", who.id, post["id"]) for who in others))
    dismissed = (await api.get("/api/v1/notifications?limit=1", ada)).ok()[0]["id"]
    (await api.post(f"/api/v1/notifications/{dismissed}/dismiss", ada)).ok()
    before = await told(api, ada)
    dispatched = "SELECT count(*) FROM outbox WHERE type = 'notification.dispatched' AND aggregateid = %s"
    assert rows(system.settings, dispatched, ada.id) == [(5,)]
    await asyncio.to_thread(_replay, system)
    await until_caught_up(system, "notifications", "dispatcher")
    assert await told(api, ada) == before
    assert rows(system.settings, dispatched, ada.id) == [(5,)]
    await until_inbox_equals_oracle(api, ada)


def _replay(system: Stack) -> None:
    for flow in ("notifications", "dispatcher"):
        system.fanline("dataflows", "stop", flow)
        system.fanline("offsets", "reset", flow, "--to", "earliest", "--yes")
    system.fanline("dataflows", "start", "notifications", "dispatcher")
