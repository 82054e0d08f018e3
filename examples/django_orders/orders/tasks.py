"""What happens after an order. `manage.py awa worker` finds this module by its name."""

import time

import awa
from orders.models import Order, Shipment


@awa.task(queue="shipping", max_attempts=20)
def ship_order(ctx: awa.JobContext, order_id: int) -> None:
    """Ship an order, once: a job may be tried again after its worker was killed, so it looks before it writes."""
    order = Order.objects.get(pk=order_id)
    time.sleep(0.05)  # the carrier takes its time to answer
    Shipment.objects.get_or_create(order=order, defaults={"job_id": ctx.id, "attempt": ctx.attempt})
