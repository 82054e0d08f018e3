"""Jobs and queues as Django models: to look at, never to write. The tables are awa's."""

from __future__ import annotations

from typing import Any

from django.db import models

from awa.contrib.django.conf import awa_settings


class StoredJson(models.JSONField):
    """A `json` column, which psycopg has decoded already, or a `jsonb` one, which Django asks it not to decode."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """The decoded value."""
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class OfAwasDatabase(models.Manager):
    """Reads from `AWA["DATABASE"]`, whatever a router says of reads."""

    def get_queryset(self) -> models.QuerySet:
        """All, from there."""
        return super().get_queryset().using(awa_settings().database)


class Job(models.Model):
    """A job as the view `awa.jobs` has it. A query without a bound reads the whole history; prefer `by_id`."""

    id = models.BigIntegerField(primary_key=True, db_column="job_id")
    queue = models.TextField()
    priority = models.SmallIntegerField()
    kind = models.TextField()
    args = StoredJson()
    state = models.TextField()  # without choices: a new state would be a migration of every project
    attempt = models.SmallIntegerField()
    max_attempts = models.SmallIntegerField()
    run_lease = models.IntegerField()
    run_at = models.DateTimeField()
    created_at = models.DateTimeField()
    claimed_at = models.DateTimeField(null=True)
    finalized_at = models.DateTimeField(null=True)
    runtime_id = models.BigIntegerField(null=True)
    payload = StoredJson(null=True)

    objects = OfAwasDatabase()

    class Meta:
        """A view."""

        managed = False
        db_table = '"awa"."jobs"'
        default_permissions = ("view",)
        permissions = (("cancel_job", "Can cancel jobs"), ("retry_job", "Can retry jobs"))

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @classmethod
    def by_id(cls, job_id: int) -> Job | None:
        """The job of that id, by point probes whatever the size of the history."""
        found = list(cls.objects.raw("SELECT * FROM awa.get_job(%s)", [job_id]))
        return found[0] if found else None


class Queue(models.Model):
    """A queue that was ever paused or given a rule; the admin shows the counts of all of them."""

    queue = models.TextField(primary_key=True)

    objects = OfAwasDatabase()

    class Meta:
        """A table of awa's."""

        managed = False
        db_table = '"awa"."queue_controls"'
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.queue}"
