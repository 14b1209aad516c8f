"""Notification entities straight from the database, a batch at a time."""

from collections.abc import Sequence
from uuid import UUID

from api.database import Row, Transaction
from api.entities import Entities
from readmodels.entities import Entity
from readmodels.notifications import (
    NOTIFICATIONS_BY_ID,
    REPORTS_BY_ID,
    WARNINGS_BY_ID,
    account_of,
    notification_entity,
    report_entity,
    warning_entity,
)


async def load_notifications(
    transaction: Transaction, ids: Sequence[int], viewer: UUID, entities: Entities
) -> list[Entity]:
    """The Notification entities of these ids, in their order, as the viewer sees them.

    Ids that do not exist, are not the viewer's, were dismissed or come from suspended people are left out.
    """
    if not ids:
        return []
    rows = {row["id"]: row for row in await transaction.rows(NOTIFICATIONS_BY_ID, {"ids": list(ids)})}
    mine = [rows[id] for id in ids if id in rows and rows[id]["user_id"] == viewer and rows[id]["dismissed_at"] is None]
    return await notification_entities(transaction, mine, viewer, entities)


async def notification_entities(
    transaction: Transaction, rows: Sequence[Row], viewer: UUID, entities: Entities
) -> list[Entity]:
    """The Notification entities of rows of `NOTIFICATIONS_BY_ID`, in their order.

    Those whose account or status was deleted meanwhile are left out.
    """
    posts = list({row["post_id"] for row in rows} - {None})
    statuses = {int(entity["id"]): entity for entity in await entities.statuses(transaction, posts, viewer)}
    reports = await _rows(transaction, REPORTS_BY_ID, rows, "report_id")
    warnings = await _rows(transaction, WARNINGS_BY_ID, rows, "moderation_action_id")
    people = {account_of(row) for row in rows}
    people |= {each["target_id"] for each in (*reports.values(), *warnings.values())} - {None}
    accounts = await entities.accounts(transaction, people, viewer)

    def build(row: Row) -> Entity | None:
        account, status = accounts.get(account_of(row)), statuses.get(row["post_id"])
        if account is None or (row["post_id"] is not None and status is None):
            return None
        report, warning = reports.get(row["report_id"]), warnings.get(row["moderation_action_id"])
        return notification_entity(
            row,
            account,
            status,
            report and report_entity(report, accounts.get(report["target_id"], account)),
            warning and warning_entity(warning, accounts.get(warning["target_id"], account)),
        )

    return [entity for entity in map(build, rows) if entity is not None]


async def _rows(transaction: Transaction, query: str, rows: Sequence[Row], column: str) -> dict[UUID | None, Row]:
    ids = list({row[column] for row in rows} - {None})
    found: dict[UUID | None, Row] = {}
    if ids:
        found |= {row["id"]: row for row in await transaction.rows(query, {"ids": ids})}
    return found
