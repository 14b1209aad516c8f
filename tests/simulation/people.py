"""What people do with posts in a simulation of counts, as transactions of a `Ledger` that may overlap."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.simulation.ledger import Key, Ledger, Row, Transaction

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
HABITS = (30, 20, 8, 6, 12, 6, 8, 6, 6, 3)
"""How often people like, unlike, bookmark, follow, write, delete, repost, answer, vote, and pin or mute."""


def act(ledger: Ledger, dice: random.Random, habits: list[int]) -> None:
    """One more statement of a transaction, new or under way; nothing where somebody else holds a row that it needs."""
    transaction = dice.choice(ledger.open) if ledger.open and dice.random() < 0.5 else ledger.begin()
    one, other = dice.sample(ledger.people, 2)
    posts = ledger.table("posts")
    post = dice.choice(posts) if posts else None
    match dice.choices(range(10), habits if any(habits) else HABITS)[0]:
        case 0 if post:
            # One statement of several people, as a COPY writes it: their rows may share a place in the log.
            those = dice.sample(ledger.people, dice.randint(1, 3))
            _insert(ledger, transaction, "likes", [(str(person), post["id"]) for person in those], post)
        case 1:
            _delete(ledger, transaction, dice, "likes")
        case 2 if post:
            if dice.random() < 0.5:
                _insert(ledger, transaction, "bookmarks", [(str(one), post["id"])], post)
            else:
                _delete(ledger, transaction, dice, "bookmarks")
        case 3:
            if dice.random() < 0.7:
                _follow(ledger, transaction, [(one, other), (other, one)][: dice.randint(1, 2)])
            else:
                _delete(ledger, transaction, dice, "follows")
        case 4:
            _post(ledger, transaction, dice, one)
        case 5 if post:
            _delete_post(ledger, transaction, post["id"])
        case 6 if post and post["repost_of_id"] is None:
            _post(ledger, transaction, dice, one, repost_of=post)
        case 7 if post and post["repost_of_id"] is None:
            _post(ledger, transaction, dice, one, reply_to=post)
        case 8 if post:
            key = ("poll_votes", (post["id"], str(one), dice.randrange(3)))
            row = {"poll_id": post["id"], "voter_id": str(one), "position": key[1][2]}
            if key not in ledger.rows and ledger.is_free([key]):
                ledger.write(transaction, "c", [key], [row])
        case 9 if post:
            _insert(ledger, transaction, dice.choice(["pins", "conversation_mutes"]), [(str(one), post["id"])], post)


def end(ledger: Ledger, dice: random.Random) -> None:
    """Some transaction commits, becomes visible, or is given up."""
    luck = dice.random()
    if ledger.logged and luck < 0.5:
        ledger.show(dice.choice(ledger.logged))
    elif ledger.open and luck < 0.95:
        ledger.commit(dice.choice(ledger.open))
    elif ledger.open:
        given_up = dice.choice(ledger.open)
        ledger.open.remove(given_up)
        ledger.completed = max(ledger.completed, given_up.number)
    if ledger.rows and dice.random() < 0.02:
        ledger.read_again(dice.choice(list(ledger.rows)))


def _insert(ledger: Ledger, transaction: Transaction, table: str, keys: list[tuple[str, int]], post: Row) -> None:
    free = [key for key in keys if (table, key) not in ledger.rows and ledger.is_free([(table, key)])]
    # The foreign key: a post that is being deleted takes no more.
    if free and ledger.is_free([("posts", post["id"])]):
        made_at = datetime.fromtimestamp((ledger.next_post >> 16) / 1_000, UTC).isoformat()
        rows = [{"user_id": user, "post_id": post_id, "created_at": made_at} for user, post_id in free]
        ledger.write(transaction, "c", [(table, key) for key in free], rows)


def _delete(ledger: Ledger, transaction: Transaction, dice: random.Random, table: str) -> None:
    keys = [key for key in ledger.rows if key[0] == table]
    if keys and ledger.is_free([key := dice.choice(keys)]):
        ledger.write(transaction, "d", [key], [ledger.rows[key]])


def _follow(ledger: Ledger, transaction: Transaction, pairs: list[tuple[UUID, UUID]]) -> None:
    keys: list[Key] = [("follows", pair) for pair in pairs]
    keys = [key for key in keys if key not in ledger.rows and ledger.is_free([key])]
    rows = [{"follower_id": str(key[1][0]), "followee_id": str(key[1][1])} for key in keys]
    ledger.write(transaction, "c", keys, rows)


def _post(
    ledger: Ledger,
    transaction: Transaction,
    dice: random.Random,
    author: UUID,
    *,
    reply_to: Row | None = None,
    repost_of: Row | None = None,
) -> None:
    origin = reply_to or repost_of
    if origin and not ledger.is_free([("posts", origin["id"])]):
        return
    if repost_of and not ledger.is_free([once := ("reposts", (author, repost_of["id"]))]):
        return
    if repost_of and any(
        row["author_id"] == str(author) and row["repost_of_id"] == repost_of["id"] for row in ledger.table("posts")
    ):
        return
    ledger.next_post += 1 << 16
    moment = FIRST_DAY + timedelta(hours=7 * (ledger.next_post >> 16) % 10_000)
    row: dict[str, Any] = {
        "id": ledger.next_post,
        "author_id": str(author),
        "visibility": dice.choice(("public", "public", "private", "direct")) if repost_of is None else "public",
        "in_reply_to_id": reply_to["id"] if reply_to else None,
        "repost_of_id": repost_of["id"] if repost_of else None,
        "created_at": moment.isoformat().replace("+00:00", "Z"),
        "moment": moment,
    }
    ledger.write(transaction, "c", [("posts", row["id"])], [row])
    if repost_of:
        transaction.locks.add(once)
    if origin:
        # A share of the lock that a deletion needs.
        transaction.locks.add(("children", origin["id"]))


def _delete_post(ledger: Ledger, transaction: Transaction, post_id: int) -> None:
    """Deletes a post with its reposts, likes and so on; replies lose their parent."""
    doomed = {post_id} | {row["id"] for row in ledger.table("posts") if row["repost_of_id"] == post_id}
    orphans = [row for row in ledger.table("posts") if row["in_reply_to_id"] in doomed and row["id"] not in doomed]
    gone = [key for key, row in ledger.rows.items() if row.get("post_id") in doomed]
    keys: list[Key] = [("posts", each) for each in doomed]
    touched = [*keys, *gone, *(("posts", row["id"]) for row in orphans), *(("children", each) for each in doomed)]
    inserting = [
        change
        for other in (*ledger.open, *ledger.logged)
        for change in other.changes
        if change[4].get("post_id") in doomed
    ]
    if not ledger.is_free(touched) or inserting:
        return
    ledger.write(transaction, "d", gone, [ledger.rows[key] for key in gone])
    ledger.write(transaction, "d", keys, [ledger.rows[key] for key in keys])
    orphan_keys: list[Key] = [("posts", row["id"]) for row in orphans]
    ledger.write(transaction, "u", orphan_keys, [row | {"in_reply_to_id": None} for row in orphans])
    transaction.locks.update(touched)
