"""Imported by every worker process as it starts: sets Django up, as manage.py does, and finds the project's tasks."""

import django
from django.apps import apps

from awa.contrib.django.discovery import autodiscover

if not apps.ready:
    django.setup()
autodiscover()
