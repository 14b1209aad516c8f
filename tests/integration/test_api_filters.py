"""Filters over the real servers: kept, changed, and shown with every status that they match."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")

V2 = "/api/v2/filters"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[Api]:
    stack.fanline("migrate")
    async with running_api(stack.settings) as running:
        yield running


async def make(api: Api, who: Person, *words: str, **fields: Any) -> dict[str, Any]:
    form = {
        "title": "no",
        "context": ["home"],
        "keywords_attributes": [{"keyword": word, "whole_word": True} for word in words],
        **fields,
    }
    entity: dict[str, Any] = (await api.post(V2, who, json=form)).ok()
    return entity


async def change(api: Api, who: Person, entity: dict[str, Any], **fields: Any) -> dict[str, Any]:
    changed: dict[str, Any] = (await api.request("PUT", f"{V2}/{entity['id']}", who, json=fields)).ok()
    return changed


async def filtered(api: Api, who: Person | None, status: dict[str, Any]) -> Any:
    """What the filters of a person say about a status."""
    return (await api.get(f"/api/v1/statuses/{status['id']}", who)).ok().get("filtered")


async def test_a_filter_is_made_changed_and_removed(api: Api) -> None:
    ann = await api.person("ann")
    made = await make(api, ann, "tea", "coffee", filter_action="hide", expires_in=3600)
    assert made == {
        "id": made["id"],
        "title": "no",
        "context": ["home"],
        "expires_at": made["expires_at"],
        "filter_action": "hide",
        "keywords": made["keywords"],
        "statuses": [],
    }
    assert {each["keyword"]: each["whole_word"] for each in made["keywords"]} == {"tea": True, "coffee": True}
    assert (await api.get(V2, ann)).ok() == [made]
    assert (await api.get(f"{V2}/{made['id']}", ann)).ok() == made
    tea, coffee = sorted(made["keywords"], key=lambda each: each["keyword"], reverse=True)
    changed = await change(
        api,
        ann,
        made,
        title="yes",
        context=["public", "thread"],
        expires_in=None,
        keywords_attributes=[
            {"id": tea["id"], "keyword": "green tea"},
            {"id": coffee["id"], "_destroy": True},
            {"keyword": "milk", "whole_word": False},
        ],
    )
    assert (changed["title"], changed["context"], changed["filter_action"]) == ("yes", ["public", "thread"], "hide")
    assert changed["expires_at"] is None
    words = {each["keyword"]: (each["id"] == tea["id"], each["whole_word"]) for each in changed["keywords"]}
    assert words == {"green tea": (True, True), "milk": (False, False)}
    assert await change(api, ann, made) == changed, "what is absent stays"
    (await api.request("DELETE", f"{V2}/{made['id']}", ann)).ok()
    assert (await api.get(V2, ann)).ok() == []
    (await api.get(f"{V2}/{made['id']}", ann)).fails(404)


async def test_a_filter_comes_from_a_form_as_well(api: Api) -> None:
    ann = await api.person("ann")
    form = [
        ("title", "no"),
        ("context[]", "home"),
        ("context[]", "account"),
        ("expires_in", ""),
        ("keywords_attributes[][keyword]", "tea"),
        ("keywords_attributes[][whole_word]", "false"),
        ("keywords_attributes[][keyword]", "coffee"),
    ]
    made = (await api.post(V2, ann, data=form)).ok()
    words = {each["keyword"]: each["whole_word"] for each in made["keywords"]}
    assert (made["context"], made["expires_at"], words) == (["home", "account"], None, {"tea": False, "coffee": True})


async def test_keywords_and_statuses_are_things_of_their_own(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(bob, "x")
    made = await make(api, ann)
    word = (await api.post(f"{V2}/{made['id']}/keywords", ann, json={"keyword": "tea"})).ok()
    assert (await api.get(f"{V2}/keywords/{word['id']}", ann)).ok() == word == {**word, "keyword": "tea"}
    changed = (await api.request("PUT", f"{V2}/keywords/{word['id']}", ann, json={"whole_word": False})).ok()
    assert changed == {**word, "whole_word": False}
    single = (await api.post(f"{V2}/{made['id']}/statuses", ann, json={"status_id": posted["id"]})).ok()
    again = (await api.post(f"{V2}/{made['id']}/statuses", ann, json={"status_id": posted["id"]})).ok()
    assert again == single == {"id": single["id"], "status_id": posted["id"]}
    assert (await api.get(f"{V2}/statuses/{single['id']}", ann)).ok() == single
    assert (await api.get(f"{V2}/{made['id']}/keywords", ann)).ok() == [changed]
    assert (await api.get(f"{V2}/{made['id']}/statuses", ann)).ok() == [single]
    (result,) = await filtered(api, ann, posted)
    assert (result["keyword_matches"], result["status_matches"]) == (None, [posted["id"]])
    for path in (f"keywords/{word['id']}", f"statuses/{single['id']}"):
        (await api.get(f"{V2}/{path}", bob)).fails(404)
        (await api.request("DELETE", f"{V2}/{path}", bob)).fails(404)
        (await api.request("DELETE", f"{V2}/{path}", ann)).ok()
        (await api.get(f"{V2}/{path}", ann)).fails(404)
    assert await filtered(api, ann, posted) == []


async def test_a_match_is_shown_wherever_the_status_is(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    made = await make(api, ann, "tea")
    posted = await api.status(bob, f"Tea, @{ann.username}?")
    poll = {"options": ["coffee", "tea"], "expires_in": 600}
    asked = await api.status(bob, "or", poll=poll)
    repost = (await api.post(f"/api/v1/statuses/{posted['id']}/reblog", bob)).ok()
    harmless = await api.status(bob, "a teapot")
    expected = {
        "filter": {name: value for name, value in made.items() if name not in ("keywords", "statuses")},
        "keyword_matches": ["Tea"],
        "status_matches": None,
    }
    assert await filtered(api, ann, posted) == [expected]
    assert [result["keyword_matches"] for result in await filtered(api, ann, asked)] == [["tea"]]
    shown = (await api.get(f"/api/v1/statuses/{repost['id']}", ann)).ok()
    assert shown["filtered"] == shown["reblog"]["filtered"] == [expected]
    assert await filtered(api, ann, harmless) == []
    assert await filtered(api, bob, posted) == []
    assert await filtered(api, None, posted) is None
    listed = (await api.get(f"/api/v1/accounts/{bob.id}/statuses", ann)).ok()
    assert [bool(status["filtered"]) for status in listed] == [False, True, True, True]


async def test_a_filter_ends_by_itself(api: Api) -> None:
    ann = await api.person("ann")
    posted = await api.status(ann, "tea")
    made = await make(api, ann, "tea", expires_in=3600)
    assert len(await filtered(api, ann, posted)) == 1
    await change(api, ann, made, expires_in=0)
    assert await filtered(api, ann, posted) == []


async def test_nobody_reads_or_changes_the_filters_of_others(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    made = await make(api, ann, "tea")
    path = f"{V2}/{made['id']}"
    for method in ("GET", "PUT", "DELETE"):
        (await api.request(method, path, bob)).fails(404)
    (await api.post(f"{path}/keywords", bob, json={"keyword": "x"})).fails(404)
    (await api.get(f"{path}/keywords", bob)).fails(404)
    (await api.request("GET", V2)).fails(401)
    private = await api.status(ann, "x", visibility="private")
    theirs = await make(api, bob)
    (await api.post(f"{V2}/{theirs['id']}/statuses", bob, json={"status_id": private["id"]})).fails(404)
    keyword = {"id": made["keywords"][0]["id"], "keyword": "mine"}
    (await api.request("PUT", f"{V2}/{theirs['id']}", bob, json={"keywords_attributes": [keyword]})).fails(404)
    assert (await api.get(path, ann)).ok() == made


@pytest.mark.parametrize(
    "form",
    [
        {"title": " "},
        {"title": "x" * 257},
        {"context": []},
        {"context": ["nowhere"]},
        {"filter_action": "explode"},
        {"expires_in": "soon"},
        {"expires_in": -1},
        {"keywords_attributes": [{"keyword": ""}]},
        {"keywords_attributes": [{"keyword": "x" * 513}]},
        {"keywords_attributes": [{}]},
        {"keywords_attributes": [{"keyword": f"{n}"} for n in range(201)]},
    ],
)
async def test_a_filter_that_cannot_be_kept_is_refused(api: Api, form: dict[str, Any]) -> None:
    ann = await api.person("ann")
    (await api.post(V2, ann, json={"title": "x", "context": ["home"], **form})).fails(422)
    assert (await api.get(V2, ann)).ok() == []


async def test_older_clients_see_each_keyword_as_a_filter(api: Api) -> None:
    ann = await api.person("ann")
    form = {"phrase": "tea", "context[]": "home", "whole_word": "true", "irreversible": "true", "expires_in": "60"}
    first = (await api.post("/api/v1/filters", ann, data=form)).ok()
    assert first == {
        "id": first["id"],
        "phrase": "tea",
        "context": ["home"],
        "whole_word": True,
        "expires_at": first["expires_at"],
        "irreversible": True,
    }
    (made,) = (await api.get(V2, ann)).ok()
    assert (made["title"], made["filter_action"]) == ("tea", "hide")
    (await api.post(f"{V2}/{made['id']}/keywords", ann, json={"keyword": "coffee"})).ok()
    assert {each["phrase"] for each in (await api.get("/api/v1/filters", ann)).ok()} == {"tea", "coffee"}
    path = f"/api/v1/filters/{first['id']}"
    (await api.request("PUT", path, ann, json={"irreversible": False})).fails(422)
    changed = (await api.request("PUT", path, ann, json={"phrase": "green tea", "irreversible": True})).ok()
    assert (await api.get(path, ann)).ok() == changed == {**first, "phrase": "green tea"}
    for each in (await api.get("/api/v1/filters", ann)).ok():
        (await api.request("DELETE", f"/api/v1/filters/{each['id']}", ann)).ok()
    assert (await api.get(V2, ann)).ok() == []
    (await api.get(path, ann)).fails(404)


async def test_a_filter_comes_and_goes_in_a_home_timeline_from_redis(system: Stack, api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await api.follow(ann, bob)
    posted = await api.status(bob, "tea")

    def words(statuses: Any) -> list[list[str]]:
        return [result["keyword_matches"] for status in statuses for result in status["filtered"]]

    assert words(await api.home_from_redis(ann)) == []
    made = await make(api, ann, "tea")
    assert words((await api.get("/api/v1/timelines/home", ann)).ok()) == [["tea"]]
    assert words(await api.home_from_redis(ann)) == [["tea"]]
    (word,) = made["keywords"]
    (await api.request("PUT", f"{V2}/keywords/{word['id']}", ann, json={"keyword": "coffee"})).ok()
    assert words(await api.home_from_redis(ann)) == []
    await change(api, ann, made, keywords_attributes=[{"keyword": "tea"}])
    assert words(await api.home_from_redis(ann)) == [["tea"]]
    (await api.request("DELETE", f"{V2}/{made['id']}", ann)).ok()
    assert words(await api.home_from_redis(ann)) == []
    assert (await api.get(f"/api/v1/statuses/{posted['id']}", ann)).ok()["filtered"] == []
