"""Taking orders."""

from flask import Blueprint, abort, request

from shop.database import Order, Shipment, session
from shop.tasks import ship_order

orders = Blueprint("orders", __name__)
IN_STOCK = 100


class OutOfStock(Exception):
    """We have not so many."""


@orders.post("/orders")
def create_order():
    """`{"item": ..., "quantity": ...}`: the order and its job are committed together, or neither is."""
    wanted = request.get_json(force=True)
    try:
        with session().begin():
            order = Order(item=wanted["item"], quantity=wanted["quantity"])
            session().add(order)
            session().flush()  # gives it its id
            job_id = ship_order.options(connection=session()).enqueue(order_id=order.id)
            if order.quantity > IN_STOCK:  # found out late, as such things are
                raise OutOfStock
            answer = {"order": order.id, "job": job_id}
    except OutOfStock:
        return {"error": f"only {IN_STOCK} in stock"}, 409
    return answer, 201


@orders.get("/orders/<int:order_id>")
def show_order(order_id: int):
    """The order, and whether it was shipped."""
    order = session().get(Order, order_id) or abort(404)
    shipped = session().get(Shipment, order_id) is not None
    return {"order": order.id, "item": order.item, "quantity": order.quantity, "shipped": shipped}
