"""Orders."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """Something was bought."""

    name = models.CharField(max_length=100, unique=True)
