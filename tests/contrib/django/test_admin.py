"""The admin shows jobs and queues, retries and cancels, and edits nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

import awa
from awa.contrib.django import admin as awa_admin
from awa.contrib.django import client
from tests.contrib.django.shop.tasks import confirm, ship
from tests.worker.support import wait_for_counts

pytestmark = pytest.mark.usefixtures("djangos_database")

JOBS = "/admin/awa/job/"
QUEUES = "/admin/awa/queue/"


def browser(*permissions: str) -> Client:
    """A member of staff with these permissions of awa's, logged in."""
    user = User.objects.create_user(f"user{User.objects.count()}", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="awa", codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    made = Client()
    made.force_login(user)
    return made


def act(browser: Client, action: str, *ids: int, **more: str) -> str:
    """The page after an action."""
    answer = browser.post(JOBS, {"action": action, "_selected_action": list(map(str, ids)), **more}, follow=True)
    return str(answer.content.decode())


def rows(page: str) -> int:
    """Jobs that a list shows."""
    return page.count('class="field-kind"')


def shown(browser: Client, **query: str) -> str:
    """A list of jobs."""
    answer = browser.get(JOBS, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_jobs_are_listed_and_filtered() -> None:
    ship.enqueue("a")
    cancelled = ship.enqueue("b")
    confirm.enqueue("c")
    client().cancel(cancelled)
    staff = browser("view_job")
    page = shown(staff)
    assert rows(page) == 3
    assert page.index(">confirm<") < page.index(">ship<")  # the newest first
    assert rows(shown(staff, queue="mail")) == 1
    assert rows(shown(staff, state="cancelled")) == 1
    assert rows(shown(staff, kind="ship")) == 2
    assert rows(shown(staff, kind="ship", state="available")) == 1


def test_completed_jobs_are_listed_when_asked_for(outside: awa.Client, dsn: str) -> None:
    client().enqueue_many([{"order": str(n)} for n in range(5)], kind=confirm)
    with awa.Worker({"mail": 2}, dsn=dsn):
        wait_for_counts(outside, "mail", completed=5)
    ship.enqueue("a")
    staff = browser("view_job")
    assert rows(shown(staff)) == 1
    assert "all but completed" in shown(staff)
    assert rows(shown(staff, state="completed")) == 5
    assert rows(shown(staff, state="completed", queue="mail")) == 5
    assert rows(shown(staff, state="completed", queue="default")) == 0


def test_of_completed_jobs_the_last_to_be_claimed_are_listed(
    outside: awa.Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awa_admin, "MAX_LISTED", 3)
    ids = []
    with awa.Worker({"mail": 1}, dsn=dsn):
        for n in range(5):
            ids.append(confirm.enqueue(str(n)))
            wait_for_counts(outside, "mail", completed=n + 1)
    page = shown(browser("view_job"), state="completed")
    assert [f"/admin/awa/job/{job_id}/change/" in page for job_id in ids] == [False, False, True, True, True]


def test_the_list_counts_no_further_than_it_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awa_admin, "MAX_LISTED", 7)
    client().enqueue_many([{"order": str(n)} for n in range(20)], kind=ship)
    staff = browser("view_job")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        page = shown(staff)
    assert "7 jobs" in page
    counted = [query["sql"] for query in queries if "COUNT(" in query["sql"].upper() and "awa" in query["sql"]]
    assert counted
    assert all("LIMIT 7" in sql for sql in counted)


def test_a_search_opens_the_job_of_that_id() -> None:
    job_id = ship.enqueue("<a>")
    staff = browser("view_job")
    answer = staff.get(JOBS, {"q": str(job_id)}, follow=True)
    assert answer.redirect_chain == [(f"{JOBS}{job_id}/change/", 302)]
    page = answer.content.decode()
    assert "&lt;a&gt;" in page
    assert "available" in page
    assert 'name="_save"' not in page


@pytest.mark.parametrize("searched", ["0", "99999999999999999999999", "ship"])
def test_a_search_for_what_is_not_there_says_so(searched: str) -> None:
    answer = browser("view_job").get(JOBS, {"q": searched}, follow=True)
    assert f"There is no job {searched}." in answer.content.decode()


def test_a_failed_jobs_page_has_its_errors_and_it_can_be_retried(outside: awa.Client, dsn: str) -> None:
    @awa.task(retry=False)
    def fail() -> None:
        raise ValueError("out of <paper>")

    job_id = fail.enqueue()
    with awa.Worker({"default": 1}, dsn=dsn):
        wait_for_counts(outside, "default", dead_lettered=1)
    staff = browser("view_job", "retry_job")
    page = staff.get(f"{JOBS}{job_id}/change/").content.decode()
    assert "ValueError: out of &lt;paper&gt;" in page
    assert "1 of 25" in page
    assert "1 jobs retried" in act(staff, "retry_jobs", job_id)
    job = outside.get_job(job_id)
    assert job is not None
    assert job.state == "available"
    assert "0 jobs retried, 1 left as they were" in act(staff, "retry_jobs", job_id)


def test_jobs_are_cancelled_and_problems_are_told(outside: awa.Client) -> None:
    first, second = ship.enqueue("a"), ship.enqueue("b")
    staff = browser("view_job", "cancel_job")
    assert "2 jobs cancelled" in act(staff, "cancel_jobs", first, second)
    assert outside.queue_counts("default").cancelled == 2


def test_select_across_takes_every_job_of_the_filter(outside: awa.Client) -> None:
    ids = client().enqueue_many([{"order": str(n)} for n in range(5)], kind=ship)
    assert "5 jobs cancelled" in act(browser("view_job", "cancel_job"), "cancel_jobs", ids[0], select_across="1")
    assert outside.queue_counts("default").cancelled == 5


def test_each_action_needs_its_permission(outside: awa.Client) -> None:
    job_id = ship.enqueue("a")
    page = shown(browser("view_job"))
    assert "cancel_jobs" not in page
    assert "retry_jobs" not in page
    act(browser("view_job"), "cancel_jobs", job_id)
    act(browser("view_job", "retry_job"), "cancel_jobs", job_id)
    assert outside.queue_counts("default").available == 1
    page = shown(browser("view_job", "cancel_job"))
    assert "cancel_jobs" in page
    assert "retry_jobs" not in page


@pytest.mark.parametrize("path", [JOBS, QUEUES])
def test_nobody_without_the_permission_sees_anything(path: str) -> None:
    assert browser().get(path).status_code == 403
    assert Client().get(path).status_code == 302


@pytest.mark.parametrize("path", [f"{JOBS}add/", f"{QUEUES}add/", f"{JOBS}1/delete/"])
def test_even_a_superuser_edits_nothing(path: str) -> None:
    User.objects.create_superuser("root", password="x")
    root = Client()
    root.force_login(User.objects.get(username="root"))
    answer = root.get(path, follow=True)
    assert answer.status_code == 403 or [url for url, _ in answer.redirect_chain] == ["/admin/"]


def test_queues_are_counted() -> None:
    ship.enqueue("a")
    confirm.enqueue("b")
    client().pause_queue("mail")
    page = browser("view_queue").get(QUEUES).content.decode()
    assert "<th>default</th>" in page
    assert "<th>mail (paused)</th>" in page
    assert 'href="/admin/awa/job/?queue=mail&amp;state=available">1</a>' in page


def test_a_list_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    # No mock: a view that sleeps is what a long history looks like to the list.
    monkeypatch.setattr(awa_admin, "MAX_SECONDS", "0.2")
    with psycopg.connect(dsn) as conn:
        definition: Any = conn.execute("SELECT pg_get_viewdef('awa.jobs')").fetchall()[0][0]
        conn.execute(f"CREATE OR REPLACE VIEW awa.jobs AS SELECT j.* FROM ({definition.rstrip(';')}) j, pg_sleep(9)")
    answer = browser("view_job").get(JOBS)
    assert answer.status_code == 503
    assert b"the history is long" in answer.content


def test_the_admin_reads_awas_database(outside: awa.Client, empty_dsn: str) -> None:
    from tests.contrib.django import project

    ship.enqueue("a")
    staff = browser("view_job")
    project.use_database("other", empty_dsn)
    assert rows(shown(staff)) == 1
    with override_settings(AWA={"DATABASE": "other"}), pytest.raises(Exception, match=r"awa\.(jobs|queue_lanes)"):
        shown(staff)
