"""Search over the whole way: writes over REST, the flow, OpenSearch, and searches over REST."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain, product
from typing import Any
from unittest import mock
from uuid import UUID

import pytest

from fanline.database import connect
from readmodels.search import POSTS, USERS
from sinks.opensearch_client import OpenSearchClient
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

SEARCH = "/api/v2/search"


@pytest.fixture
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings, search_timeout_seconds=15) as made:
        yield made


def word() -> str:
    """A word that nobody has ever written."""
    return "w" + secrets.token_hex(5)


async def until(reached: Callable[[], Awaitable[bool]], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not await reached():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def search(api: Api, who: Person | None, q: str, **more: Any) -> dict[str, Any]:
    answer = await api.get(SEARCH, who, params={"q": q, **more})
    found: dict[str, Any] = answer.ok()
    assert answer.headers["Fanline-Search"] == "opensearch"
    return found


async def found_ids(api: Api, who: Person | None, q: str, **more: Any) -> list[str]:
    return [status["id"] for status in (await search(api, who, q, type="statuses", **more))["statuses"]]


async def until_found(api: Api, who: Person | None, q: str, ids: list[str], **more: Any) -> None:
    async def same() -> bool:
        return sorted(await found_ids(api, who, q, **more)) == sorted(ids)

    await until(same, f"{q} finds {ids}, not {await found_ids(api, who, q, **more)}")


def change_user(stack: Stack, person: Person, assignment: str) -> None:
    with connect(stack.settings, autocommit=True) as connection:
        connection.execute(f"UPDATE users SET {assignment} WHERE id = %s".encode(), [UUID(person.id)])


async def test_a_post_is_found_by_others_until_it_is_deleted(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    rare = word()
    post = await api.status(ada, f"The {rare} sings at night")
    # Its author finds it at once, whatever the index knows.
    assert await found_ids(api, ada, rare) == [post["id"]]
    await until_found(api, bob, rare, [post["id"]])
    assert await found_ids(api, bob, f'"{rare} sings"') == [post["id"]]
    assert await found_ids(api, bob, f'"sings {rare}"') == []
    assert await found_ids(api, bob, f"{rare} -night") == []
    (await api.request("PUT", f"/api/v1/statuses/{post['id']}", ada, json={"status": f"{rare} no more songs"})).ok()
    await until_found(api, bob, f"{rare} songs -sings", [post["id"]])
    (await api.request("DELETE", f"/api/v1/statuses/{post['id']}", ada)).ok()
    assert await found_ids(api, ada, rare) == []
    assert await found_ids(api, bob, rare) == []


async def test_words_are_found_by_their_stems_in_the_posts_language_and_without_accents(api: Api) -> None:
    ada = await api.person("ada")
    rare = word()
    german = await api.status(ada, f"Die Häuser {rare}", language="de")
    french = await api.status(ada, f"Les chevaux {rare} élevés", language="fr-CA")
    norwegian = await api.status(ada, f"Guttene {rare}", language="nb-NO")
    await until_found(api, None, rare, [german["id"], french["id"], norwegian["id"]])
    assert await found_ids(api, None, f"{rare} Haus") == [german["id"]]
    assert await found_ids(api, None, f"{rare} cheval") == [french["id"]]
    assert await found_ids(api, None, f"{rare} eleves") == [french["id"]]
    assert await found_ids(api, None, f"{rare} language:fr") == [french["id"]]
    assert await found_ids(api, None, f"{rare} gutt") == [norwegian["id"]]
    assert await found_ids(api, None, f"{rare} language:nb") == [norwegian["id"]]


async def test_only_public_posts_of_people_who_let_them_be_indexed_are_found(api: Api, system: Stack) -> None:
    ada, bob = await api.people("ada", "bob")
    rare = word()
    public = await api.status(ada, rare)
    for visibility in ("unlisted", "private", "direct"):
        await api.status(ada, f"{rare} {visibility}", visibility=visibility)
    await until_found(api, bob, rare, [public["id"]])
    assert await found_ids(api, ada, rare) == [public["id"]]
    changes = [
        ("indexable = false", "indexable = true"),
        ("silenced_at = now()", "silenced_at = NULL"),
        ("suspended_at = now()", "suspended_at = NULL"),
    ]
    for hide, show in changes:
        change_user(system, ada, hide)
        await until_found(api, bob, rare, [])
        change_user(system, ada, show)
        await until_found(api, bob, rare, [public["id"]])


async def test_a_deleted_account_leaves_nothing_in_the_indexes(api: Api, system: Stack) -> None:
    ada = await api.person("ada")
    posts = [(await api.status(ada, word()))["id"] for _ in range(3)]
    client = OpenSearchClient(system.settings)

    def left() -> int:
        prefix = system.settings.search_prefix
        people = client.documents(USERS.read_alias(prefix), [ada.id])
        return len(people) + len(client.documents(POSTS.read_alias(prefix), posts))

    async def all_there() -> bool:
        return await asyncio.to_thread(left) == 4

    async def all_gone() -> bool:
        return await asyncio.to_thread(left) == 0

    try:
        await until(all_there, "the account and its posts are in the indexes")
        with connect(system.settings, autocommit=True) as connection:
            connection.execute("DELETE FROM users WHERE id = %s", [UUID(ada.id)])
        await until(all_gone, "the account and its posts are gone from the indexes")
    finally:
        client.close()


async def test_people_are_found_by_the_beginning_of_handle_and_name_the_followed_ones_first(api: Api) -> None:
    start = word()
    plain, famous, fan = await api.people(f"{start}a", f"{start}b", "fan")
    await api.follow(fan, famous)
    name = word()
    (
        await api.request("PATCH", "/api/v1/accounts/update_credentials", plain, json={"display_name": f"Zoë {name}"})
    ).ok()

    async def handles(q: str, **more: Any) -> list[str]:
        return [account["username"] for account in (await search(api, fan, q, type="accounts", **more))["accounts"]]

    async def both() -> bool:
        return await handles(f"@{start}") == [famous.username, plain.username]

    await until(both, f"{start} finds both, not {await handles(start)}")
    # Without the index: a whole handle is found at once.
    assert await handles(plain.username) == [plain.username]
    assert await handles(f"@{plain.username}@{api.context.domain}") == [plain.username]
    assert await handles(f"@{plain.username}@elsewhere.example") == []

    async def by_name() -> bool:
        return await handles(f"zoe {name[:6]}") == [plain.username]

    await until(by_name, "the new name is found without its accent")
    assert await handles(start, following="true") == [famous.username]
    answer = (await api.get("/api/v1/accounts/search", fan, params={"q": start, "limit": 1})).ok()
    assert [account["username"] for account in answer] == [famous.username]


async def test_who_blocks_the_viewer_is_not_found(api: Api) -> None:
    ada, bob, cyd = await api.people("ada", "bob", "cyd")
    rare = word()
    post = await api.status(ada, rare)
    await until_found(api, bob, rare, [post["id"]])
    (await api.post(f"/api/v1/accounts/{bob.id}/block", ada)).ok()
    (await api.post(f"/api/v1/accounts/{ada.id}/mute", cyd)).ok()
    assert await found_ids(api, bob, rare) == []
    assert (await search(api, bob, ada.username, type="accounts"))["accounts"] == []
    assert await found_ids(api, cyd, rare) == []
    assert await found_ids(api, None, rare) == [post["id"]]


async def test_whom_the_viewer_has_blocked_is_not_found_either(api: Api, system: Stack) -> None:
    async with running_api(system.settings, opensearch_url="http://127.0.0.1:9") as without_index:
        ada, bob = await api.people(f"a{word()}", f"b{word()}")
        rare = word()
        post = await api.status(bob, rare)
        await until_found(api, ada, rare, [post["id"]])

        async def people(through: Api, who: Person, q: str) -> list[str]:
            answers = [
                (await through.get(SEARCH, who, params={"q": q, "type": "accounts"})).ok()["accounts"],
                (await through.get("/api/v1/accounts/search", who, params={"q": q})).ok(),
            ]
            assert answers[0] == answers[1]
            return [account["id"] for account in answers[0]]

        async def both() -> bool:
            return await people(api, ada, bob.username[:8]) == [bob.id] and await people(
                api, bob, ada.username[:8]
            ) == [ada.id]

        await until(both, "the index has both")
        (await api.post(f"/api/v1/accounts/{bob.id}/block", ada)).ok()
        for through in (api, without_index):
            for blocker, other in ((ada, bob), (bob, ada)):
                for q in (other.username, f"@{other.username}", other.username[:8]):
                    assert await people(through, blocker, q) == [], q
            assert (await through.get(SEARCH, ada, params={"q": rare, "type": "statuses"})).ok()["statuses"] == []
            assert await people(through, ada, ada.username) == [ada.id]
        # Whoever has the address may still go there, to take the block back.
        address = f"{api.context.public_url}/@{bob.username}"
        assert [each["id"] for each in (await search(api, ada, address))["accounts"]] == [bob.id]
        assert (await search(api, bob, f"{api.context.public_url}/@{ada.username}"))["accounts"] == []
        (await api.post(f"/api/v1/accounts/{bob.id}/unblock", ada)).ok()
        assert await both()
        assert await found_ids(api, ada, rare) == [post["id"]]


async def test_only_hashtags_that_a_moderator_has_allowed_are_found_if_that_is_wanted(api: Api, system: Stack) -> None:
    ada, mod = await api.people("ada", "mod")
    with connect(system.settings, autocommit=True) as connection:
        connection.execute("UPDATE identities SET role = 'moderator' WHERE user_id = %s", [UUID(mod.id)])
    name = word()
    await api.status(ada, f"#{name}")

    async def names(**more: str) -> list[str]:
        return [tag["name"] for tag in (await search(api, ada, f"#{name}", type="hashtags", **more))["hashtags"]]

    assert (await names(), await names(exclude_unreviewed="true")) == ([name], [])
    (await api.post(f"/api/v1/admin/trends/tags/{name}/approve", mod)).ok()
    assert (await names(), await names(exclude_unreviewed="true")) == ([name], [name])
    (await api.post(f"/api/v1/admin/trends/tags/{name}/reject", mod)).ok()
    assert (await names(), await names(exclude_unreviewed="true")) == ([name], [])


async def test_to_resolve_is_to_find_what_is_here(api: Api) -> None:
    """There are no other servers to ask: what is not here is not found, and nothing fails."""
    ada = await api.person("ada")
    post = await api.status(ada, word())
    address = f"{api.context.public_url}/@{ada.username}"
    for who, resolve in product((ada, None), ("true", "false")):
        assert [each["id"] for each in (await search(api, who, address, resolve=resolve))["accounts"]] == [ada.id]
        found = await search(api, who, f"{address}/{post['id']}", resolve=resolve)
        assert [each["id"] for each in found["statuses"]] == [post["id"]]
        for q in ("@nobody@elsewhere.example", "https://elsewhere.example/@nobody/1", f"{address}/1"):
            found = await search(api, who, q, resolve=resolve)
            assert found == {"accounts": [], "statuses": [], "hashtags": []}, q


async def test_hashtags_are_found_by_their_beginning_the_most_used_first(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    start = word()
    await api.status(ada, f"#{start}one")
    await api.status(bob, f"#{start}two #Caps{start}")
    await api.status(ada, f"#{start}two")
    await api.status(ada, f"#{start}secret", visibility="private")

    async def names(q: str) -> list[str]:
        return [tag["name"] for tag in (await search(api, bob, q, type="hashtags"))["hashtags"]]

    async def ranked() -> bool:
        return await names(f"#{start}") == [f"{start}two", f"{start}one"]

    await until(ranked, f"not {await names(start)}")
    tag = (await search(api, bob, f"#{start}two", type="hashtags"))["hashtags"][0]
    assert (tag["history"][0]["uses"], tag["history"][0]["accounts"], tag["following"]) == ("2", "2", False)
    assert len(tag["history"]) == 7
    assert (await api.post(f"/api/v1/tags/{start}TWO/follow", bob)).ok()["following"] is True
    assert [each["name"] for each in (await api.get("/api/v1/followed_tags", bob)).ok()] == [f"{start}two"]
    assert (await api.post(f"/api/v1/tags/{start}two/unfollow", bob)).ok()["following"] is False
    assert await found_ids(api, bob, f"#caps{start}") == [
        status["id"] for status in (await api.get(f"/api/v1/timelines/tag/caps{start}")).ok()
    ]


async def test_results_come_in_pages_and_between_ids(api: Api) -> None:
    ada = await api.person("ada")
    rare = word()
    ids = [(await api.status(ada, f"{rare} {number}"))["id"] for number in range(5)]
    await until_found(api, None, rare, ids)
    pages = [await found_ids(api, None, rare, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(chain.from_iterable(pages)) == sorted(ids)
    assert await found_ids(api, None, rare, max_id=ids[3], limit=2) == [ids[2], ids[1]]
    assert await found_ids(api, None, rare, min_id=ids[1], limit=2) == [ids[3], ids[2]]
    assert await found_ids(api, None, rare, account_id=ada.id) == await found_ids(api, None, rare)
    assert await found_ids(api, None, f"from:{ada.username}", max_id=ids[1]) == [ids[0]]
    assert (await search(api, None, f"{api.context.public_url}/@{ada.username}/{ids[0]}"))["statuses"][0]["id"] == ids[
        0
    ]


async def test_pages_show_each_hit_once_and_in_order_to_whoever_has_written_some_of_them(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    rare = word()
    ids = [(await api.status(person, f"{rare} {number}"))["id"] for number in range(5) for person in (ada, bob)]
    await until_found(api, None, rare, ids, limit=40)
    for who in (ada, bob):
        own = ids[who is bob :: 2]
        pages = [await found_ids(api, who, rare, limit=3, offset=offset) for offset in range(0, 12, 3)]
        assert [len(page) for page in pages] == [3, 3, 3, 1]
        shown = list(chain.from_iterable(pages))
        assert (shown[:5], sorted(shown)) == (own[::-1], sorted(ids))
        up, down = [ids[0]], [ids[-1]]
        while page := await found_ids(api, who, rare, limit=2, min_id=up[-1]):
            up += page[::-1]
        while page := await found_ids(api, who, rare, limit=2, max_id=down[-1]):
            down += page
        assert (up, down) == (ids, ids[::-1])
        for offset in (2, 4):
            assert (
                await found_ids(api, who, rare, limit=2, offset=offset, min_id=ids[0]) == ids[offset + 2 : offset : -1]
            )
        with mock.patch("api.search.MAX_OFFSET", 4):
            assert await found_ids(api, who, rare, limit=3, offset=4) == shown[4:7]
            assert await found_ids(api, who, rare, limit=3, offset=5) == []


async def test_people_and_hashtags_that_are_called_exactly_so_push_nothing_out_of_the_pages(api: Api) -> None:
    start = word()
    people = await api.people(*(f"{start}{letter}" for letter in "abc"))
    for letter in ("", "a", "b", "b"):
        await api.status(people[0], f"#{start}{letter}")

    async def pages(kind: str, name: str) -> list[str]:
        shown = []
        for offset in range(4):
            shown += (await search(api, people[0], start, type=kind, limit=1, offset=offset))[kind]
        return [each[name] for each in shown]

    async def all_there() -> bool:
        return (
            sorted(await pages("accounts", "username")) == sorted(person.username for person in people)
            and await pages("hashtags", "name") == [start, f"{start}b", f"{start}a"]
        )  # fmt: skip

    await until(all_there, f"not {await pages('accounts', 'username')}, {await pages('hashtags', 'name')}")
    with mock.patch("api.search.MAX_OFFSET", 1):
        assert len(await pages("accounts", "username")) == len(await pages("hashtags", "name")) == 2
        for offset in (1, 2):
            answer = await api.get("/api/v1/accounts/search", people[0], params={"q": start, "offset": offset})
            assert len(answer.ok()) == (2 if offset == 1 else 0)


async def test_a_search_that_makes_no_sense_is_refused_in_one_sentence(api: Api) -> None:
    for query in ({}, {"q": " "}, {"q": "x", "max_id": "x"}, {"q": "x", "account_id": "x"}):
        (await api.get(SEARCH, params=query)).fails(400)
    for query in ({"q": "x", "type": "everything"}, {"q": "x" * 501}, {"q": "x", "limit": "0"}):
        (await api.get(SEARCH, params=query)).fails(422)
    (await api.get("/api/v1/accounts/search", params={"q": "x"})).fails(401)
    for odd in ("[", '"', "a/b AND (", "#", "@", "-", "from:", "before:never", "\\", "*" * 50, "😀"):
        assert (await api.get(SEARCH, params={"q": odd})).status == 200, odd


async def test_without_opensearch_the_database_answers(system: Stack) -> None:
    async with running_api(system.settings, opensearch_url="http://127.0.0.1:9") as api:
        ada, bob = await api.people(f"ada{word()}", "bob")
        rare = word()
        post = await api.status(ada, f"{rare} 100% #Tag{rare}")
        await api.status(ada, f"{rare} hidden", visibility="private")
        for _ in range(5):  # the circuit opens on the way
            answer = await api.get(SEARCH, bob, params={"q": f"{rare} 100%"})
            assert [status["id"] for status in answer.ok()["statuses"]] == [post["id"]]
            assert answer.headers["Fanline-Search"] == "database"
        found = (await api.get(SEARCH, bob, params={"q": ada.username[:12]})).ok()
        assert [account["id"] for account in found["accounts"]] == [ada.id]
        found = (await api.get(SEARCH, bob, params={"q": f"#tag{rare[:8]}"})).ok()
        assert [tag["name"] for tag in found["hashtags"]] == [f"tag{rare}"]
        found = (await api.get(SEARCH, bob, params={"q": f"#tag{rare}"})).ok()
        assert [status["id"] for status in found["statuses"]] == [post["id"]]
        answer_to_it = await api.status(bob, f"{rare} too", in_reply_to_id=post["id"])
        for q, wanted in ((f"{rare} is:reply", [answer_to_it]), (rare, [answer_to_it, post])):
            found = (await api.get(SEARCH, bob, params={"q": q})).ok()
            assert [status["id"] for status in found["statuses"]] == [each["id"] for each in wanted], q
        pages = [await api.get(SEARCH, bob, params={"q": rare, "type": "statuses", "offset": n}) for n in (0, 1, 2)]
        assert [len(page.ok()["statuses"]) for page in pages] == [2, 1, 0]
