"""When a new search index takes the place of the one that serves, and when it does not."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import pytest

from dataflows import search_rebuild, search_verify
from dataflows.search_rebuild import build_missing, rebuild, roll_back, unfinished
from dataflows.search_verify import SearchDiffers
from fanline.errors import ConfigurationError
from fanline.settings import Settings
from readmodels.effects import Effects, Query, Redis, drive
from readmodels.search import KINDS, POSTS, USERS

PEOPLE = [UUID(int=number) for number in range(1, 4)]
READ, WRITE = USERS.read_alias("fanline"), USERS.write_alias("fanline")


class Database:
    """Three people and no post, as `Performer` gives them."""

    def __init__(self) -> None:
        self.token = 0

    def run(self, effects: Effects[Any]) -> Any:
        return drive(effects, self._redis, self._query)

    def _redis(self, batch: Redis) -> list[int]:
        self.token += 1
        return [self.token for _ in batch.commands]

    def _query(self, query: Query) -> list[dict[str, Any]]:
        match query.sql:
            case USERS.total:
                return [{"total": len(PEOPLE)}]
            case POSTS.total:
                return [{"total": 0}]
            case USERS.after:
                return [{"id": each} for each in PEOPLE if each > query.parameters["after"]]
            case USERS.sql:
                return [row for row in map(person, PEOPLE) if row["id"] in query.parameters["ids"]]
            case _:
                return []


class Indexes:
    """OpenSearch, as `OpenSearchClient` shows it: aliases, documents and notes. Refuses the documents in `refuses`."""

    def __init__(self) -> None:
        self.aliases: dict[str, set[str]] = {}
        self.held: dict[str, dict[str, dict[str, Any]]] = {}
        self.metas: dict[str, dict[str, Any]] = {}
        self.refuses: set[str] = set()
        self.loses: set[str] = set()

    def behind(self, aliases: list[str]) -> dict[str, list[str]]:
        return {alias: sorted(self.aliases.get(alias, ())) for alias in aliases}

    def forbid_making_indexes(self, pattern: str) -> None: ...

    def refresh(self, indexes: list[str]) -> None: ...

    def create(self, index: str, body: dict[str, Any]) -> None:
        self.held[index], self.metas[index] = {}, body["mappings"]["_meta"]
        for alias in body["aliases"]:
            self.aliases.setdefault(alias, set()).add(index)

    def delete(self, index: str) -> None:
        del self.held[index]
        for indexes in self.aliases.values():
            indexes.discard(index)

    def change_aliases(self, actions: list[dict[str, Any]]) -> None:
        for action in actions:
            for verb, what in action.items():
                found = self.aliases.setdefault(what["alias"], set())
                found.add(what["index"]) if verb == "add" else found.remove(what["index"])

    def notes(self, index: str) -> dict[str, Any]:
        return self.metas[index]

    def note(self, index: str, notes: dict[str, Any]) -> None:
        self.metas[index] = notes

    def documents(self, index: str, ids: list[str]) -> dict[str, dict[str, Any]]:
        return {each: self.held[index][each] for each in ids if each in self.held[index]}

    def bulk(self, payload: bytes) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in payload.splitlines()]
        answers: list[dict[str, Any]] = []
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            place = action["index"]
            if place["_id"] in self.refuses:
                answers.append({"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "no"}})
                continue
            answers.append({"status": 201})
            if place["_id"] not in self.loses:
                self.held[place["_index"]][place["_id"]] = document
        return answers


def person(identifier: UUID) -> dict[str, Any]:
    return {
        "id": identifier, "username": f"u{identifier.int}", "display_name": "", "note": "", "discoverable": True,
        "bot": False, "silenced": False, "created_at": datetime(2026, 1, 1, tzinfo=UTC), "followers": 0,
    }  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, search_timeout_seconds=0.001, flow_instance=0)


@pytest.fixture
def indexes(settings: Settings) -> Indexes:
    """With the indexes that serve."""
    made = Indexes()
    build_missing(settings, Database(), made)  # type: ignore[arg-type]
    return made


def reindex(settings: Settings, indexes: Indexes, *, drop_old: bool = True) -> Any:
    return rebuild(settings, Database(), indexes, drop_old=drop_old)  # type: ignore[arg-type]


def test_indexes_that_equal_the_database_take_the_place_of_the_old_ones(settings: Settings, indexes: Indexes) -> None:
    [old] = indexes.aliases[READ]
    built = reindex(settings, indexes)
    assert indexes.aliases[READ] == indexes.aliases[WRITE] == {built[0].index}
    assert old not in indexes.held
    assert indexes.held[built[0].index].keys() == set(map(str, PEOPLE))


def test_a_refused_document_keeps_the_indexes_that_serve(settings: Settings, indexes: Indexes) -> None:
    before = {alias: set(found) for alias, found in indexes.aliases.items()}
    indexes.refuses = {str(PEOPLE[1])}
    with pytest.raises(SearchDiffers, match=r"does not take 1 of the documents of users.* are kept\.$"):
        reindex(settings, indexes)
    assert indexes.aliases == before
    assert indexes.held.keys() == {index for found in before.values() for index in found}


def test_a_document_that_is_missing_keeps_the_indexes_that_serve(settings: Settings, indexes: Indexes) -> None:
    before = {alias: set(found) for alias, found in indexes.aliases.items()}
    indexes.loses = {str(PEOPLE[0]), str(PEOPLE[2])}
    with (
        mock.patch.multiple(search_verify, PATIENCE_SECONDS=0.01, LOOK_SECONDS=0.001),
        pytest.raises(SearchDiffers, match=f"users is not what the database says of {PEOPLE[0]} and 1 more: .* kept"),
    ):
        reindex(settings, indexes)
    assert indexes.aliases == before
    assert all(unfinished(indexes, kind, "fanline") is None for kind in KINDS)  # type: ignore[arg-type]


def test_where_nothing_serves_an_index_without_some_documents_is_better_than_none(settings: Settings) -> None:
    indexes = Indexes()
    indexes.refuses = {str(PEOPLE[1])}
    [users, _] = reindex(settings, indexes)
    assert (users.loaded, users.refused) == (2, 1)
    assert indexes.aliases[READ] == {users.index}
    assert indexes.metas[users.index]["refused"] == 1


def test_the_indexes_that_serve_are_left_alone_when_others_are_missing(settings: Settings, indexes: Indexes) -> None:
    [serving] = indexes.aliases[READ]
    [lost] = indexes.aliases[POSTS.read_alias("fanline")]
    indexes.delete(lost)
    build_missing(settings, Database(), indexes)  # type: ignore[arg-type]
    assert indexes.aliases[READ] == {serving}
    assert indexes.aliases[POSTS.read_alias("fanline")]


def test_kept_indexes_serve_again_and_the_next_build_begins_anew(settings: Settings, indexes: Indexes) -> None:
    [old] = indexes.aliases[READ]
    with pytest.raises(ConfigurationError, match="no index of users to go back to"):
        roll_back(settings, indexes)  # type: ignore[arg-type]
    [new, _] = reindex(settings, indexes, drop_old=False)
    assert roll_back(settings, indexes)["users"] == old  # type: ignore[arg-type]
    assert indexes.aliases[READ] == {old}
    assert indexes.aliases[WRITE] == {old, new.index}
    # Nobody takes what was rolled back from for a build to go on with, and one can go back to it as well.
    assert unfinished(indexes, USERS, "fanline") is None  # type: ignore[arg-type]
    assert roll_back(settings, indexes)["users"] == new.index  # type: ignore[arg-type]
    roll_back(settings, indexes)  # type: ignore[arg-type]
    [newest, _] = reindex(settings, indexes)
    assert newest.index not in (old, new.index)
    assert indexes.aliases[WRITE] == {newest.index}


def test_an_interrupted_build_remembers_what_was_refused(settings: Settings, indexes: Indexes) -> None:
    indexes.refuses = {str(PEOPLE[1])}

    def interrupt(building: search_rebuild.Building) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(settings, Database(), indexes, drop_old=True, report=interrupt)  # type: ignore[arg-type]
    indexes.refuses.clear()
    with pytest.raises(SearchDiffers):
        reindex(settings, indexes)
