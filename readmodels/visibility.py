"""Whether a change that the log has shown can be seen by a query.

Postgres writes a commit to the log before it shows it to new snapshots, and logical decoding reads the log: on a busy
machine a flow may hold a row that its own query does not find yet. So every flow waits until its batch's transactions
are visible before it works on them; then "the database was asked later" means "the answer has seen the change".
Source: Postgres' ProcArrayEndTransaction comes after RecordTransactionCommit (src/backend/access/transam/xact.c).
CockroachDB's changefeeds emit only what every later read sees, and name no transactions.
"""

# Changes carry the lower 32 bits of a transaction's id. One that is not before the snapshot's end in their circle of
# ids, or is among the running ones, is not visible.
ALL_VISIBLE = """
WITH snapshot AS (SELECT pg_current_snapshot() AS taken)
SELECT NOT EXISTS (
  SELECT 1 FROM unnest(%(transactions)s::bigint[]) AS changed (id), snapshot
  WHERE ((pg_snapshot_xmax(taken)::text::bigint - changed.id) & 4294967295) NOT BETWEEN 1 AND 2147483647
     OR changed.id IN (SELECT running::text::bigint & 4294967295 FROM pg_snapshot_xip(taken) AS running)
) AS all_visible
"""

# An event's outbox row is committed with the rows that it tells of: who sees the one sees the others.
ALL_RECORDED = """
SELECT NOT EXISTS (
  SELECT 1 FROM unnest(%(events)b::uuid[]) AS event (id)
  WHERE NOT EXISTS (SELECT 1 FROM outbox o WHERE o.id = event.id)
) AS all_recorded
"""
