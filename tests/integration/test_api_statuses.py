"""Statuses over the real servers: what is posted, who sees it, and what a client gets back."""

import asyncio
from typing import Any

import pytest

from schemas import contracts
from tests.integration.api_world import Api, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def posts_of(api: Api, author: Person, viewer: Person | None = None, query: str = "") -> list[str]:
    entities = (await api.get(f"/api/v1/accounts/{author.id}/statuses{query}", viewer)).ok()
    return [entity["id"] for entity in entities]


async def events_of(api: Api, post_id: str) -> list[tuple[str, str | None]]:
    rows = await api.context.database.rows(
        "SELECT aggregatetype, traceparent FROM outbox WHERE aggregateid = %(id)s ORDER BY created_at", {"id": post_id}
    )
    return [(row["aggregatetype"], row["traceparent"]) for row in rows]


async def test_a_status_is_read_back_as_it_was_answered(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(
        ann, f"Hi @{bob.username}, #Tea?\n\n<b>", spoiler_text="cw", language="en", visibility="unlisted"
    )
    read = (await api.get(f"/api/v1/statuses/{posted['id']}", ann)).ok()
    assert read == posted
    assert posted["content"].count("<p>") == 2
    assert "<b>" not in posted["content"]
    assert posted["sensitive"] is True
    assert [mention["id"] for mention in posted["mentions"]] == [bob.id]
    assert [tag["name"] for tag in posted["tags"]] == ["tea"]
    assert posted["application"]["name"] == "tests"
    assert posted["account"]["statuses_count"] == 1
    assert "favourited" not in (await api.get(f"/api/v1/statuses/{posted['id']}")).ok()


async def test_every_kind_of_body_posts(api: Api) -> None:
    ann = await api.person("ann")
    for options in ({"json": {"status": "x"}}, {"data": {"status": "x"}}, {"params": {"status": "x"}}):
        assert (await api.post("/api/v1/statuses", ann, **options)).ok()["content"] == "<p>x</p>"


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"status": ""},
        {"status": " \n\u0007 "},
        {"status": "x" * 5_001},
        {"status": "x" * 2_501, "spoiler_text": "x" * 2_500},
        {"status": "x", "visibility": "secret"},
        {"status": "x", "media_ids": ["1"]},
        {"status": "x", "poll": {"options": ["a", "b"]}},
        {"status": "x", "scheduled_at": "2030-01-01T00:00:00Z"},
        {"status": "x", "language": "x" * 36},
        {"status": ["x"]},
    ],
)
async def test_a_status_that_cannot_be_posted_is_refused(api: Api, form: dict[str, Any]) -> None:
    ann = await api.person("ann")
    (await api.post("/api/v1/statuses", ann, json=form)).fails(422)
    assert await posts_of(api, ann) == []


@pytest.mark.parametrize("parent", ["1", "x", "-1", "99999999999999999999", 1])
async def test_a_reply_to_nothing_is_refused(api: Api, parent: str | int) -> None:
    ann = await api.person("ann")
    (await api.post("/api/v1/statuses", ann, json={"status": "x", "in_reply_to_id": parent})).fails(404)


async def test_a_write_and_its_event_are_one_transaction(api: Api) -> None:
    ann = await api.person("ann")
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    posted = (await api.post("/api/v1/statuses", ann, data={"status": "x"}, headers=headers)).ok()
    ((name, traceparent),) = await events_of(api, posted["id"])
    assert name == "post.created"
    assert traceparent is not None
    assert traceparent.split("-")[1] == trace
    (await api.request("DELETE", f"/api/v1/statuses/{posted['id']}", ann)).ok()
    assert [name for name, _ in await events_of(api, posted["id"])] == ["post.created", "post.deleted"]


