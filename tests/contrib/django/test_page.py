"""The Python of docs/how-to/django.md."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.db import transaction
from django.test import override_settings

import awa
from awa.contrib.django.conf import problems
from tests.contrib.django import project
from tests.contrib.django.shop.models import Order
from tests.docs.pages import blocks, run_block

INSTALLED, TASK, ENQUEUE, SETTINGS, BACKEND = blocks("docs/how-to/django.md", "python")


def values(block: Any) -> dict[str, Any]:
    """What a block of settings sets."""
    names: dict[str, Any] = {}
    asyncio.run(run_block(block, names))
    return {name: value for name, value in names.items() if name.isupper()}


def test_the_app_is_the_one_that_is_installed() -> None:
    assert all(apps.is_installed(name) for name in values(INSTALLED)["INSTALLED_APPS"] if name is not ...)


def test_the_settings_are_known_and_are_the_defaults() -> None:
    given = values(SETTINGS)["AWA"]
    assert problems(given) == []
    with override_settings(AWA=given):
        assert [message.id for message in run_checks() if (message.id or "").startswith("awa.E")] == []


@pytest.mark.skipif(not project.HAS_TASKS, reason="Django has tasks from 6.0 on")
def test_the_backend_is_accepted() -> None:
    with override_settings(**values(BACKEND), AWA={"QUEUES": {"default": 1, "email": 1}}):
        assert [message.id for message in run_checks() if (message.id or "").startswith("awa.")] == []


@pytest.mark.usefixtures("djangos_database")
def test_a_job_is_enqueued_with_the_order(outside: awa.Client) -> None:
    names: dict[str, Any] = {
        "awa": awa,
        "transaction": transaction,
        "Order": SimpleNamespace(objects=SimpleNamespace(create=lambda item: Order.objects.create(name=item))),
    }
    asyncio.run(run_block(TASK, names))
    # Not as a coroutine: on an event loop Django refuses the ORM.
    exec(compile(ENQUEUE.text, str(ENQUEUE), "exec"), names)
    (job,) = outside.list_jobs()
    assert (job.queue, job.kind, job.args) == ("shipping", "ship_order", {"order_id": Order.objects.get().pk})
