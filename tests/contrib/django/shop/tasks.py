"""Tasks that autodiscovery finds."""

from __future__ import annotations

import awa
from tests.contrib.django.shop.models import Order


@awa.task
def ship(order: str) -> None:
    """Write something through the ORM."""
    Order.objects.create(name=f"shipped {order}")


@awa.task(queue="mail")
def confirm(order: str) -> None:
    """A task with a queue of its own."""
