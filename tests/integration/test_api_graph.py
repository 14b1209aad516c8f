"""Accounts and the graph between them over the real servers."""

from typing import Any

import pytest

from fanline.avro import AvroDecoder
from schemas import contracts
from tests.integration.api_world import Api, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def act(api: Api, who: Person, verb: str, whom: Person, **fields: Any) -> dict[str, Any]:
    entity: dict[str, Any] = (await api.post(f"/api/v1/accounts/{whom.id}/{verb}", who, json=fields)).ok()
    return entity


async def relation(api: Api, viewer: Person, other: Person) -> dict[str, Any]:
    (entity,) = (await api.get(f"/api/v1/accounts/relationships?id[]={other.id}", viewer)).ok()
    return dict(entity)


async def ids(api: Api, path: str, who: Person | None = None) -> list[str]:
    return [account["id"] for account in (await api.get(path, who)).ok()]


async def test_following_is_seen_from_both_sides_and_ends(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    assert (await act(api, ann, "follow", bob))["following"] is True
    assert (await relation(api, bob, ann))["followed_by"] is True
    assert await ids(api, f"/api/v1/accounts/{bob.id}/followers") == [ann.id]
    assert await ids(api, f"/api/v1/accounts/{ann.id}/following") == [bob.id]
    account = await api.once(f"/api/v1/accounts/{bob.id}", None, lambda account: account["followers_count"] == 1)
    assert account["following_count"] == 0
    assert (await act(api, ann, "unfollow", bob))["following"] is False
    assert await ids(api, f"/api/v1/accounts/{bob.id}/followers") == []


async def test_a_second_follow_changes_only_what_it_names(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    first = await act(api, ann, "follow", bob, reblogs=False, notify=True, languages=["en"])
    assert (first["showing_reblogs"], first["notifying"], first["languages"]) == (False, True, ["en"])
    second = await act(api, ann, "follow", bob, notify=False)
    assert (second["showing_reblogs"], second["notifying"], second["languages"]) == (False, False, ["en"])
    assert await ids(api, f"/api/v1/accounts/{bob.id}/followers") == [ann.id]


async def test_a_locked_account_is_asked_first(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    await api.request("PATCH", "/api/v1/accounts/update_credentials", bob, data={"locked": "true"})
    asked = await act(api, ann, "follow", bob, reblogs=False)
    assert (asked["following"], asked["requested"]) == (False, True)
    await act(api, carol, "follow", bob)
    assert set(await ids(api, "/api/v1/follow_requests", bob)) == {ann.id, carol.id}
    me = (await api.get("/api/v1/accounts/verify_credentials", bob)).ok()
    assert me["source"]["follow_requests_count"] == 2
    (await api.post(f"/api/v1/follow_requests/{ann.id}/authorize", bob)).ok()
    (await api.post(f"/api/v1/follow_requests/{carol.id}/reject", bob)).ok()
    granted = await relation(api, ann, bob)
    assert (granted["following"], granted["requested"], granted["showing_reblogs"]) == (True, False, False)
    assert (await relation(api, carol, bob))["requested"] is False
    (await api.post(f"/api/v1/follow_requests/{carol.id}/authorize", bob)).fails(404)
    assert (await act(api, carol, "follow", bob))["requested"] is True
    assert (await act(api, carol, "unfollow", bob))["requested"] is False


async def test_whoever_is_limited_asks_everybody(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await api.context.database.execute("UPDATE users SET silenced_at = now() WHERE id = %(id)s", {"id": ann.id})
    asked = await act(api, ann, "follow", bob)
    assert (asked["following"], asked["requested"]) == (False, True)
    (await api.post(f"/api/v1/follow_requests/{ann.id}/authorize", bob)).ok()
    assert (await relation(api, ann, bob))["following"] is True


async def test_requests_are_listed_newest_first_and_told_of_once(api: Api) -> None:
    ann, *fans = await api.people("ann", "fan1", "fan2", "fan3", "fan4")
    await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, data={"locked": "true"})
    for fan in fans:
        await act(api, fan, "follow", ann)
        await act(api, fan, "follow", ann, notify=True)
    page = await api.get("/api/v1/follow_requests?limit=3", ann)
    assert [account["id"] for account in page.ok()] == [fan.id for fan in reversed(fans[1:])]
    following = page.headers["Link"].split(">")[0].strip("<")
    assert await ids(api, following, ann) == [fans[0].id]
    await act(api, fans[0], "unfollow", ann)
    (await api.post(f"/api/v1/follow_requests/{fans[1].id}/reject", ann)).ok()
    await act(api, fans[2], "block", ann)
    rows = await api.context.database.rows(
        "SELECT payload FROM outbox WHERE aggregatetype = 'follow.requested' AND aggregateid = %(id)s"
        " ORDER BY created_at",
        {"id": ann.id},
    )
    decoder = AvroDecoder(lambda _: contracts.load()["follow.requested"].text)
    events = [decoder.decode(row["payload"]) for row in rows]
    assert [(event["follower_id"], event["undone"]) for event in events] == [
        *((fan.id, False) for fan in fans),
        *((fan.id, True) for fan in fans[:3]),
    ]
    assert await ids(api, "/api/v1/follow_requests", ann) == [fans[3].id]


async def test_whoever_unlocks_their_account_lets_everybody_in_who_asked(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, data={"locked": "true"})
    await act(api, bob, "follow", ann, reblogs=False)
    await act(api, carol, "follow", ann)
    await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, data={"locked": "false"})
    assert set(await ids(api, f"/api/v1/accounts/{ann.id}/followers")) == {bob.id, carol.id}
    seen = await relation(api, bob, ann)
    assert (seen["following"], seen["requested"], seen["showing_reblogs"]) == (True, False, False)
    rows = await api.context.database.rows(
        "SELECT 1 FROM outbox WHERE aggregatetype = 'follow.created' AND aggregateid = %(id)s", {"id": ann.id}
    )
    assert len(rows) == 2


async def test_a_block_ends_follows_in_both_directions_and_forbids_new_ones(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await act(api, ann, "follow", bob)
    await act(api, bob, "follow", ann)
    blocked = await act(api, ann, "block", bob)
    assert (blocked["blocking"], blocked["following"], blocked["followed_by"]) == (True, False, False)
    assert (await relation(api, bob, ann))["blocked_by"] is True
    assert await ids(api, "/api/v1/blocks", ann) == [bob.id]
    (await api.post(f"/api/v1/accounts/{ann.id}/follow", bob)).fails(403)
    (await api.post(f"/api/v1/accounts/{bob.id}/follow", ann)).fails(403)
    assert (await act(api, ann, "unblock", bob))["blocking"] is False
    assert (await act(api, bob, "follow", ann))["following"] is True


async def test_a_mute_lasts_as_long_as_it_says(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    muted = await act(api, ann, "mute", bob, notifications=False, duration=3600)
    assert (muted["muting"], muted["muting_notifications"]) == (True, False)
    assert muted["muting_expires_at"] is not None
    (listed,) = (await api.get("/api/v1/mutes", ann)).ok()
    assert (listed["id"], listed["mute_expires_at"]) == (bob.id, muted["muting_expires_at"])
    await api.context.database.execute("UPDATE mutes SET expires_at = now() WHERE muter_id = %(id)s", {"id": ann.id})
    assert (await relation(api, ann, bob))["muting"] is False
    assert await ids(api, "/api/v1/mutes", ann) == []
    await act(api, ann, "mute", bob)
    assert (await api.get("/api/v1/mutes", ann)).ok()[0]["mute_expires_at"] is None
    assert (await act(api, ann, "unmute", bob))["muting"] is False


async def test_a_note_is_for_the_one_who_wrote_it(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    assert (await act(api, ann, "note", bob, comment=" met in Oslo "))["note"] == "met in Oslo"
    assert (await act(api, ann, "note", bob, comment="and in Rome"))["note"] == "and in Rome"
    assert (await relation(api, bob, ann))["note"] == ""
    assert (await act(api, ann, "note", bob))["note"] == ""
    (await api.post(f"/api/v1/accounts/{bob.id}/note", ann, json={"comment": "x" * 2_001})).fails(422)


async def test_a_follower_can_be_removed(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await act(api, bob, "follow", ann)
    assert (await act(api, ann, "remove_from_followers", bob))["followed_by"] is False


@pytest.mark.parametrize("verb", ["follow", "block", "mute", "unfollow"])
async def test_nobody_does_anything_to_themselves_or_to_nobody(api: Api, verb: str) -> None:
    ann = await api.person("ann")
    (await api.post(f"/api/v1/accounts/{ann.id}/{verb}", ann)).fails(403)
    (await api.post(f"/api/v1/accounts/{'0' * 32}/{verb}", ann)).fails(404)
    (await api.post(f"/api/v1/accounts/x/{verb}", ann)).fails(404)


@pytest.mark.parametrize(
    ("verb", "form"),
    [
        ("mute", {"duration": -1}),
        ("mute", {"duration": 10**12}),
        ("follow", {"languages": "en"}),
        ("follow", {"notify": 7}),
    ],
)
async def test_a_value_that_cannot_be_used_is_refused(api: Api, verb: str, form: dict[str, Any]) -> None:
    ann, bob = await api.people("ann", "bob")
    (await api.post(f"/api/v1/accounts/{bob.id}/{verb}", ann, json=form)).fails(422)


async def test_followers_are_paged_through_once_in_both_directions(api: Api) -> None:
    bob, *fans = await api.people("bob", *(f"fan{n}" for n in range(5)))
    for fan in fans:
        await api.follow(fan, bob)
    expected = sorted((fan.id for fan in fans), reverse=True)
    down: list[str] = []
    address = f"/api/v1/accounts/{bob.id}/followers?limit=2"
    previous = ""
    while True:
        page = await api.get(address)
        if not page.ok():
            break
        down += [account["id"] for account in page.json]
        following, previous = (part.split(">")[0].strip(" <") for part in page.headers["Link"].split(","))
        address = following
    assert down == expected
    up: list[str] = []
    while page.status == 200:
        page = await api.get(previous)
        if not page.json:
            break
        up = [account["id"] for account in page.json] + up
        previous = page.headers["Link"].split(",")[1].split(">")[0].strip(" <")
    assert up == expected[:4]


async def test_relationships_come_in_the_order_that_was_asked(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    query = f"id[]={carol.id}&id[]={bob.id}&id[]=nonsense&id[]={'0' * 32}"
    found = (await api.get(f"/api/v1/accounts/relationships?{query}", ann)).ok()
    assert [entity["id"] for entity in found] == [carol.id, bob.id]
    (await api.get(f"/api/v1/accounts/relationships?{query}")).fails(401)


async def test_an_account_is_found_by_its_handle(api: Api) -> None:
    ann = await api.person("ann")
    for handle in (ann.username, ann.username.upper(), f"@{ann.username}", f"{ann.username}@{api.context.domain}"):
        assert (await api.get("/api/v1/accounts/lookup", params={"acct": handle})).ok()["id"] == ann.id
    for handle in ("", "nobody_at_all", f"{ann.username}@elsewhere.example"):
        (await api.get("/api/v1/accounts/lookup", params={"acct": handle})).fails(404)


async def test_a_profile_is_changed_field_by_field(api: Api) -> None:
    ann = await api.person("ann")
    form = {
        "display_name": "Ann <3",
        "note": "I like #tea",
        "bot": "true",
        "fields_attributes[0][name]": "web",
        "fields_attributes[0][value]": "https://ann.example",
        "fields_attributes[1][name]": "",
        "source[privacy]": "private",
        "source[language]": "de",
    }
    changed = (await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, data=form)).ok()
    assert (changed["display_name"], changed["bot"], changed["source"]["note"]) == ("Ann <3", True, "I like #tea")
    assert [field["name"] for field in changed["fields"]] == ["web"]
    again = (await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, json={"bot": False})).ok()
    assert again == changed | {"bot": False}
    assert (await api.status(ann, "x"))["visibility"] == "private"
    assert (await api.get("/api/v1/preferences", ann)).ok()["posting:default:visibility"] == "private"


@pytest.mark.parametrize(
    "form",
    [
        {"display_name": "x" * 101},
        {"note": "x" * 5_001},
        {"source": {"privacy": "secret"}},
        {"fields_attributes": [{"name": f"{n}", "value": "x"} for n in range(5)]},
        {"fields_attributes": [{"name": "x", "value": "x" * 256}]},
    ],
)
async def test_a_profile_that_cannot_be_stored_is_refused(api: Api, form: dict[str, Any]) -> None:
    ann = await api.person("ann")
    (await api.request("PATCH", "/api/v1/accounts/update_credentials", ann, json=form)).fails(422)


async def test_markers_remember_how_far_somebody_has_read(api: Api) -> None:
    ann = await api.person("ann")
    assert (await api.get("/api/v1/markers?timeline[]=home", ann)).ok() == {}
    first = (await api.post("/api/v1/markers", ann, data={"home[last_read_id]": "103"})).ok()["home"]
    second = (await api.post("/api/v1/markers", ann, json={"home": {"last_read_id": "104"}})).ok()["home"]
    assert (first["last_read_id"], second["version"] - first["version"]) == ("103", 1)
    assert (await api.get("/api/v1/markers?timeline[]=home&timeline[]=notifications", ann)).ok() == {"home": second}
    (await api.post("/api/v1/markers", ann, data={"home[last_read_id]": "x"})).fails(422)
