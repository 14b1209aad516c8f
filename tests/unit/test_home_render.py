"""A page is joined from bytes into the JSON that encoding it would give."""

from uuid import UUID

import msgspec

from api.documents import Found, Status
from api.home_render import keys_for, references_for, render
from readmodels.cards import members
from readmodels.entities import NO_FLAGS
from readmodels.entries import Entry
from readmodels.flags import REBLOGGED

AUTHOR, OTHER = UUID(int=1), UUID(int=2)


def add(found: Found, post_id: int, account: UUID, original: int = 0) -> None:
    found[post_id] = Status(
        author=account.bytes,
        original=original,
        conversation=post_id,
        poll=0,
        members=members({"id": str(post_id), "content": "<p>“ü”</p>"}),
        account=account,
        counts_key=b"c:%d" % post_id,
        account_key=b"a:%d" % account.int,
        account_counts_key=b"n:%d" % account.int,
    )
    found[b"c:%d" % post_id] = members({"reblogs_count": post_id})
    found[b"a:%d" % account.int] = members({"id": str(account)})
    found[b"n:%d" % account.int] = members({"followers_count": account.int})


def expected(post_id: int, account: UUID, reblogged: bool, reblog: object = None) -> object:
    return {
        "id": str(post_id),
        "content": "<p>“ü”</p>",
        "reblogs_count": post_id,
        **NO_FLAGS,
        "reblogged": reblogged,
        "filtered": [],
        "account": {"id": str(account), "followers_count": account.int},
        "reblog": reblog,
    }


def no_flags(post_id: int, conversation: int) -> int:
    return 0


def reposted_11(post_id: int, conversation: int) -> int:
    return (1 << REBLOGGED) if post_id == 11 else 0


def test_an_empty_page_is_an_empty_array() -> None:
    assert render([], {}, no_flags) == b"[]"


def test_posts_reposts_and_flags_are_nested_as_entities() -> None:
    found: Found = {}
    add(found, 10, AUTHOR)
    add(found, 11, OTHER)
    add(found, 12, AUTHOR, original=11)
    shown = msgspec.json.decode(render([Entry(12, 11), Entry(10, 10)], found, reposted_11))
    assert shown == [
        expected(12, AUTHOR, False, expected(11, OTHER, True)),
        expected(10, AUTHOR, False),
    ]


def test_what_vanished_meanwhile_is_left_out() -> None:
    found: Found = {}
    for post_id in (10, 11, 12, 13):
        add(found, post_id, AUTHOR)
    add(found, 14, AUTHOR, original=13)
    found[11] = None
    found[b"c:12"] = b""
    found[13] = None
    page = [Entry(14, 13), Entry(12, 12), Entry(11, 11), Entry(10, 10)]
    assert [status["id"] for status in msgspec.json.decode(render(page, found, no_flags))] == ["10"]


def test_keys_and_references_name_the_same_documents() -> None:
    found: Found = {}
    add(found, 10, AUTHOR)
    add(found, 11, OTHER)
    found[12] = None
    assert set(keys_for([10, 11, 12], found)) == references_for([10, 11, 12], found).keys()


def test_what_a_filter_matches_is_marked_apart_in_a_repost_and_its_original() -> None:
    found: Found = {}
    add(found, 11, OTHER)
    add(found, 12, AUTHOR, original=11)
    (shown,) = msgspec.json.decode(
        render([Entry(12, 11)], found, reposted_11, filtered={12: b'[{"a":1}]', 11: b'[{"b":2}]'})
    )
    assert (shown["filtered"], shown["reblog"]["filtered"]) == ([{"a": 1}], [{"b": 2}])
    assert (shown["account"]["id"], shown["reblog"]["reblogged"]) == (str(AUTHOR), True)
