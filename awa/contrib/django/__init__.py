"""awa for Django: put `"awa.contrib.django"` into INSTALLED_APPS.

`task.enqueue(...)` then joins the transaction of Django's connection, `manage.py migrate` keeps the schema, and
`manage.py awa worker` runs the jobs. See docs/how-to/django.md.
"""

from awa.contrib.django.clients import DjangoClient, client
from awa.contrib.django.conninfo import conninfo
from awa.contrib.django.discovery import autodiscover

__all__ = ["DjangoClient", "autodiscover", "client", "conninfo"]
