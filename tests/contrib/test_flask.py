"""The Flask extension: a client an application, `flask awa`, jobs in the application's context."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import awa
from awa.contrib.flask import SETTINGS, Awa
from tests.cli.commands import environment
from tests.waiting import wait_for

MODULE = """
import os
import awa
from flask import Flask, current_app, g
from awa.contrib.flask import Awa

extension = Awa()


@awa.task(queue="flask", result=True)
def where(n: int) -> str:
    assert "n" not in g  # a context of its own
    g.n = n
    return f"{current_app.name} {current_app.config['SECRET']} {extension.client is awa.default_client()}"


@awa.task(queue="flask", result=True)
async def where_async(n: int) -> str:
    assert "n" not in g
    g.n = n
    return current_app.config["SECRET"]


def create_app(secret: str = "default") -> Flask:
    app = Flask("shop")
    app.config["SECRET"] = secret
    app.config["AWA_DSN"] = os.environ["SHOP_DSN"]
    app.config["AWA_QUEUES"] = {awa.PartitionedQueue("flask", 2): 2}
    extension.init_app(app)

    @app.teardown_appcontext
    def down(error: BaseException | None) -> None:
        print(f"down {current_app.config['SECRET']}\\n", end="", flush=True)  # one write: threads print at once

    return app
"""


def make_app(dsn: str | None = None, name: str = "app", **config: Any) -> Flask:
    """An application with settings."""
    app = Flask(name)
    app.config.update({"AWA_DSN": dsn, **config})
    return app


def test_an_application_has_one_client_made_from_its_settings(dsn: str) -> None:
    app = make_app(dsn, AWA_MAX_CONNECTIONS=3, AWA_MAX_ARGS_BYTES=100)
    extension = Awa(app)
    assert extension.client is app.extensions["awa"]
    assert (extension.client.settings.max_connections, extension.client.settings.max_args_bytes) == (3, 100)
    assert extension.client.enqueue("work", queue="q") == 1
    with pytest.raises(awa.InvalidJob, match="the limit is 100"):
        extension.client.enqueue("work", {"t": "x" * 100})
    extension.close()


def test_one_extension_serves_many_applications_by_context(dsn: str, client: awa.Client) -> None:
    extension = Awa()
    first, second = make_app(dsn, "first"), make_app(dsn, "second")
    for app in (first, second):
        extension.init_app(app)
    with first.app_context():
        here = extension.client
        assert extension.client is awa.default_client() is first.extensions["awa"]
    with second.app_context():
        assert extension.client is awa.default_client() is second.extensions["awa"] is not here
        extension.close()
    with pytest.raises(RuntimeError, match="outside of application context"):
        extension.client  # noqa: B018 - reading it is the test
    assert awa.default_client() not in (first.extensions["awa"], second.extensions["awa"])
    with Flask("third").app_context(), pytest.raises(awa.ConfigurationError, match="'third' has no awa: call init_app"):
        extension.client  # noqa: B018


def test_a_task_enqueued_in_a_view_goes_to_the_application_s_database(dsn: str, client: awa.Client) -> None:
    app = make_app(dsn)
    extension = Awa(app)

    @awa.task(queue="q")
    def work(n: int) -> None: ...

    @app.post("/")
    def view() -> dict[str, int]:
        return {"job": work.enqueue(n=1)}

    answer = app.test_client().post("/").get_json()
    extension.close()
    job = client.get_job(answer["job"])
    assert job is not None
    assert job.kind == "work"


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(dsn: str) -> None:
    with pytest.raises(awa.ConfigurationError, match="AWA_QUEUE: no such setting; there are AWA_DSN, ") as refused:
        Awa(make_app(dsn, AWA_QUEUE={"q": 1}))
    assert all(name in str(refused.value) for name in SETTINGS)
    with pytest.raises(awa.ConfigurationError, match="max_connections must be positive"):
        Awa(make_app(dsn, AWA_MAX_CONNECTIONS=0))


def test_an_application_gets_one_awa_and_no_second(dsn: str) -> None:
    app = make_app(dsn)
    first = Awa(app)
    with pytest.raises(awa.ConfigurationError, match="'app' has awa already"):
        Awa(app)
    assert first.client is app.extensions["awa"]


def test_a_web_server_does_not_load_the_commands() -> None:
    program = "import sys, awa.contrib.flask; print('rich' in sys.modules, 'awa_cli.main' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_an_application_that_is_gone_takes_its_connections_with_it(dsn: str, conn: Any) -> None:
    app = make_app(dsn)
    Awa(app).client.enqueue("work")
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'awa client' AND datname = current_database()"
    assert conn.execute(mine).fetchall() != [(0,)]
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
    wait_for(lambda: conn.execute(mine).fetchall() == [(0,)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with an application."""
    (tmp_path / "shop.py").write_text(MODULE)
    return tmp_path


