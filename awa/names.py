"""What a name may be: of queues, kinds and tags."""

from __future__ import annotations

from typing import Final

from awa.errors import InvalidJob

MAX_QUEUE_CHARACTERS: Final = 200
MAX_KIND_CHARACTERS: Final = 200


def check_name(value: object, field: str, max_characters: int) -> str:
    """A queue's or a kind's name.

    Args:
        value: what somebody gave.
        field: how error messages call it.
        max_characters: it may have.

    Raises:
        InvalidJob: not text, empty, too long, or with characters that cannot be printed.

    >>> check_name("email", "queue", 200)
    'email'
    """
    if not isinstance(value, str):
        raise InvalidJob(field, f"must be text, not {type(value).__name__}")
    if not value:
        raise InvalidJob(field, "must not be empty")
    if len(value) > max_characters:
        raise InvalidJob(field, f"{len(value)} characters, the limit is {max_characters}")
    if not value.isprintable():
        raise InvalidJob(field, "contains control or unprintable characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidJob(field, "contains a lone surrogate") from None
    return value
