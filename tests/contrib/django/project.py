"""The settings of the tests' Django project; each test gives `default` a database of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import django
import psycopg
from django.conf import settings
from django.db import connections, transaction

HAS_TASKS = django.VERSION >= (6, 0)
ROOT = Path(__file__).parents[3]


def configure() -> None:
    """Set Django up, once a process."""
    postgresql = {"ENGINE": "django.db.backends.postgresql", "NAME": "none yet"}
    settings.configure(
        SECRET_KEY="not a secret",
        ALLOWED_HOSTS=["testserver"],
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "awa.contrib.django",
            "tests.contrib.django.shop",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DATABASES={
            "default": dict(postgresql),
            "other": dict(postgresql),
            "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        },
        MIGRATION_MODULES={"shop": None},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="tests.contrib.django.urls",
        STATIC_URL="static/",
        USE_TZ=True,
        TASKS={
            "default": {"BACKEND": "awa.contrib.django.tasks.AwaBackend", "QUEUES": []},
            "stubborn": {
                "BACKEND": "awa.contrib.django.tasks.AwaBackend",
                "QUEUES": [],
                "OPTIONS": {"retry": [0.0], "max_attempts": 3},
            },
        },
    )
    django.setup()


class Changed(Exception):
    """Of mind."""


@contextmanager
def rolled_back() -> Iterator[None]:
    """An atomic block that ends in an exception."""
    with suppress(Changed), transaction.atomic():
        yield
        raise Changed


def use_database(alias: str, dsn: str) -> None:
    """Let a Django alias name the database of a connection URL, in every thread."""
    parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(dsn)
    connections[alias].close()
    connections[alias].settings_dict.update(
        NAME=parts.pop("dbname"),
        USER=parts.pop("user", ""),
        PASSWORD=parts.pop("password", ""),
        HOST=parts.pop("host", ""),
        PORT=str(parts.pop("port", "")),
        OPTIONS=parts,
    )


if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
