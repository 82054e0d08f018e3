"""What happens after an order."""

import time

from sqlalchemy.dialects.postgresql import insert

import awa
from shop.database import Shipment, session


@awa.task(queue="shipping", max_attempts=20)
def ship_order(ctx: awa.JobContext, order_id: int) -> None:
    """Ship an order, once: a job may be tried again after its worker was killed, so what it writes is written once."""
    time.sleep(0.05)  # the carrier takes its time to answer
    shipment = insert(Shipment).values(order_id=order_id, job_id=ctx.id, attempt=ctx.attempt)
    session().execute(shipment.on_conflict_do_nothing())
    session().commit()
