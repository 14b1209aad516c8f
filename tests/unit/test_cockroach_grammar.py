"""Every statement of the code and the migrations stays inside what CockroachDB takes, or says why it need not."""

import pytest

from tests.unit.cockroach_grammar import faults
from tests.unit.composed_statements import composed
from tests.unit.sql_statements import ROOT, Statement, constants, fragments, plain, statements
from tests.unit.test_migrations import every_statement

# Statements that are never sent to CockroachDB, by file, and why.
POSTGRES_ONLY = {
    "connectors/capture.py": "shows Postgres' replication slots",
    "connectors/replica.py": "slots and publications of Postgres as the source; docs/operations/replicate.md",
    "connectors/slots.py": "the same",
    "connectors/pipeline.py": "shows the end of Postgres' log",
    "demo/people.py": "loads the demonstration's people into the local stack, which is Postgres",
    "fanline/migrations_runner.py": "makes the local stack's roles and database, and Postgres' publications",
    "readmodels/visibility.py": "waits for transactions, which changes from CockroachDB do not name",
    "readmodels/counts.py": "has Postgres' snapshot, for which readmodels/incremental.py puts CockroachDB's time",
    "readmodels/flags.py": "the same",
}
OTHER_DATABASES = {
    "connectors/recovery.py": "SQLite: the dataflow engine's recovery store",
    "sinks/parquet_query.py": "DuckDB: the archive",
}
# Pieces that functions put in front of or behind others; they are no statements by themselves.
BEGINNINGS = {"_POSTS", "_PEOPLE", "POST_USES"}
PIECES = {"sinks/replica.py": 4, "api/search_sql.py": 1, "readmodels/timelines.py": 1, "readmodels/trends.py": 1}

FOUND = statements()
COMPOSED = list(composed())


def faults_of(statement: Statement) -> list[str]:
    from pglast.parser import ParseError

    try:
        return faults(statement.text)
    except ParseError as error:
        return [f"does not parse: {error}"]


def test_the_search_finds_the_statements_of_the_code():
    assert len(FOUND) > 250
    by_file = {statement.file for statement in FOUND}
    assert {"api/status_writes.py", "readmodels/timelines.py", "fanline/pruning.py", "audit/run.py"} <= by_file
    home = next(each for each in FOUND if each.file == "readmodels/entity_queries.py")
    assert "%(" not in home.text


@pytest.mark.parametrize("file", sorted({each.file for each in FOUND} - OTHER_DATABASES.keys() - POSTGRES_ONLY.keys()))
def test_statements_stay_inside_cockroachdbs_grammar_and_functions(file):
    refused = [(each.line, fault, each.text) for each in FOUND if each.file == file for fault in faults_of(each)]
    allowed = PIECES.get(file, 0)
    pieces = [each for each in refused if each[1].startswith("does not parse")]
    assert len(pieces) <= allowed, pieces
    assert [each for each in refused if each not in pieces] == []


def test_statements_that_functions_put_together_stay_inside_it_as_a_whole():
    refused = [(where, fault, sql) for where, sql in COMPOSED for fault in faults(plain(sql))]
    assert refused == []


def test_every_text_that_goes_on_with_a_statement_is_part_of_a_whole_one_here():
    composed_texts = [text for _, sql in COMPOSED for text in (sql, plain(sql))]
    whole = "\n".join([*composed_texts, *(each.text for each in [*constants(), *FOUND])])
    found = list(fragments())
    assert len(found) > 25
    lost = [each for each in found if each.text not in whole and plain(each.text) not in whole]
    assert [(each.file, each.line, each.text) for each in lost] == []


def test_constants_stay_inside_it_whatever_they_are_put_together_from():
    left_out = OTHER_DATABASES.keys() | POSTGRES_ONLY.keys()
    found = [each for each in constants() if each.file not in left_out and each.name not in BEGINNINGS]
    assert {"ALL_POST_USES", "POST_USES_BY_ID", "HOME_ASCENDING", "TAGGED"} <= {each.name for each in found}
    assert [(each.file, each.name, fault) for each in found for fault in faults_of(each)] == []


def test_the_exceptions_are_needed_and_there():
    for file in POSTGRES_ONLY.keys() | OTHER_DATABASES.keys():
        assert (ROOT / file).exists(), file
    needed = {each.file for each in FOUND if faults_of(each)}
    assert POSTGRES_ONLY.keys() | PIECES.keys() <= needed


