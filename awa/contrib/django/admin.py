"""The admin: jobs to look at, to retry and to cancel; queues with their counts. Nothing is edited here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html

from awa.contrib.django.clients import client
from awa.contrib.django.conf import awa_settings
from awa.contrib.django.discovery import autodiscover
from awa.contrib.django.models import Job, Queue
from awa.errors import AwaError
from awa.job import STATES
from awa.task import registered_tasks

MAX_LISTED: Final = 1000
"""Jobs that the list pages through."""
MAX_SECONDS: Final = 5
"""For the list's query, which reads the history."""


class BoundedPaginator(Paginator):
    """Counts to `MAX_LISTED` and no further: counting a history reads all of it."""

    @cached_property
    def count(self) -> int:
        """At most `MAX_LISTED`."""
        return int(self.object_list.order_by()[:MAX_LISTED].count())


class ReadOnly(admin.ModelAdmin):
    """Nobody adds, changes or deletes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """No."""
        return False


class StateFilter(admin.SimpleListFilter):
    """By state. Completed jobs are the bulk of a history and seldom looked for: they are shown when asked for."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Every state."""
        return [(state, state.replace("_", " ")) for state in STATES]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """The states, after what the list shows by itself."""
        first, *others = super().choices(changelist)
        yield {**first, "display": "all but completed"}
        yield from others

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The jobs of one; of the completed, those among the last to be claimed: to sort them all is to read them all."""
        if self.value() is None:
            return queryset.exclude(state="completed")
        if self.value() == "completed":
            with connections[awa_settings().database].cursor() as cursor:
                cursor.execute("SELECT awa.recently_claimed(%s, %s)", [request.GET.get("queue"), MAX_LISTED])
                queryset = queryset.filter(pk__in=[job_id for (job_id,) in cursor.fetchall()])
        return queryset.filter(state=self.value())


class QueueFilter(admin.SimpleListFilter):
    """By queue."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Every queue that ever had a job: one row of a small table each."""
        with connections[awa_settings().database].cursor() as cursor:
            cursor.execute("SELECT DISTINCT queue FROM awa.queue_lanes ORDER BY queue")
            return [(name, name) for (name,) in cursor.fetchall()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The jobs of one."""
        return queryset if self.value() is None else queryset.filter(queue=self.value())


class KindFilter(admin.SimpleListFilter):
    """By kind."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """The project's tasks; the history is not asked which kinds it has."""
        autodiscover()
        return [(kind, kind) for kind in sorted(registered_tasks())]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """The jobs of one."""
        return queryset if self.value() is None else queryset.filter(kind=self.value())


@admin.register(Job)
class JobAdmin(ReadOnly):
    """The newest jobs that have not simply completed; a number in the search box opens the job of that id."""

    list_display = ("id", "kind", "queue", "state", "priority", "tries", "run_at", "finalized_at")
    list_filter = (StateFilter, QueueFilter, KindFilter)
    list_per_page = 100
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = "The id of a job"
    show_full_result_count = False
    paginator = BoundedPaginator
    actions = ("retry_jobs", "cancel_jobs")
    fields = (
        *("id", "kind", "state", "queue", "priority", "tries", "shown_args"),
        *("created_at", "run_at", "claimed_at", "finalized_at", "runtime_id"),
        *("shown_tags", "shown_metadata", "shown_progress", "shown_result", "shown_errors"),
    )
    readonly_fields = fields

    @admin.display(description="tries")
    def tries(self, job: Job) -> str:
        """Of how many."""
        return f"{job.attempt} of {job.max_attempts}"

    @admin.display(description="arguments")
    def shown_args(self, job: Job) -> str:
        """As JSON."""
        return _json(job.args)

    @admin.display(description="tags")
    def shown_tags(self, job: Job) -> str:
        """Joined."""
        return ", ".join(_of(job, "tags") or ()) or "-"

    @admin.display(description="metadata")
    def shown_metadata(self, job: Job) -> str:
        """As JSON."""
        return _json(_of(job, "metadata"))

    @admin.display(description="progress")
    def shown_progress(self, job: Job) -> str:
        """As JSON."""
        return _json(_of(job, "progress"))

    @admin.display(description="result")
    def shown_result(self, job: Job) -> str:
        """As JSON."""
        return _json(_of(job, "result"))

    @admin.display(description="errors")
    def shown_errors(self, job: Job) -> str:
        """The newest ten, oldest first."""
        lines = [
            f"attempt {error.get('attempt', '?')}, {error.get('at', '')}\n{error.get('traceback', '')}"
            f"{error.get('type', '')}: {error.get('message', '')}"
            for error in _of(job, "errors") or ()
        ]
        return _preformatted("\n\n".join(lines)) if lines else "-"

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Job | None:
        """By point probes, not through the view."""
        return Job.by_id(int(object_id)) if object_id.isdecimal() and int(object_id) < 2**63 else None

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, or the job whose id is searched for."""
        searched = request.GET.get("q", "").strip()
        if request.method == "GET" and searched:
            if self.get_object(request, searched) is not None:
                found = reverse("admin:awa_job_change", args=[searched], current_app=self.admin_site.name)
                return HttpResponseRedirect(found)
            self.message_user(request, f"There is no job {searched}.", messages.WARNING)
            return HttpResponseRedirect(request.path)
        if request.method != "GET":
            return super().changelist_view(request, extra_context)
        try:
            with _bounded_time():
                response = super().changelist_view(request, {"title": "Jobs", **(extra_context or {})})
                return response.render() if isinstance(response, TemplateResponse) else response
        except OperationalError as error:
            if "statement timeout" not in str(error):
                raise
            problem = f"The list took more than {MAX_SECONDS} s and was given up: the history is long. Search by id instead."
            return HttpResponse(problem, status=503, content_type="text/plain")

    @admin.action(description="Retry selected jobs", permissions=["retry"])
    def retry_jobs(self, request: HttpRequest, queryset: Any) -> None:
        """Failed and dead-lettered ones; others stay as they are."""
        self._each(request, queryset, client().retry, "retried")

    @admin.action(description="Cancel selected jobs", permissions=["cancel"])
    def cancel_jobs(self, request: HttpRequest, queryset: Any) -> None:
        """Those that have not ended."""
        self._each(request, queryset, client().cancel, "cancelled")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Who may see the action."""
        return bool(request.user.has_perm("awa.retry_job"))

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Who may see the action."""
        return bool(request.user.has_perm("awa.cancel_job"))

    def _each(self, request: HttpRequest, queryset: Any, act: Callable[[int], object], done: str) -> None:
        chosen = [int(text) for text in request.POST.getlist(admin.helpers.ACTION_CHECKBOX_NAME) if text.isdecimal()]
        if request.POST.get("select_across") == "1":
            chosen = list(queryset.values_list("pk", flat=True)[:MAX_LISTED])
        changed, left, failed = 0, 0, []
        for job_id in chosen:
            try:
                if act(job_id):
                    changed += 1
                else:
                    left += 1
            except AwaError as error:
                failed.append(f"{job_id}: {error}")
        said = f"{changed} jobs {done}" + (f", {left} left as they were" if left else "")
        self.message_user(request, said, messages.SUCCESS if changed else messages.WARNING)
        for problem in failed:
            self.message_user(request, problem, messages.ERROR)


@admin.register(Queue)
class QueueAdmin(ReadOnly):
    """One page: the counts."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Every queue that ever had a job."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Queues",
            "opts": self.model._meta,
            "states": [state.replace("_", " ") for state in STATES],
            "queues": [
                (counts.queue, counts.paused, [(state, getattr(counts, state)) for state in STATES])
                for counts in client().list_queues(exact=False)
            ],
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/awa/queue/counts.html", context)

    def change_view(self, request: HttpRequest, object_id: str, *_: Any, **__: Any) -> HttpResponse:
        """There is none."""
        return HttpResponseRedirect(reverse("admin:awa_queue_changelist", current_app=self.admin_site.name))


@contextmanager
def _bounded_time() -> Iterator[None]:
    with transaction.atomic(using=awa_settings().database):
        with connections[awa_settings().database].cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{MAX_SECONDS}s'")
            cursor.execute("SET LOCAL jit = off")
        yield


def _of(job: Job, name: str) -> Any:
    payload: dict[str, Any] = job.payload or {}
    return payload.get(name)


def _json(value: object) -> str:
    return "-" if value is None else _preformatted(json.dumps(value, indent=2, ensure_ascii=False))


def _preformatted(text: str) -> str:
    return str(format_html("<pre>{}</pre>", text))
