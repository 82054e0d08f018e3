"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """Somebody wants something."""

    item = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField()


class Shipment(models.Model):
    """It is on its way. One an order, however often the job is tried."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT)
    job_id = models.BigIntegerField()
    attempt = models.PositiveIntegerField()
