"""Polls over the real servers: made with a status, voted on once, ended, edited."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fanline.avro import AvroDecoder
from schemas import contracts
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


def poll_form(*options: str, **fields: Any) -> dict[str, Any]:
    return {"options": list(options or ("yes", "no")), "expires_in": 3600, **fields}


async def ask(api: Api, author: Person, *options: str, **fields: Any) -> dict[str, Any]:
    """A status with a poll; its entity."""
    return await api.status(author, "which?", poll=poll_form(*options, **fields))


async def vote(api: Api, who: Person, status: dict[str, Any], *choices: int) -> Any:
    return await api.post(f"/api/v1/polls/{status['poll']['id']}/votes", who, json={"choices": list(choices)})


async def end(api: Api, status: dict[str, Any]) -> None:
    await api.context.database.execute(
        "UPDATE polls SET expires_at = now() - interval '1 second' WHERE id = %(id)s", {"id": status["poll"]["id"]}
    )
    await api.once(f"/api/v1/polls/{status['poll']['id']}", None, lambda poll: poll["expired"])


def tally(poll: dict[str, Any]) -> list[int | None]:
    return [option["votes_count"] for option in poll["options"]]


async def events(api: Api, topic: str, status: dict[str, Any]) -> list[dict[str, Any]]:
    rows = await api.context.database.rows(
        "SELECT payload FROM outbox WHERE aggregatetype = %(topic)s AND aggregateid = %(id)s ORDER BY created_at",
        {"topic": topic, "id": status["id"]},
    )
    decoder = AvroDecoder(lambda _: contracts.load()[topic].text)
    return [decoder.decode(row["payload"]) for row in rows]


async def test_a_poll_has_every_member_that_clients_read(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await ask(api, ann, "  tea ", "", "coffee", multiple=True)
    poll = posted["poll"]
    assert poll == {
        "id": poll["id"],
        "expires_at": poll["expires_at"],
        "expired": False,
        "multiple": True,
        "votes_count": 0,
        "voters_count": 0,
        "options": [{"title": "tea", "votes_count": 0}, {"title": "coffee", "votes_count": 0}],
        "emojis": [],
        "voted": True,
        "own_votes": [],
    }
    seen = (await api.get(f"/api/v1/polls/{poll['id']}", bob)).ok()
    assert seen == poll | {"voted": False}
    anybody = (await api.get(f"/api/v1/polls/{poll['id']}")).ok()
    assert anybody == {name: value for name, value in poll.items() if name not in ("voted", "own_votes")}
    (listed,) = (await api.get(f"/api/v1/accounts/{ann.id}/statuses", bob)).ok()
    assert listed["poll"] == seen
    assert (await api.status(ann, "none"))["poll"] is None


async def test_a_poll_comes_from_a_form_as_well(api: Api) -> None:
    ann = await api.person("ann")
    form = [
        ("status", "which?"),
        ("poll[options][]", "a"),
        ("poll[options][]", "b"),
        ("poll[expires_in]", "300"),
        ("poll[hide_totals]", "true"),
    ]
    posted = (await api.post("/api/v1/statuses", ann, data=form)).ok()
    assert [option["title"] for option in posted["poll"]["options"]] == ["a", "b"]
    assert tally(posted["poll"]) == [None, None]


async def test_a_vote_is_counted_once_and_told_of(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    posted = await ask(api, ann)
    voted = (await vote(api, bob, posted, 1)).ok()
    assert (voted["voted"], voted["own_votes"], tally(voted), voted["votes_count"]) == (True, [1], [0, 1], 1)
    assert "already voted" in (await vote(api, bob, posted, 0)).fails(422)
    (await vote(api, carol, posted, 1)).ok()
    status = await api.once(f"/api/v1/statuses/{posted['id']}", bob, lambda each: each["poll"]["voters_count"] == 2)
    seen = status["poll"]
    assert (tally(seen), seen["voters_count"], seen["own_votes"]) == ([0, 2], 2, [1])
    recorded = await events(api, "engagement.recorded", posted)
    assert [(event["kind"], event["account_id"]) for event in recorded] == [("vote", bob.id), ("vote", carol.id)]


async def test_several_choices_are_several_votes_of_one_voter(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    posted = await ask(api, ann, "a", "b", "c", multiple=True)
    (await vote(api, bob, posted, 2, 0, 2)).ok()
    seen = (await vote(api, carol, posted, 2)).ok()
    assert (tally(seen), seen["votes_count"], seen["voters_count"]) == ([1, 0, 2], 3, 2)
    assert (await api.get(f"/api/v1/polls/{posted['poll']['id']}", bob)).ok()["own_votes"] == [0, 2]
    assert len(await events(api, "engagement.recorded", posted)) == 2


async def test_votes_that_do_not_count_say_why(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await ask(api, ann)
    assert "own polls" in (await vote(api, ann, posted, 0)).fails(422)
    for choices in ([2], [-1], [], [10**9]):
        assert "does not exist" in (await vote(api, bob, posted, *choices)).fails(422)
    assert "Only one" in (await vote(api, bob, posted, 0, 1)).fails(422)
    (await api.post(f"/api/v1/polls/{posted['poll']['id']}/votes", bob, json={"choices": ["x"]})).fails(422)
    (await api.post(f"/api/v1/polls/{posted['poll']['id']}/votes", bob)).fails(422)
    (await api.post("/api/v1/polls/1/votes", bob, json={"choices": [0]})).fails(404)
    (await api.get("/api/v1/polls/nonsense", bob)).fails(404)
    (await api.post(f"/api/v1/polls/{posted['poll']['id']}/votes", json={"choices": [0]})).fails(401)
    await end(api, posted)
    assert "ended" in (await vote(api, bob, posted, 0)).fails(422)
    seen = (await api.get(f"/api/v1/polls/{posted['poll']['id']}", bob)).ok()
    assert (seen["expired"], seen["votes_count"]) == (True, 0)


async def test_votes_of_one_person_at_the_same_time_are_one(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await ask(api, ann, "a", "b", "c", "d")
    answers = await asyncio.gather(*(vote(api, bob, posted, choice) for choice in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 422, 422, 422]
    await api.once(f"/api/v1/polls/{posted['poll']['id']}", None, lambda poll: poll["votes_count"] == 1)


async def test_hidden_totals_show_when_the_poll_has_ended(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await ask(api, ann, hide_totals=True)
    assert tally((await vote(api, bob, posted, 0)).ok()) == [None, None]
    await api.once(f"/api/v1/polls/{posted['poll']['id']}", None, lambda poll: poll["votes_count"] == 1)
    await end(api, posted)
    assert tally((await api.get(f"/api/v1/polls/{posted['poll']['id']}")).ok()) == [1, 0]


async def test_a_poll_is_seen_and_voted_on_only_where_its_status_is(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    await api.follow(bob, ann)
    posted = await api.status(ann, "x", visibility="private", poll=poll_form())
    (await vote(api, bob, posted, 0)).ok()
    (await vote(api, carol, posted, 0)).fails(404)
    (await api.get(f"/api/v1/polls/{posted['poll']['id']}", carol)).fails(404)
    (await api.get(f"/api/v1/polls/{posted['poll']['id']}")).fails(404)
    (await api.request("DELETE", f"/api/v1/statuses/{posted['id']}", ann)).ok()
    (await api.get(f"/api/v1/polls/{posted['poll']['id']}", ann)).fails(404)


@pytest.mark.parametrize(
    ("poll", "says"),
    [
        (poll_form("one"), "more than one"),
        (poll_form("a", " "), "more than one"),
        (poll_form(*"abcde"), "more than 4"),
        (poll_form("a", "a"), "duplicate"),
        (poll_form("a", "b" * 51), "50 characters"),
        (poll_form(expires_in=299), "too soon"),
        (poll_form(expires_in=2_629_747), "too far"),
        ({"options": ["a", "b"]}, "expires_in"),
        ({"expires_in": 600}, "options"),
        ("x", "poll"),
    ],
)
async def test_a_poll_that_cannot_be_held_is_refused(api: Api, poll: Any, says: str) -> None:
    ann = await api.person("ann")
    assert says in (await api.post("/api/v1/statuses", ann, json={"status": "x", "poll": poll})).fails(422)
    assert (await api.get(f"/api/v1/accounts/{ann.id}/statuses")).ok() == []


async def test_the_limits_of_polls_are_announced(api: Api) -> None:
    limits = (await api.get("/api/v2/instance")).ok()["configuration"]["polls"]
    ann = await api.person("ann")
    titles = [f"{n}".ljust(limits["max_characters_per_option"], "x") for n in range(limits["max_options"])]
    for seconds in (limits["min_expiration"], limits["max_expiration"]):
        await ask(api, ann, *titles, expires_in=seconds)


async def test_an_edit_keeps_the_votes_unless_it_asks_something_else(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await ask(api, ann, "a", "b")
    (await vote(api, bob, posted, 0)).ok()

    async def edit(**fields: Any) -> Any:
        answer = await api.request("PUT", f"/api/v1/statuses/{posted['id']}", ann, json=fields)
        return answer.ok()["poll"]

    assert tally(await edit(status="what?")) == [1, 0]
    same = await edit(status="what?", poll=poll_form("a", "b", expires_in=7200, hide_totals=True))
    assert (same["id"], same["votes_count"], tally(same)) == (posted["poll"]["id"], 1, [None, None])
    assert same["expires_at"] > posted["poll"]["expires_at"]
    other = await edit(poll=poll_form("a", "c"))
    assert (other["id"] != posted["poll"]["id"], tally(other)) == (True, [0, 0])
    (await api.get(f"/api/v1/polls/{posted['poll']['id']}", ann)).fails(404)
    assert await edit(poll=None) is None
    versions = (await api.get(f"/api/v1/statuses/{posted['id']}/history")).ok()
    titles = [[option["title"] for option in each["poll"]["options"]] if each["poll"] else None for each in versions]
    assert titles == [["a", "b"], ["a", "b"], ["a", "c"], None]
    changes = [event["poll_changed"] for event in await events(api, "post.updated", posted)]
    assert changes == [False, True, True]


async def test_an_edit_tells_who_is_mentioned_only_now(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    posted = await api.status(ann, f"hi @{bob.username} #one")
    text = f"hi @{carol.username} and @{bob.username} #two"
    (await api.request("PUT", f"/api/v1/statuses/{posted['id']}", ann, json={"status": text})).ok()
    (await api.request("PUT", f"/api/v1/statuses/{posted['id']}", ann, json={"status": text})).ok()
    (event,) = await events(api, "post.updated", posted)
    assert (set(event["mentions"]), event["new_mentions"]) == ({bob.id, carol.id}, [carol.id])
    assert (event["text"], event["hashtags"], event["poll_changed"]) == (text, ["two"], False)
