"""The migrations as text: one linear history, two dialects, each inside its grammar."""

import json
import re
from pathlib import Path

import pytest

from connectors.plan import TEMPLATES
from fanline.migrations_runner import dialect_of, script_directory
from migrations.publications import PUBLICATIONS
from migrations.render import SQL_DIR, render, revision_statements, statements

FILES = {revision.revision: revision.module.FILES for revision in script_directory().walk_revisions()}


def every_statement(dialect) -> list[str]:
    return [each for revision, files in FILES.items() for each in revision_statements(revision, files, dialect)]


def created(dialect) -> dict[str, str]:
    found = {}
    for statement in every_statement(dialect):
        match = re.match(r"CREATE TABLE (\w+) \(", statement)
        if match:
            found[match[1]] = statement
    return found


def test_the_history_is_one_line_with_one_head():
    scripts = script_directory()
    revisions = list(scripts.walk_revisions())
    assert len(scripts.get_heads()) == 1
    assert [each.revision for each in revisions] == [f"{n:04}" for n in range(len(revisions), 0, -1)]
    assert all(not each.is_merge_point and not each.is_branch_point for each in revisions)


def test_both_dialects_create_the_same_tables_with_explicit_primary_keys():
    postgres, cockroach = created("postgres"), created("cockroach")
    assert postgres.keys() == cockroach.keys()
    assert len(postgres) == 46
    assert [name for name, text in postgres.items() if "PRIMARY KEY" not in text] == []


@pytest.mark.parametrize("table", ["posts", "notifications", "polls"])
def test_keys_that_grow_with_time_are_hash_sharded_on_cockroach_only(table):
    assert "PRIMARY KEY (id) USING HASH WITH (bucket_count = 16)" in created("cockroach")[table]
    assert "HASH" not in created("postgres")[table]


def test_the_outbox_expires_by_row_level_ttl_on_cockroach_only():
    assert "ttl_expire_after = '1 day'" in created("cockroach")["outbox"]
    assert "ttl" not in created("postgres")["outbox"]


def test_time_is_always_with_its_zone():
    naive = [each for each in created("postgres").values() if re.search(r"\btimestamp\b", each)]
    assert naive == []


def test_every_foreign_key_says_what_a_delete_does():
    for name, text in created("postgres").items():
        references = re.findall(r"REFERENCES \w+ \([\w, ]+\)(.*)", text)
        assert all("ON DELETE" in rest for rest in references), name


def test_going_down_drops_every_table_that_going_up_made():
    down = [each for revision in FILES for each in revision_statements(revision, ("down",), "postgres")]
    dropped = re.findall(r"DROP TABLE (\w+)", "\n".join(down))
    assert sorted(dropped) == sorted(created("postgres"))


def test_sql_files_stay_readable():
    assert [path.name for path in SQL_DIR.rglob("*.sql") if len(path.read_text().splitlines()) >= 200] == []


def test_an_unknown_placeholder_is_an_error():
    with pytest.raises(ValueError, match="hash_shraded"):
        render("PRIMARY KEY (id) ${hash_shraded}", "postgres")


def test_a_block_for_one_dialect_must_end():
    with pytest.raises(ValueError, match="has no `-- end`"):
        render("-- only postgres\nSELECT 1;\n", "postgres")


def test_a_block_for_an_unknown_dialect_is_an_error():
    with pytest.raises(ValueError, match="mysql"):
        render("-- only mysql\nSELECT 1;\n-- end\n", "postgres")


def test_a_statement_without_a_semicolon_is_an_error():
    with pytest.raises(ValueError, match="SELECT 2"):
        list(statements("SELECT 1;\nSELECT 2\n"))


def test_a_server_tells_its_dialect():
    assert dialect_of("CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu)") == "cockroach"
    assert dialect_of("PostgreSQL 18.6 on x86_64-pc-linux-gnu") == "postgres"


@pytest.mark.parametrize("template", ["cdc", "outbox"])
def test_the_publication_holds_exactly_the_tables_of_its_connector(template):
    config = json.loads(Path(TEMPLATES / f"{template}.json").read_text())
    tables, _ = PUBLICATIONS[config["publication.name"]]
    assert config["table.include.list"] == ",".join(f"public.{table}" for table in tables)
    assert config["publication.autocreate.mode"] == "filtered"