async def test_every_event_that_the_api_knows_has_a_contract(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "x")
    await api.post(f"/api/v1/statuses/{posted['id']}/reblog", bob)
    await api.follow(ann, bob)
    await api.post(f"/api/v1/accounts/{bob.id}/unfollow", ann)
    await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, data={"note": "x"})
    await api.request("DELETE", f"/api/v1/statuses/{posted['id']}", ann)
    rows = await api.context.database.rows("SELECT DISTINCT aggregatetype AS name FROM outbox")
    written = {row["name"] for row in rows}
    expected = {
        "account.created",
        "account.updated",
        "follow.created",
        "follow.deleted",
        "post.created",
        "post.deleted",
    }
    assert expected <= written <= set(contracts.load())


async def test_a_repeated_key_gives_the_first_status(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    headers = {"Idempotency-Key": "k"}
    first = (await api.post("/api/v1/statuses", ann, data={"status": "one"}, headers=headers)).ok()
    again = (await api.post("/api/v1/statuses", ann, data={"status": "two"}, headers=headers)).ok()
    theirs = (await api.post("/api/v1/statuses", bob, data={"status": "one"}, headers=headers)).ok()
    assert again == first
    assert theirs["id"] != first["id"]
    assert await posts_of(api, ann) == [first["id"]]


async def test_requests_with_one_key_at_the_same_time_make_one_status(api: Api) -> None:
    ann = await api.person("ann")
    headers = {"Idempotency-Key": "k"}
    answers = await asyncio.gather(
        *(api.post("/api/v1/statuses", ann, data={"status": f"{n}"}, headers=headers) for n in range(10))
    )
    assert len({answer.ok()["id"] for answer in answers}) == 1
    assert len(await posts_of(api, ann)) == 1


async def test_a_key_is_free_again_after_an_hour(api: Api) -> None:
    ann = await api.person("ann")
    headers = {"Idempotency-Key": "k"}
    first = (await api.post("/api/v1/statuses", ann, data={"status": "one"}, headers=headers)).ok()
    await api.context.database.execute(
        "UPDATE idempotency_keys SET created_at = now() - interval '61 minutes' WHERE user_id = %(id)s", {"id": ann.id}
    )
    second = (await api.post("/api/v1/statuses", ann, data={"status": "two"}, headers=headers)).ok()
    third = (await api.post("/api/v1/statuses", ann, data={"status": "three"}, headers=headers)).ok()
    assert second["id"] != first["id"]
    assert third["id"] == second["id"]


async def test_a_key_that_is_too_long_is_refused(api: Api) -> None:
    ann = await api.person("ann")
    (await api.post("/api/v1/statuses", ann, data={"status": "x"}, headers={"Idempotency-Key": "k" * 256})).fails(400)


@pytest.mark.parametrize(
    ("visibility", "stranger", "follower", "mentioned", "anybody"),
    [
        ("public", True, True, True, True),
        ("unlisted", True, True, True, True),
        ("private", False, True, True, False),
        ("direct", False, False, True, False),
    ],
)
async def test_visibility_holds_wherever_a_status_can_be_read(
    api: Api, visibility: str, stranger: bool, follower: bool, mentioned: bool, anybody: bool
) -> None:
    ann, bob, carol, dave = await api.people("ann", "bob", "carol", "dave")
    await api.follow(carol, ann)
    posted = await api.status(ann, f"x @{dave.username}", visibility=visibility)
    for viewer, sees in ((ann, True), (bob, stranger), (carol, follower), (dave, mentioned), (None, anybody)):
        single = await api.get(f"/api/v1/statuses/{posted['id']}", viewer)
        assert (single.status == 200) is sees, viewer
        assert (posted["id"] in await posts_of(api, ann, viewer)) is sees
        many = (await api.get(f"/api/v1/statuses?id[]={posted['id']}", viewer)).ok()
        assert bool(many) is sees
        for path in ("context", "reblogged_by", "history"):
            assert ((await api.get(f"/api/v1/statuses/{posted['id']}/{path}", viewer)).status == 200) is sees


async def test_somebody_who_is_blocked_sees_nothing_of_the_blocker(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    posted = await api.status(ann, "x #blocktest")
    repost = (await api.post(f"/api/v1/statuses/{posted['id']}/reblog", carol)).ok()
    (await api.post(f"/api/v1/accounts/{bob.id}/block", ann)).ok()
    (await api.get(f"/api/v1/statuses/{posted['id']}", bob)).fails(404)
    (await api.get(f"/api/v1/statuses/{repost['id']}", bob)).fails(404)
    assert await posts_of(api, carol, bob) == []
    assert posted["id"] not in [entity["id"] for entity in (await api.get("/api/v1/timelines/tag/blocktest", bob)).ok()]


async def test_a_thread_is_shown_from_both_ends(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    top = await api.status(ann, "top")
    middle = await api.status(bob, "middle", in_reply_to_id=top["id"])
    hidden = await api.status(ann, "for me", in_reply_to_id=middle["id"], visibility="direct")
    leaf = await api.status(ann, "leaf", in_reply_to_id=middle["id"])
    assert middle["in_reply_to_account_id"] == ann.id
    seen = (await api.get(f"/api/v1/statuses/{middle['id']}/context", bob)).ok()
    assert [entity["id"] for entity in seen["ancestors"]] == [top["id"]]
    assert [entity["id"] for entity in seen["descendants"]] == [leaf["id"]]
    mine = (await api.get(f"/api/v1/statuses/{top['id']}/context", ann)).ok()
    assert [entity["id"] for entity in mine["descendants"]] == [middle["id"], hidden["id"], leaf["id"]]
    await api.once(f"/api/v1/statuses/{middle['id']}", None, lambda status: status["replies_count"] == 1)


async def test_a_reply_outlives_what_it_answers(api: Api) -> None:
    ann = await api.person("ann")
    top = await api.status(ann, "top")
    reply = await api.status(ann, "reply", in_reply_to_id=top["id"])
    (await api.request("DELETE", f"/api/v1/statuses/{top['id']}", ann)).ok()
    left = (await api.get(f"/api/v1/statuses/{reply['id']}")).ok()
    assert left["in_reply_to_id"] is None
    assert left["in_reply_to_account_id"] == ann.id


async def test_only_the_author_deletes_and_gets_the_text_back(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "a & b")
    (await api.request("DELETE", f"/api/v1/statuses/{posted['id']}", bob)).fails(404)
    gone = (await api.request("DELETE", f"/api/v1/statuses/{posted['id']}", ann)).ok()
    assert gone["text"] == "a & b"
    (await api.get(f"/api/v1/statuses/{posted['id']}", ann)).fails(404)
    (await api.request("DELETE", f"/api/v1/statuses/{posted['id']}", ann)).fails(404)


async def test_a_repost_is_made_once_counted_and_taken_back(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "x")
    answers = await asyncio.gather(*(api.post(f"/api/v1/statuses/{posted['id']}/reblog", bob) for _ in range(5)))
    assert len({answer.ok()["id"] for answer in answers}) == 1
    repost = answers[0].json
    assert repost["reblog"]["id"] == posted["id"]
    assert (repost["reblog"]["reblogs_count"], repost["reblog"]["reblogged"]) == (1, True)
    people = (await api.get(f"/api/v1/statuses/{posted['id']}/reblogged_by")).ok()
    assert [account["id"] for account in people] == [bob.id]
    through = (await api.post(f"/api/v1/statuses/{repost['id']}/reblog", ann)).ok()
    assert through["reblog"]["id"] == posted["id"]
    page = await api.get(f"/api/v1/statuses/{posted['id']}/reblogged_by?limit=1")
    assert [account["id"] for account in page.ok()] == [ann.id]
    rest = await api.get(page.headers["Link"].split(">")[0].lstrip("<"))
    assert [account["id"] for account in rest.ok()] == [bob.id]
    undone = (await api.post(f"/api/v1/statuses/{posted['id']}/unreblog", bob)).ok()
    assert (undone["id"], undone["reblogged"], undone["reblogs_count"]) == (posted["id"], False, 1)
    (await api.get(f"/api/v1/statuses/{repost['id']}", ann)).fails(404)
    (await api.post(f"/api/v1/statuses/{posted['id']}/unreblog", bob)).ok()


async def test_only_the_author_reposts_what_is_private_and_nobody_what_is_direct(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await api.follow(bob, ann)
    private = await api.status(ann, "x", visibility="private")
    direct = await api.status(ann, f"@{bob.username}", visibility="direct")
    (await api.post(f"/api/v1/statuses/{private['id']}/reblog", bob)).fails(403)
    assert (await api.post(f"/api/v1/statuses/{private['id']}/reblog", ann)).ok()["visibility"] == "private"
    (await api.post(f"/api/v1/statuses/{direct['id']}/reblog", bob)).fails(403)


async def test_an_edit_keeps_the_version_before(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "one #a")
    (await api.request("PUT", f"/api/v1/statuses/{posted['id']}", bob, data={"status": "x"})).fails(404)
    edited = (await api.request("PUT", f"/api/v1/statuses/{posted['id']}", ann, data={"status": "two #b"})).ok()
    assert edited["edited_at"] is not None
    assert [tag["name"] for tag in edited["tags"]] == ["b"]
    versions = (await api.get(f"/api/v1/statuses/{posted['id']}/history")).ok()
    assert ["one" in versions[0]["content"], "two" in versions[1]["content"]] == [True, True]
    assert versions[0]["created_at"] == posted["created_at"]
    assert versions[1]["created_at"] == edited["edited_at"]
    assert (await api.get(f"/api/v1/statuses/{posted['id']}/source", ann)).ok()["text"] == "two #b"
    same = (await api.request("PUT", f"/api/v1/statuses/{posted['id']}", ann, data={"status": "two #b"})).ok()
    assert same["edited_at"] == edited["edited_at"]


async def test_a_profile_is_paged_and_filtered(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    other = await api.status(bob, "other")
    first = await api.status(ann, "first #only")
    own_reply = await api.status(ann, "to myself", in_reply_to_id=first["id"])
    reply = await api.status(ann, "reply", in_reply_to_id=other["id"])
    repost = (await api.post(f"/api/v1/statuses/{other['id']}/reblog", ann)).ok()
    everything = [repost["id"], reply["id"], own_reply["id"], first["id"]]
    assert await posts_of(api, ann) == everything
    assert await posts_of(api, ann, query="?exclude_replies=true") == [repost["id"], own_reply["id"], first["id"]]
    assert await posts_of(api, ann, query="?exclude_reblogs=1") == everything[1:]
    assert await posts_of(api, ann, query="?tagged=ONLY") == [first["id"]]
    assert await posts_of(api, ann, query="?only_media=true") == []
    assert await posts_of(api, ann, query="?pinned=true") == []
    walked, address = [], f"/api/v1/accounts/{ann.id}/statuses?limit=2"
    for _ in range(2):
        page = await api.get(address)
        walked += [entity["id"] for entity in page.ok()]
        address = page.headers["Link"].split(">")[0].lstrip("<")
    assert walked == everything
    assert (await api.get(address)).ok() == []


async def test_public_and_tag_timelines_show_what_is_public(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    tag = f"t{ann.username}"
    public = await api.status(ann, f"x #{tag}")
    both = await api.status(ann, f"x #{tag} #also{tag}")
    unlisted = await api.status(ann, f"x #{tag}", visibility="unlisted")
    reply = await api.status(bob, f"x #{tag}", in_reply_to_id=public["id"])
    seen = [entity["id"] for entity in (await api.get("/api/v1/timelines/public?limit=40")).ok()]
    assert {public["id"], both["id"]} <= set(seen)
    assert not {unlisted["id"], reply["id"]} & set(seen)

    async def tagged(query: str = "", viewer: Person | None = None) -> list[str]:
        return [entity["id"] for entity in (await api.get(f"/api/v1/timelines/tag/{tag}{query}", viewer)).ok()]

    assert await tagged() == [reply["id"], both["id"], public["id"]]
    assert await tagged(f"?all[]=also{tag}") == [both["id"]]
    assert await tagged(f"?none[]=also{tag}") == [reply["id"], public["id"]]
    (await api.post(f"/api/v1/accounts/{bob.id}/mute", ann)).ok()
    assert await tagged("", ann) == [both["id"], public["id"]]
