"""Renders the SQL of a revision for one dialect; pure.

A revision's `.sql` files are plain Postgres with two kinds of differences: placeholders (`${hash_sharded}`), and
blocks between the lines `-- only postgres` (or `-- only cockroach`) and `-- end`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Dialect = Literal["postgres", "cockroach"]

PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
SQL_DIR = Path(__file__).parent / "sql"

PLACEHOLDERS: dict[Dialect, dict[str, str]] = {
    "postgres": {"hash_sharded": "", "expires_in_one_hour": "", "expires_in_one_day": ""},
    "cockroach": {
        # Keys that grow with time would otherwise all be written to one range.
        "hash_sharded": "USING HASH WITH (bucket_count = 16)",
        "expires_in_one_hour": " WITH (ttl_expire_after = '1 hour', ttl_job_cron = '@hourly')",
        "expires_in_one_day": " WITH (ttl_expire_after = '1 day', ttl_job_cron = '@hourly')",
    },
}


def render(text: str, dialect: Dialect) -> str:
    """The SQL of `text` for a dialect; raises `ValueError` on an unknown placeholder or a block that does not end."""
    lines: list[str] = []
    only: str | None = None
    for line in text.splitlines():
        if line.startswith("-- only "):
            if only is not None:
                raise ValueError(f"Block `-- only {only}` has no `-- end`.")
            only = line.removeprefix("-- only ").strip()
            if only not in PLACEHOLDERS:
                raise ValueError(f"Unknown dialect: {only}.")
        elif line.strip() == "-- end":
            only = None
        elif only in (None, dialect):
            lines.append(line)
    if only is not None:
        raise ValueError(f"Block `-- only {only}` has no `-- end`.")
    try:
        return PLACEHOLDER.sub(lambda match: PLACEHOLDERS[dialect][match[1]], "\n".join(lines))
    except KeyError as error:
        raise ValueError(f"Unknown placeholder: {error.args[0]}.") from error


def statements(sql: str) -> Iterator[str]:
    """The single statements of plain SQL whose statements end with `;` at the end of a line."""
    pending: list[str] = []
    for line in sql.splitlines():
        if not line.strip() or line.lstrip().startswith("--"):
            continue
        pending.append(line)
        if line.rstrip().endswith(";"):
            yield "\n".join(pending).rstrip().removesuffix(";")
            pending = []
    if pending:
        raise ValueError(f"The last statement has no semicolon: {pending[0].strip()}")


def revision_statements(revision: str, names: tuple[str, ...], dialect: Dialect) -> list[str]:
    """The statements of the named `.sql` files of a revision, in order."""
    return [
        statement
        for name in names
        for statement in statements(render((SQL_DIR / revision / f"{name}.sql").read_text("utf-8"), dialect))
    ]
