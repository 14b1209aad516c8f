"""Counts of accounts and statuses, as JSON members that are ready to serve.

Layout (documents, see readmodels/documents.py): `n:{<user id>}` and `c:{<post id>}`, the members of
`entities.account_counts` and `entities.status_counts` without the braces. The values are absolute, counted by the
database, so they are exact after any duplicate or replay.
"""

from readmodels.cards import members
from readmodels.documents import Kind
from readmodels.entities import account_counts, status_counts
from readmodels.entity_queries import ACCOUNT_COUNTS_BY_ID, STATUS_COUNTS_BY_ID

ACCOUNT_COUNTS = Kind("account_counts", b"n", ACCOUNT_COUNTS_BY_ID, lambda row, _: members(account_counts(row)))
STATUS_COUNTS = Kind("status_counts", b"c", STATUS_COUNTS_BY_ID, lambda row, _: members(status_counts(row)))