def run(folder: Path, dsn: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python ...` to its end."""
    env = {**environment(None), "SHOP_DSN": dsn, **more}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def flask(folder: Path, dsn: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`flask ...` to its end."""
    return run(folder, dsn, "-m", "flask", *arguments, **more)


def test_flask_awa_is_awa_on_the_application_s_database(folder: Path, empty_dsn: str) -> None:
    app = ("--app", "shop")
    assert "Commands:" in flask(folder, empty_dsn, *app, "awa", "--help").stdout
    assert "Usage: flask awa worker" in flask(folder, empty_dsn, *app, "awa", "worker", "--help").stdout
    behind = flask(folder, empty_dsn, *app, "awa", "migrate", "--check")
    assert (behind.returncode, behind.stderr.count("Traceback")) == (3, 0)
    assert flask(folder, empty_dsn, *app, "awa", "migrate", AWA_DSN="dbname=nosuch").returncode == 0
    with awa.Client(empty_dsn) as client:
        client.enqueue("work", queue="mails")
    listed = flask(folder, empty_dsn, *app, "awa", "queue", "list", "--json")
    assert '"mails"' in listed.stdout, listed.stderr
    unknown = flask(folder, empty_dsn, *app, "awa", "nosuch")
    assert (unknown.returncode, unknown.stderr.count("Traceback")) == (2, 0)
    assert "No such command 'nosuch'" in unknown.stderr


@pytest.mark.parametrize("how", [("--app", "shop:create_app('by option')"), ()], ids=["option", "environment"])
def test_jobs_run_in_a_context_of_the_application_each(
    folder: Path, dsn: str, client: awa.Client, how: tuple[str, ...]
) -> None:
    kinds = ["where", "where", "where_async", "where_async"]
    queues = ["flask", "flask__p1"] * 2
    ids = [client.enqueue(kind, {"n": n}, queue=queues[n]) for n, kind in enumerate(kinds)]
    more = {} if how else {"FLASK_APP": "shop:create_app('by environment')"}
    secret = "by option" if how else "by environment"
    done = flask(folder, dsn, *how, "awa", "worker", "--drain", **more)
    assert done.returncode == 0, done.stderr
    found = []
    for job_id in ids:
        job = client.get_job(job_id)
        assert job is not None
        assert job.state == "completed", job.errors
        found.append(job.result)
    assert found == [f"shop {secret} True"] * 2 + [secret] * 2
    assert done.stdout.count(f"down {secret}") >= len(ids)  # what ends a request's context ends a job's


def test_a_worker_of_an_application_without_a_name_is_refused(folder: Path, dsn: str) -> None:
    (folder / "own.py").write_text(
        "import shop\nfrom flask.cli import FlaskGroup\nFlaskGroup(create_app=shop.create_app).main(prog_name='own')\n"
    )
    done = run(folder, dsn, "own.py", "awa", "worker")
    assert done.returncode == 2, done.stderr
    assert "start them with `flask --app NAME`" in done.stderr
