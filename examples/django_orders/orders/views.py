"""Taking orders."""

import json

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from orders.models import Order, Shipment
from orders.tasks import ship_order

IN_STOCK = 100


class OutOfStock(Exception):
    """We have not so many."""


@csrf_exempt
@require_POST
def create_order(request: HttpRequest) -> JsonResponse:
    """`POST {"item": ..., "quantity": ...}`: the order and its job are committed together, or neither is."""
    wanted = json.loads(request.body)
    try:
        with transaction.atomic():
            order = Order.objects.create(item=wanted["item"], quantity=wanted["quantity"])
            job_id = ship_order.enqueue(order_id=order.pk)
            if order.quantity > IN_STOCK:  # found out late, as such things are
                raise OutOfStock
    except OutOfStock:
        return JsonResponse({"error": f"only {IN_STOCK} in stock"}, status=409)
    return JsonResponse({"order": order.pk, "job": job_id}, status=201)


def show_order(request: HttpRequest, order_id: int) -> JsonResponse:
    """`GET`: the order, and whether it was shipped."""
    order = get_object_or_404(Order, pk=order_id)
    shipped = Shipment.objects.filter(order=order).exists()
    return JsonResponse({"order": order.pk, "item": order.item, "quantity": order.quantity, "shipped": shipped})
