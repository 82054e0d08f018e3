"""The awa schema, and the models that look at it."""

from typing import Any, ClassVar

from django.db import migrations, models

from awa.contrib.django.models import StoredJson
from awa.contrib.django.schema import BringUpToDate


class Migration(migrations.Migration):
    """Whatever release of awa is installed when it runs, its whole schema is made; later ones follow by `post_migrate`."""

    initial = True
    atomic = False  # the schema's migration is a transaction of its own
    dependencies: ClassVar[list[Any]] = []

    operations: ClassVar[list[Any]] = [
        BringUpToDate(),
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", models.BigIntegerField(db_column="job_id", primary_key=True, serialize=False)),
                ("queue", models.TextField()),
                ("priority", models.SmallIntegerField()),
                ("kind", models.TextField()),
                ("args", StoredJson()),
                ("state", models.TextField()),
                ("attempt", models.SmallIntegerField()),
                ("max_attempts", models.SmallIntegerField()),
                ("run_lease", models.IntegerField()),
                ("run_at", models.DateTimeField()),
                ("created_at", models.DateTimeField()),
                ("claimed_at", models.DateTimeField(null=True)),
                ("finalized_at", models.DateTimeField(null=True)),
                ("runtime_id", models.BigIntegerField(null=True)),
                ("payload", StoredJson(null=True)),
            ],
            options={
                "db_table": '"awa"."jobs"',
                "managed": False,
                "default_permissions": ("view",),
                "permissions": (("cancel_job", "Can cancel jobs"), ("retry_job", "Can retry jobs")),
            },
        ),
        migrations.CreateModel(
            name="Queue",
            fields=[("queue", models.TextField(primary_key=True, serialize=False))],
            options={"db_table": '"awa"."queue_controls"', "managed": False, "default_permissions": ("view",)},
        ),
    ]
