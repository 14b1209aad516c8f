"""What CockroachDB does not take of what Postgres' parser takes.

No parser of CockroachDB's can be had here, so a statement is parsed with Postgres' own (pglast) and its tree is
searched for what CockroachDB's grammar (v25.2) refuses; functions are held to a list of those that its reference names
(docs/generated/sql/functions.md of its source, read in November 2026).
"""

from collections.abc import Iterator
from typing import Any

import pglast
from pglast import ast, enums
from pglast.visitors import Visitor

FUNCTIONS = frozenset(
    [
        "abs",
        "array_agg",
        "array_append",
        "array_length",
        "array_position",
        "bool_and",
        "bool_or",
        "cardinality",
        "ceil",
        "char_length",
        "chr",
        "clock_timestamp",
        "cluster_logical_timestamp",
        "concat",
        "count",
        "current_database",
        "date_part",
        "date_trunc",
        "decode",
        "encode",
        "extract",
        "floor",
        "gen_random_uuid",
        "generate_series",
        "jsonb_agg",
        "jsonb_array_elements",
        "jsonb_array_length",
        "jsonb_build_array",
        "jsonb_build_object",
        "jsonb_object_agg",
        "left",
        "length",
        "lower",
        "ltrim",
        "max",
        "md5",
        "min",
        "now",
        "octet_length",
        "power",
        "random",
        "rank",
        "replace",
        "right",
        "round",
        "row_number",
        "rtrim",
        "sha256",
        "split_part",
        "string_agg",
        "strpos",
        "substr",
        "substring",
        "sum",
        "to_regclass",
        "to_timestamp",
        "trim",
        "unnest",
        "upper",
        "version",
    ]
)
"""Those of CockroachDB's builtin functions that somebody may want to use here."""

# Statements that it has no grammar for.
REFUSED_STATEMENTS = {
    "AlterPublicationStmt": "publications", "CreatePublicationStmt": "publications",
    "CreateSubscriptionStmt": "subscriptions", "RuleStmt": "rules", "CreateForeignServerStmt": "foreign servers",
    "CreateForeignTableStmt": "foreign tables", "CreateCastStmt": "casts", "DefineStmt": "aggregates and operators",
    "CreateTableSpaceStmt": "tablespaces", "ReindexStmt": "REINDEX", "ListenStmt": "LISTEN", "NotifyStmt": "NOTIFY",
    "UnlistenStmt": "UNLISTEN", "VacuumStmt": "VACUUM", "LockStmt": "LOCK TABLE", "MergeStmt": "MERGE",
    "DoStmt": "DO blocks",
    "ConstraintsSetStmt": "SET CONSTRAINTS", "ReplicaIdentityStmt": "REPLICA IDENTITY", "ClusterStmt": "CLUSTER",
}  # fmt: skip
REFUSED_INDEX_METHODS = frozenset(["hash", "spgist", "brin"])
# They would be taken, and make one range take every write.
REFUSED_TYPES = frozenset(["serial", "bigserial", "smallserial", "pg_lsn", "pg_snapshot", "xid8"])


def faults(sql: str) -> list[str]:
    """What CockroachDB refuses in statements, a few words each; raises `pglast.parser.ParseError` on no SQL at all."""
    found = _Faults()
    found(pglast.parse_sql(_known_to_postgres(sql)))
    return found.faults


def _known_to_postgres(sql: str) -> str:
    """Without the two clauses of CockroachDB's own that our migrations use, which Postgres' grammar does not have."""
    return sql.replace(" USING HASH WITH (bucket_count = 16)", "")


class _Faults(Visitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.faults: list[str] = []

    def visit(self, _ancestors: Any, node: Any) -> None:
        name = type(node).__name__
        if name in REFUSED_STATEMENTS:
            self.faults.append(REFUSED_STATEMENTS[name])
        check = getattr(self, f"_{name}", None)
        if check is not None:
            self.faults += check(node)

    def _FuncCall(self, node: ast.FuncCall) -> Iterator[str]:
        name = node.funcname[-1].sval
        if name not in FUNCTIONS:
            yield f"the function {name}"

    def _TypeName(self, node: ast.TypeName) -> Iterator[str]:
        name = node.names[-1].sval if node.names else ""
        if name in REFUSED_TYPES:
            yield f"the type {name}"

    def _Constraint(self, node: ast.Constraint) -> Iterator[str]:
        if node.contype == enums.ConstrType.CONSTR_EXCLUSION:
            yield "EXCLUDE"
        if node.deferrable or node.contype in (
            enums.ConstrType.CONSTR_ATTR_DEFERRABLE, enums.ConstrType.CONSTR_ATTR_DEFERRED,
        ):  # fmt: skip
            yield "DEFERRABLE"
        if node.nulls_not_distinct:
            yield "NULLS NOT DISTINCT"

    def _IndexStmt(self, node: ast.IndexStmt) -> Iterator[str]:
        if node.accessMethod in REFUSED_INDEX_METHODS:
            yield f"the index method {node.accessMethod}"
        if node.nulls_not_distinct:
            yield "NULLS NOT DISTINCT"

    def _CreateStmt(self, node: ast.CreateStmt) -> Iterator[str]:
        if node.inhRelations:
            yield "INHERITS"
        if node.oncommit == enums.OnCommitAction.ONCOMMIT_DROP:
            yield "ON COMMIT DROP"

    def _CreateExtensionStmt(self, node: ast.CreateExtensionStmt) -> Iterator[str]:
        if node.options:
            yield "CREATE EXTENSION ... WITH"

    def _CreateTrigStmt(self, node: ast.CreateTrigStmt) -> Iterator[str]:
        if node.isconstraint:
            yield "constraint triggers"

    def _CreateFunctionStmt(self, node: ast.CreateFunctionStmt) -> Iterator[str]:
        refused = {"cost", "rows", "parallel", "set"} & {option.defname for option in node.options or ()}
        yield from (f"FUNCTION ... {name.upper()}" for name in sorted(refused))
        # Its PL/pgSQL lacks PERFORM, FOR over a query and more, and no body is looked into here.
        languages = [option.arg.sval for option in node.options or () if option.defname == "language"]
        yield from (language for language in languages if language.lower() != "sql")

    def _AlterTableCmd(self, node: ast.AlterTableCmd) -> Iterator[str]:
        if node.subtype == enums.AlterTableType.AT_AttachPartition:
            yield "ATTACH PARTITION"
        if node.subtype == enums.AlterTableType.AT_AlterConstraint:
            yield "ALTER CONSTRAINT"

    def _GroupingSet(self, _node: ast.GroupingSet) -> Iterator[str]:
        yield "grouping sets"

    def _RangeTableSample(self, _node: ast.RangeTableSample) -> Iterator[str]:
        yield "TABLESAMPLE"
