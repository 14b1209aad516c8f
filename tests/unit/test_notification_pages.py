import re
from datetime import UTC, datetime
from uuid import UUID

import pytest

from fanline.ids import created_ms, first_id_at
from readmodels.home_rules import Page
from readmodels.inbox import COMPLETE, Inbox, Item, item_of, pack, parse, unpack
from readmodels.notification_groups import heads_query, members_query
from readmodels.notification_pages import Wanted, group, page_query, rest, select, shown_key, span_of
from readmodels.notifications import GROUPED_TYPES, TYPES, group_key
from tests.unit.cockroach_grammar import faults

ADA, BOB = UUID(int=1), UUID(int=2)
START = 1_795_000_000_000


def item(number: int, kind: str = "favourite", post: int | None = 5, who: UUID = ADA) -> Item:
    ms = START + number
    return Item(first_id_at(ms) + 7, kind, ms, post, who)


ITEMS = [item(number, "mention" if number % 2 else "favourite", who=ADA if number < 5 else BOB) for number in range(9)]
INBOX = Inbox(floor=ITEMS[0].id - 1, marker=0, items=ITEMS[::-1])


@pytest.mark.parametrize("kind", TYPES)
def test_a_member_keeps_everything(kind: str) -> None:
    for post, who in ((None, None), (2**62, BOB)):
        one = Item(2**62 + 3, kind, START, post, who)
        assert unpack(pack(one)) == one


def test_members_sort_like_their_ids() -> None:
    assert sorted(map(pack, ITEMS)) == [pack(each) for each in ITEMS]


def test_an_inbox_is_read_newest_first_and_not_while_it_is_being_filled() -> None:
    header = COMPLETE + (3).to_bytes(8) + (4).to_bytes(8)
    assert parse([header, *map(pack, ITEMS)]) == Inbox(3, 4, ITEMS[::-1])
    assert parse([]) is None
    assert parse([b"B" + bytes(8)]) is None
    assert parse([b"D" + bytes(8)]) is None


def test_a_row_and_its_member_are_in_the_same_group() -> None:
    at = datetime(2026, 11, 22, 11, 59, 59, 999_999, tzinfo=UTC)
    row = {"id": 9, "type": "reblog", "created_at": at, "post_id": 5, "from_account_id": ADA}
    assert item_of(row).group_key == group_key("reblog", 9, 5, at)
    assert item_of(row).created_ms == 1_795_348_799_999


def ids(items: list[Item] | None) -> list[int]:
    assert items is not None
    return [ITEMS.index(each) for each in items]


def test_a_page_takes_the_newest_and_with_min_id_the_oldest_of_its_range() -> None:
    everything = Wanted()
    assert ids(select(INBOX, Page(3), everything)) == [8, 7, 6]
    assert ids(select(INBOX, Page(3, max_id=ITEMS[6].id), everything)) == [5, 4, 3]
    assert ids(select(INBOX, Page(3, since_id=ITEMS[6].id), everything)) == [8, 7]
    assert ids(select(INBOX, Page(2, min_id=ITEMS[2].id), everything)) == [4, 3]


def test_a_selection_leaves_out_other_types_and_senders() -> None:
    assert ids(select(INBOX, Page(9), Wanted(frozenset({"mention"})))) == [7, 5, 3, 1]
    assert ids(select(INBOX, Page(9), Wanted(account_id=ADA))) == [4, 3, 2, 1, 0]


def test_the_database_answers_what_an_inbox_does_not_hold() -> None:
    assert select(INBOX, Page(3), Wanted(filtered=True)) is None
    assert select(INBOX, Page(3, min_id=INBOX.floor - 1), Wanted()) is None
    assert rest(INBOX, Page(3), 3) is None
    assert rest(INBOX, Page(3), 1) == Page(2, max_id=INBOX.floor + 1)
    assert rest(INBOX, Page(3, max_id=4, since_id=2), 0) == Page(3, max_id=4, since_id=2)
    assert rest(INBOX, Page(3, since_id=ITEMS[3].id), 1) is None


def test_a_page_of_the_database_asks_only_for_what_is_wanted() -> None:
    plain = page_query(ADA, Page(3), Wanted()).sql
    assert "n.type" not in plain.partition("FROM")[2]
    assert "n.id DESC" in plain
    chosen = page_query(ADA, Page(3, min_id=4), Wanted(frozenset({"poll"}), BOB))
    assert "n.type = ANY" in chosen.sql
    assert "n.id ASC" in chosen.sql
    assert chosen.parameters["above"] == 4


def test_a_page_of_groups_ends_where_a_further_group_would_begin() -> None:
    posts = [item(4, post=1), item(3, post=2), item(2, post=1), item(1, post=3), item(0, post=1)]
    groups = group(posts, 2)
    assert [[each.created_ms - START for each in one.items] for one in groups] == [[4, 2], [3]]
    assert [one.key for one in groups] == [posts[0].group_key, posts[1].group_key]
    alone = group(posts, 9, frozenset())
    assert [one.key for one in alone] == [f"ungrouped-{each.id}" for each in posts]


def test_the_key_of_a_group_tells_between_which_ids_it_lies() -> None:
    one = item(3)
    span = span_of(one.group_key)
    assert span is not None
    assert span[0] <= one.id <= span[1]
    assert created_ms(span[1] - span[0]) == 12 * 3_600_000 + 60_000
    assert span_of(f"ungrouped-{one.id}") == (one.id, one.id)
    assert span_of(replace_kind(one, "follow", None).group_key) is not None
    for wrong in ("", "ungrouped-", "ungrouped-x", "mention-1-2", "favourite-1-x", "favourite", "follow-" + "9" * 19):
        assert span_of(wrong) is None


def replace_kind(one: Item, kind: str, post: int | None) -> Item:
    return one._replace(type=kind, post_id=post)


def test_only_types_that_can_be_grouped_are() -> None:
    one = item(3)
    assert shown_key(one, frozenset(GROUPED_TYPES)) == one.group_key
    assert shown_key(one, frozenset()) == f"ungrouped-{one.id}"
    assert replace_kind(one, "mention", 5).group_key == f"ungrouped-{one.id}"


def test_what_goes_on_below_a_large_group_stays_inside_cockroachdbs_grammar() -> None:
    wanted = Wanted(frozenset({"favourite"}), BOB)
    for page in (Page(3, max_id=9), Page(3, min_id=4), Page(3, max_id=9, since_id=4)):
        for build in (heads_query, members_query):
            query = build(ADA, page, wanted, frozenset(GROUPED_TYPES), ["follow-1", "ungrouped-7"])
            assert query.parameters["seen"] == ["follow-1"]
            assert faults(re.sub(r"%\(\w+\)s", "NULL", query.sql)) == []
