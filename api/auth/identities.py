"""People as they sign up and sign in."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import psycopg

from api.auth.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from api.context import Context
from api.database import Transaction
from api.errors import ApiError, unprocessable

USERNAME = re.compile(r"[A-Za-z0-9_]{1,30}", re.ASCII)
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,250}\.[^@\s.]{2,}")
# Names that would pass for the server itself.
RESERVED = frozenset(["admin", "administrator", "root", "support", "system", "fanline", "moderator", "api", "oauth"])

INSERT_USER = "INSERT INTO users (id, username) VALUES (%(id)s, %(username)s)"
INSERT_IDENTITY = """
INSERT INTO identities (user_id, email, password_hash, locale)
VALUES (%(id)s, %(email)s, %(password_hash)s, %(locale)s)
"""
SELECT_SIGN_IN = """
SELECT i.user_id, i.password_hash, u.suspended_at
FROM identities i JOIN users u ON u.id = i.user_id
WHERE lower(i.email) = lower(%(name)s) OR lower(u.username) = lower(%(name)s)
"""


def check_sign_up(username: str, email: str, password: str) -> None:
    """Refuse what cannot be used, all faults at once; raises `ApiError` 422."""
    faults = []
    if not USERNAME.fullmatch(username):
        faults.append("Username must contain only letters, numbers and underscores, at most 30")
    elif username.lower() in RESERVED:
        faults.append("Username is reserved")
    if len(email) > 320 or not EMAIL.fullmatch(email):
        faults.append("Email is invalid")
    if len(password) < MIN_CHARACTERS:
        faults.append(f"Password is too short (minimum is {MIN_CHARACTERS} characters)")
    elif len(password) > MAX_CHARACTERS:
        faults.append(f"Password is too long (maximum is {MAX_CHARACTERS} characters)")
    if faults:
        raise unprocessable("Validation failed: " + ", ".join(faults))


async def insert_person(transaction: Transaction, username: str, email: str, password_hash: str, locale: str) -> UUID:
    """A new person; raises `ApiError` 422 when the name or the address is taken.

    The address counts as confirmed: this server sends no mail.
    """
    user_id = uuid4()
    parameters: Mapping[str, Any] = {
        "id": user_id,
        "username": username,
        "email": email,
        "password_hash": password_hash,
        "locale": locale,
    }
    try:
        await transaction.execute(INSERT_USER, parameters)
        await transaction.execute(INSERT_IDENTITY, parameters)
    except psycopg.errors.UniqueViolation as error:
        taken = "Email" if error.diag.constraint_name == "identities_email" else "Username"
        raise unprocessable(f"Validation failed: {taken} has already been taken") from error
    return user_id


async def sign_in(context: Context, name: str, password: str) -> UUID | None:
    """The person with this e-mail address or username and password; None when there is none.

    Raises `ApiError` 429 after too many wrong passwords for one name, and 403 when the person is suspended.
    """
    subject = f"sign-in:{name.lower()[:320]}"
    limit = context.settings.sign_in_failures
    if context.limiter.peek(subject, limit).remaining <= 0:
        raise ApiError(429, "Too many attempts to sign in")
    row = await context.database.row(SELECT_SIGN_IN, {"name": name})
    matches = len(password) <= MAX_CHARACTERS and await context.passwords.verify(
        None if row is None else row["password_hash"], password
    )
    if row is None or not matches:
        context.limiter.hit(subject, limit)
        return None
    if row["suspended_at"] is not None:
        raise ApiError(403, "Your login is currently disabled")
    user_id: UUID = row["user_id"]
    return user_id
