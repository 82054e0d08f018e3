"""Django's TestCase: every test is one open transaction, and its jobs run inside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

PROJECT = '''
"""A Django project of one file, and its tests."""

import os
import sys
from datetime import timedelta

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not a secret",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "awa.contrib.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["NAME"], "USER": os.environ["USER"],
                           "HOST": os.environ["HOST"], "TEST": {"NAME": os.environ["NAME"] + "_django"}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()

from django.contrib.auth.models import Group
from django.db import IntegrityError, connection, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner

import awa
from awa.testing import Clock, all_enqueued, assert_enqueued, drain, inline, refute_enqueued

client = awa.Client("postgresql:///?host=/nowhere", connect_timeout=0.1)  # whose own connections must not be needed


@awa.task(queue="email")
def found_group(name: str) -> None:
    Group.objects.create(name=name)


@awa.task(queue="email")
def found_safely(name: str) -> str:
    try:
        with transaction.atomic():
            Group.objects.create(name=name)
    except IntegrityError:
        return "there is one"
    return "founded"


@awa.task
def found_in_transaction(ctx: awa.JobContext, name: str) -> None:
    with ctx.transaction() as conn:
        assert conn is connection.connection
        Group.objects.create(name=name)


@awa.task
def count(n: int) -> None: ...


def enqueue(task, **args):
    return client.enqueue(task, args, connection="default")


class JobsInTestCase(TestCase):
    @classmethod
    def setUpTestData(cls):
        Group.objects.create(name="staff")

    def setUp(self):
        assert all_enqueued(connection="default") == [], "the test before was rolled back, jobs and all"

    def test_jobs_run_in_the_tests_transaction(self):
        enqueue(found_group, name="editors")
        assert_enqueued(found_group, args={"name": "editors"}, connection="default")
        self.assertEqual(drain(connection="default").completed, 1)
        refute_enqueued(connection="default")
        self.assertTrue(Group.objects.filter(name="editors").exists())

    def test_what_the_test_before_has_done_is_undone(self):
        self.assertEqual(list(Group.objects.values_list("name", flat=True)), ["staff"])
        enqueue(found_group, name="editors")

    def test_jobs_of_an_atomic_block_run(self):
        with transaction.atomic():
            enqueue(found_group, name="a")
            with transaction.atomic():
                enqueue(found_group, name="b")
        self.assertEqual(drain(connection=connection).completed, 2)

    def test_a_failed_query_of_a_handler_leaves_the_test_usable(self):
        enqueue(found_group, name="staff")
        with self.assertRaises(IntegrityError):
            drain(connection="default")
        self.assertEqual(Group.objects.count(), 1)
        [job] = assert_enqueued(found_group, connection="default")
        self.assertEqual((job.state, job.attempt), ("retryable", 1))
        with Clock() as clock:
            clock.move(minutes=1)
            Group.objects.all().delete()
            self.assertEqual(drain(connection="default").completed, 1)

    def test_a_handler_may_catch_what_its_atomic_block_raises(self):
        enqueue(found_safely, name="staff")
        enqueue(found_safely, name="editors")
        self.assertEqual(drain(connection="default").completed, 2)
        self.assertEqual(Group.objects.count(), 2)

    def test_jobs_enqueued_on_commit_are_there_when_the_callbacks_have_run(self):
        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: enqueue(found_group, name="editors"))
        self.assertEqual(drain(connection="default").completed, 1)

    def test_later_jobs_run_when_the_clock_says_so(self):
        with Clock() as clock:
            client.enqueue(found_group, {"name": "x"}, run_at=clock.now() + timedelta(days=1), connection="default")
            self.assertEqual(drain(connection="default").total, 0)
            clock.move(days=1)
            self.assertEqual(drain(connection="default").total, 1)

    def test_what_the_default_client_enqueues_is_in_the_tests_transaction(self):
        found_group.enqueue(name="editors")
        [job] = assert_enqueued(found_group, args={"name": "editors"})
        self.assertEqual(drain(connection="default").completed, 1)
        self.assertEqual(awa.default_client().get_job(job.id).state, "completed")
        refute_enqueued()

    def test_jobs_run_inline(self):
        with inline():
            found_group.options(client=client).enqueue(name="inline")
        self.assertTrue(Group.objects.filter(name="inline").exists())


    def test_inline_jobs_are_of_the_tests_transaction(self):
        with inline() as ran:
            found_in_transaction.enqueue(name="inline")
            awa.default_client().enqueue_many_copy([{"name": "copied"}], kind=found_in_transaction)
        self.assertEqual([job.state for job in ran.jobs], ["completed"] * 2)
        self.assertEqual(Group.objects.filter(name__in=["inline", "copied"]).count(), 2)


class JobsWithoutADatabase(SimpleTestCase):
    def test_jobs_run_inline(self):
        with inline() as ran:
            count.enqueue(n=1)
            self.assertEqual(awa.default_client().enqueue_many([{"n": 2}], kind=count), [2])
            self.assertEqual(awa.default_client().enqueue_many_copy([{"n": 3}], kind=count), 1)
        self.assertEqual([(job.state, job.args["n"]) for job in ran.jobs], [("completed", n) for n in (1, 2, 3)])


class JobsInTransactionTestCase(TransactionTestCase):
    def test_without_a_transaction_the_error_says_what_to_do(self):
        enqueue(found_group, name="editors")
        with self.assertRaisesRegex(awa.ConfigurationError, "in no transaction"):
            drain(connection="default")

    def test_an_atomic_block_that_has_drained_may_commit(self):
        with transaction.atomic():
            enqueue(found_group, name="editors")
            drain(connection="default")
        self.assertTrue(Group.objects.filter(name="editors").exists())
        refute_enqueued(found_group, args={"name": "editors"}, connection="default")


if __name__ == "__main__":
    sys.exit(bool(DiscoverRunner(verbosity=2).run_tests(["__main__"])))
'''


def test_a_django_projects_tests_run_their_jobs(tmp_path: Path, empty_dsn: str) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    parts = psycopg.conninfo.conninfo_to_dict(empty_dsn)
    names = {"NAME": str(parts["dbname"]), "USER": str(parts.get("user", "")), "HOST": str(parts.get("host", ""))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "project.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("AWA_", "PG"))} | names,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 13 tests" in done.stderr
