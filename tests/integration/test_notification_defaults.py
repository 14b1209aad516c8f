"""What is filtered for whoever has set no policy, over the real database; no flow has to run."""

from typing import Any
from uuid import UUID

import pytest

from api.effects import run
from readmodels import notification_rows as rows
from readmodels.notification_rules import Decision, Look, decide
from tests.integration.api_world import Api, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = "UPDATE users SET silenced_at = now() WHERE id = %(id)s"
APPOINT = "UPDATE identities SET role = 'moderator' WHERE user_id = %(id)s"


async def decisions(api: Api, look: Look) -> dict[tuple[str, str, str], Decision]:
    """What is decided of what is found there, by the type, the sender and the recipient."""
    found = await run(rows.find(look), None, api.context.database.rows)
    return {(each.type, str(each.from_account_id), str(each.user_id)): decide(each) for each in found}


async def write(api: Api, author: Person, whom: Person, answered: Any = None, visibility: str = "direct") -> Any:
    fields = {} if answered is None else {"in_reply_to_id": answered["id"]}
    return await api.status(author, f"@{whom.username} hi", visibility=visibility, **fields)


async def mention(api: Api, author: Person, whom: Person, post: Any) -> Decision:
    """Whether somebody is told of a post that mentions them."""
    return (await decisions(api, Look(posts={int(post["id"])})))["mention", author.id, whom.id]


async def test_a_private_mention_is_filtered_unless_the_thread_has_one_of_the_recipients(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    assert await mention(api, bob, ada, await write(api, bob, ada)) == "filter"
    for visibility in ("public", "unlisted", "private"):
        assert await mention(api, bob, ada, await write(api, bob, ada, visibility=visibility)) == "accept"
    # Who is answered has to have written privately, and to the one who answers.
    public = await write(api, ada, bob, visibility="public")
    assert await mention(api, bob, ada, await write(api, bob, ada, public)) == "filter"
    first = await write(api, ada, bob)
    second = await write(api, bob, ada, first)
    assert await mention(api, bob, ada, second) == "accept"
    assert await mention(api, bob, ada, await write(api, bob, ada, second)) == "accept"
    assert await mention(api, bob, eve, await write(api, bob, eve, second)) == "filter"


async def test_who_is_followed_permitted_or_staff_may_write_privately(api: Api) -> None:
    ada, bob, eve, mod = await api.people("ada", "bob", "eve", "mod")
    database = api.context.database
    await api.follow(ada, bob)
    assert await mention(api, bob, ada, await write(api, bob, ada)) == "accept"
    (await api.post(f"/api/v1/notifications/requests/{eve.id}/accept", ada)).ok()
    assert await mention(api, eve, ada, await write(api, eve, ada)) == "accept"
    await database.execute(APPOINT, {"id": mod.id})
    assert await mention(api, mod, ada, await write(api, mod, ada)) == "accept"
    assert await mention(api, ada, mod, await write(api, ada, mod)) == "filter"
    (await api.request("PATCH", "/api/v2/notifications/policy", eve, json={"for_private_mentions": "accept"})).ok()
    assert await mention(api, bob, eve, await write(api, bob, eve)) == "accept"


async def test_limited_people_are_filtered_in_everything_but_what_was_asked_for(api: Api) -> None:
    ada, bob, eve = await api.people("ada", "bob", "eve")
    await api.context.database.execute(LIMIT, {"id": bob.id})
    post = await write(api, ada, eve, visibility="public")
    (await api.post(f"/api/v1/accounts/{bob.id}/follow", eve, json={"notify": True})).ok()
    for who in (bob, eve):
        (await api.post(f"/api/v1/statuses/{post['id']}/favourite", who)).ok()
    likes = Look(favourites={(UUID(who.id), int(post["id"])) for who in (bob, eve)})
    assert await decisions(api, likes) == {
        ("favourite", bob.id, ada.id): "filter",
        ("favourite", eve.id, ada.id): "accept",
    }
    (await api.request("PATCH", "/api/v2/notifications/policy", ada, json={"for_limited_accounts": "drop"})).ok()
    assert (await decisions(api, likes))["favourite", bob.id, ada.id] == "drop"
    assert await mention(api, bob, eve, await write(api, bob, eve, visibility="public")) == "accept"
