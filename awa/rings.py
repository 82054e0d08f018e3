"""The nouns of storage: rings, their slots, and for how long what is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, get_args

from attrs import Attribute, field, frozen

from awa.errors import ConfigurationError

Ring = Literal["queue", "claim", "lease", "terminal"]

RINGS: Final[tuple[Ring, ...]] = get_args(Ring)
PRUNE_ORDER: Final[tuple[Ring, ...]] = ("claim", "queue", "lease", "terminal")
"""Bodies are kept as long as the claims that name them: so claims go first."""


def _span(instance: object, attribute: Attribute[Any], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10 * 365 * 86400:
        raise ConfigurationError(f"{attribute.name} must be a number of seconds from 0 to ten years, not {value!r}")


def _bytes(minimum: int) -> Any:
    def check(instance: object, attribute: Attribute[Any], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < 2**60:
            raise ConfigurationError(f"{attribute.name} must be a number of bytes, at least {minimum}, not {value!r}")

    return check


@frozen(kw_only=True)
class StorageSettings:
    """For how long what is kept. Stored in the database, where its defaults are, so that all processes agree.

    Args:
        completed_retention: seconds that completed jobs are kept, counted from the last ending of their slot.
        history_max_bytes: what they may occupy; above it the oldest go before their time.
        terminal_retention: seconds that failed and cancelled jobs are kept.
        dead_letter_retention: seconds that jobs stay in the dead-letter queue.
        materialize_after: seconds after its claim slot was sealed until a running attempt gets a lease of its own.
        lease_rotate_bytes: a slot of leases that has grown so large is left for a fresh one.

    Raises:
        ConfigurationError: naming the setting and its limit.
    """

    completed_retention: float = field(validator=_span)
    history_max_bytes: int = field(validator=_bytes(1 << 20))
    terminal_retention: float = field(validator=_span)
    dead_letter_retention: float = field(validator=_span)
    materialize_after: float = field(validator=_span)
    lease_rotate_bytes: int = field(validator=_bytes(8192))


@frozen(kw_only=True)
class SlotStatus:
    """One slot of a ring, as the database has it.

    `bytes` is None for a slot that was locked; `held_reason` says why it was not pruned when it was looked at last,
    `held_since` since when that is so.
    """

    ring: Ring
    slot: int
    is_current: bool
    generation: int | None
    began_at: datetime | None
    sealed_at: datetime | None
    closed_at: datetime | None
    prunes: int
    bytes: int | None
    held_reason: str | None
    held_since: datetime | None
