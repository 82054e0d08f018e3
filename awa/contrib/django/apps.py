"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from awa.client import set_default_client


class AwaConfig(AppConfig):
    """`INSTALLED_APPS = [..., "awa.contrib.django"]`."""

    name = "awa.contrib.django"
    label = "awa"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Make Django's connection the default client's, and every job clean up as a request does."""
        from awa.contrib.django import checks  # noqa: F401 - registers them
        from awa.contrib.django.clients import client
        from awa.contrib.django.lifecycle import fresh_connections, fresh_connections_of_coroutines
        from awa.contrib.django.schema import after_migrate
        from awa.hooks import around_jobs

        set_default_client(client)
        around_jobs(fresh_connections, coroutines=fresh_connections_of_coroutines)
        post_migrate.connect(after_migrate, sender=self, dispatch_uid="awa.contrib.django")