def test_the_migrations_stay_inside_cockroachdbs_grammar():
    refused = [(fault, each) for each in every_statement("cockroach") for fault in faults(each)]
    assert refused == []


def test_the_check_sees_what_only_postgres_takes_in_the_migrations():
    found = {fault for each in every_statement("postgres") for fault in faults(each)}
    assert {"the index method brin", "REPLICA IDENTITY"} <= found


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("CREATE TABLE t (id int, EXCLUDE USING gist (id WITH =))", "EXCLUDE"),
        ("CREATE TABLE t (id int REFERENCES u (id) DEFERRABLE)", "DEFERRABLE"),
        ("SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS"),
        ("CREATE TABLE t () INHERITS (u)", "INHERITS"),
        ("SELECT a FROM t GROUP BY GROUPING SETS ((a), ())", "grouping sets"),
        ("SELECT a FROM t GROUP BY ROLLUP (a)", "grouping sets"),
        ("SELECT a FROM t GROUP BY CUBE (a)", "grouping sets"),
        ("CREATE INDEX i ON t USING hash (a)", "the index method hash"),
        ("CREATE INDEX i ON t USING spgist (a)", "the index method spgist"),
        ("CREATE UNIQUE INDEX i ON t (a) NULLS NOT DISTINCT", "NULLS NOT DISTINCT"),
        ("CREATE TABLE t (a int UNIQUE NULLS NOT DISTINCT)", "NULLS NOT DISTINCT"),
        ("CREATE PUBLICATION p FOR TABLE t", "publications"),
        ("CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p", "subscriptions"),
        ("CREATE RULE r AS ON INSERT TO t DO NOTHING", "rules"),
        ("CREATE AGGREGATE a (int) (SFUNC = f, STYPE = int)", "aggregates and operators"),
        ("CREATE EXTENSION e WITH VERSION '1'", "CREATE EXTENSION ... WITH"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql PARALLEL SAFE AS 'SELECT 1'", "FUNCTION ... PARALLEL"),
        ("CREATE CONSTRAINT TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", "constraint triggers"),
        ("REINDEX TABLE t", "REINDEX"),
        ("LISTEN c", "LISTEN"),
        ("NOTIFY c", "NOTIFY"),
        ("VACUUM t", "VACUUM"),
        ("LOCK TABLE t", "LOCK TABLE"),
        ("DO $$ BEGIN PERFORM f(); END $$", "DO blocks"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM g(); RETURN 1; END'", "plpgsql"),
        (
            "CREATE PROCEDURE f() LANGUAGE plpgsql AS 'DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP END LOOP; END'",
            "plpgsql",
        ),
        ("ALTER TABLE t ALTER CONSTRAINT c DEFERRABLE", "ALTER CONSTRAINT"),
        ("ALTER TABLE t ADD CONSTRAINT c UNIQUE (a) DEFERRABLE INITIALLY DEFERRED", "DEFERRABLE"),
        ("MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE", "MERGE"),
        ("SELECT * FROM t TABLESAMPLE SYSTEM (1)", "TABLESAMPLE"),
        ("ALTER TABLE t ATTACH PARTITION u FOR VALUES IN (1)", "ATTACH PARTITION"),
        ("ALTER TABLE t REPLICA IDENTITY FULL", "REPLICA IDENTITY"),
        ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", "ON COMMIT DROP"),
        ("CREATE TABLE t (a bigserial)", "the type bigserial"),
        ("SELECT starts_with(a, 'b') FROM t", "the function starts_with"),
        ("SELECT pg_current_snapshot()", "the function pg_current_snapshot"),
    ],
)
def test_a_construct_that_cockroachdb_lacks_is_found(sql, fault):
    assert fault in faults(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (id uuid DEFAULT gen_random_uuid(), PRIMARY KEY (id)) WITH (ttl_expire_after = '1 day')",
        "CREATE TABLE t (id bigint, PRIMARY KEY (id) USING HASH WITH (bucket_count = 16))",
        "CREATE INDEX i ON t (a) INCLUDE (b) WHERE a IS NOT NULL",
        "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = excluded.a RETURNING a",
        "WITH gone AS (DELETE FROM t RETURNING a) SELECT count(*) FROM gone",
        "SELECT a FROM t WHERE a = ANY(NULL::uuid[]) FOR UPDATE SKIP LOCKED",
        "SELECT DISTINCT ON (a) a FROM t CROSS JOIN LATERAL (SELECT 1) AS u ORDER BY a",
    ],
)
def test_what_cockroachdb_takes_is_not_refused(sql):
    assert faults(sql) == []
