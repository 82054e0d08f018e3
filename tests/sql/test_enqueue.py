"""awa.enqueue: one job from SQL, with the limits of the client."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import awa
from awa.arguments import MAX_ARGS_BYTES, MAX_DEPTH, encode_object
from awa.config import DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, DEFAULT_QUEUE
from awa.errors import InvalidJob, from_database
from awa.names import MAX_KIND_CHARACTERS, MAX_QUEUE_CHARACTERS, check_name
from awa.plan import MAX_TAG_CHARACTERS, MAX_TAGS, SMALLINT_MAX
from awa.postgres import Connection, connect
from awa.statement import MAX_UNIQUE_KEY_CHARACTERS
from awa.unique import UNFINISHED
from tests.sql.engine import claim
from tests.waiting import PATIENCE
from tests.worker.support import wait_for_counts


def enqueue(conn: Connection, call: str, *parameters: object) -> int:
    """`SELECT awa.enqueue(<call>)`."""
    return int(conn.execute(f"SELECT awa.enqueue({call})".encode(), parameters).fetchall()[0][0])


def refused(conn: Connection, call: str, *parameters: object) -> InvalidJob:
    """How it was refused."""
    with pytest.raises(psycopg.Error) as caught:
        enqueue(conn, call, *parameters)
    assert caught.value.sqlstate == "AWA02", caught.value
    error = from_database(caught.value)
    assert isinstance(error, InvalidJob)
    assert str(error) == caught.value.diag.message_primary
    return error


def test_a_kind_suffices_and_the_rest_has_the_client_s_defaults(conn: Connection, client: awa.Client) -> None:
    found = client.get_job(enqueue(conn, "'work'"))
    expected = client.get_job(client.enqueue("work"))
    assert found is not None
    assert expected is not None
    assert (found.queue, found.priority, found.max_attempts) == (DEFAULT_QUEUE, DEFAULT_PRIORITY, DEFAULT_MAX_ATTEMPTS)
    names = ("kind", "args", "queue", "priority", "max_attempts", "tags", "metadata", "state")
    assert [getattr(found, name) for name in names] == [getattr(expected, name) for name in names]


def test_null_is_a_default_everywhere(conn: Connection, client: awa.Client) -> None:
    job = client.get_job(enqueue(conn, "'work', NULL::json, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"))
    assert job is not None
    assert (job.args, job.queue, job.priority, job.tags, job.metadata) == ({}, "default", 2, (), {})


def test_every_option_arrives(conn: Connection, client: awa.Client) -> None:
    job_id = enqueue(
        conn,
        "'work', args => '{\"n\": 1e300}', queue => 'q', priority => 4, run_at => now() + '1 day', max_attempts => 7, "
        "tags => '{a,\"b c\"}', metadata => '{\"m\": [1]}', unique_key => 'k', notify => false",
    )
    job = client.get_job(job_id)
    assert job is not None
    assert (job.kind, job.args, job.queue, job.priority, job.max_attempts) == ("work", {"n": 1e300}, "q", 4, 7)
    assert (job.tags, job.metadata, job.state) == (("a", "b c"), {"m": [1]}, "scheduled")


@pytest.mark.parametrize(
    "args", ["'{\"n\": 1}'", "json_build_object('n', 1)", "jsonb_build_object('n', 1)", "'{\"n\":1}'::text"]
)
def test_arguments_may_be_json_jsonb_or_text(conn: Connection, client: awa.Client, args: str) -> None:
    job = client.get_job(enqueue(conn, f"'work', {args}, queue => 'q'"))
    assert job is not None
    assert job.args == {"n": 1}


def test_a_job_commits_and_rolls_back_with_its_transaction(dsn: str, client: awa.Client) -> None:
    with psycopg.connect(dsn) as conn:
        enqueue(conn, "'work', queue => 'q'")
        conn.rollback()
        enqueue(conn, "'work', queue => 'q'")
        with conn.transaction(force_rollback=True):
            enqueue(conn, "'work', queue => 'q'")
        assert client.queue_counts("q").available == 0
        conn.commit()
    assert client.queue_counts("q").available == 1


def test_workers_are_woken_at_commit_unless_told_not_to(dsn: str, conn: Connection) -> None:
    conn.execute("LISTEN awa")
    with psycopg.connect(dsn) as other:
        enqueue(other, "'work', queue => 'quiet', notify => false")
        enqueue(other, "'work', queue => 'later', run_at => now() + '1 day'")
        enqueue(other, "'work', queue => 'q'")
        enqueue(other, "'work', queue => 'q'")
        other.execute("NOTIFY awa, 'end of test'")
        assert list(conn.notifies(timeout=0.05)) == []
        other.commit()
    heard = []
    for notify in conn.notifies(timeout=PATIENCE):
        heard.append(notify.payload)
        if notify.payload == "end of test":
            break
    assert heard == ["q", "end of test"]


def test_a_worker_runs_what_sql_enqueued(dsn: str, conn: Connection, client: awa.Client) -> None:
    ran: list[int] = []

    @awa.task(queue="q")
    def work(n: int) -> None:
        ran.append(n)

    with awa.Worker({"q": 2}, dsn=dsn, poll_every=600) as worker:
        assert worker.wait_until_ready(PATIENCE)
        for n in range(3):
            enqueue(conn, "'work', jsonb_build_object('n', %s::int), queue => 'q'", n)
        wait_for_counts(client, "q", completed=3)
    assert sorted(ran) == [0, 1, 2]


def test_a_trigger_makes_a_job_of_every_row(dsn: str, conn: Connection, client: awa.Client) -> None:
    conn.execute("CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text, total numeric)")
    conn.execute(
        """
        CREATE FUNCTION order_placed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM awa.enqueue('confirm_order', jsonb_build_object('order_id', NEW.id), queue => 'orders',
                                priority => CASE WHEN NEW.total > 1000 THEN 1 ELSE 2 END, unique_key => NEW.id::text);
            RETURN NULL;
        END $$;
        CREATE TRIGGER order_placed AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION order_placed();
        """
    )
    with psycopg.connect(dsn) as application:
        application.execute("INSERT INTO orders (customer, total) VALUES ('ada', 10)")
        application.rollback()
        application.execute("INSERT INTO orders (customer, total) SELECT 'bob', n * 300 FROM generate_series(1, 5) n")
        application.commit()
    orders = {row[0]: row[1] for row in conn.execute("SELECT id, total FROM orders").fetchall()}
    jobs = conn.execute("SELECT (args->>'order_id')::int, priority FROM awa.jobs WHERE kind = 'confirm_order'").fetchall()
    assert dict(jobs) == {order_id: 1 if total > 1000 else 2 for order_id, total in orders.items()}
    assert len(jobs) == 5
    assert client.queue_counts("orders").available == 5


def test_a_unique_key_is_the_unfinished_job_s_and_no_error(conn: Connection, client: awa.Client, dsn: str) -> None:
    first = enqueue(conn, "'work', queue => 'q', unique_key => 'k'")
    assert enqueue(conn, "'work', queue => 'elsewhere', unique_key => 'k'") == first
    assert enqueue(conn, "'work', queue => 'q', unique_key => 'other'") != first
    assert enqueue(conn, "'other', queue => 'q', unique_key => 'k'") != first
    assert client.enqueue("work", queue="q", unique=awa.Unique()) != first
    states = conn.execute("SELECT DISTINCT states FROM awa.job_unique_claims").fetchall()
    assert states == [(list(UNFINISHED),)]
    assert client.cancel(first)
    assert enqueue(conn, "'work', queue => 'q', unique_key => 'k'") > first


# -- limits: the same as the client's -----------------------------------------------------------------------------------

LIMITS: list[tuple[str, str, object, object]] = [
    ("kind", "%s", "k" * MAX_KIND_CHARACTERS, "k" * (MAX_KIND_CHARACTERS + 1)),
    ("queue", "'work', queue => %s", "é" * MAX_QUEUE_CHARACTERS, "é" * (MAX_QUEUE_CHARACTERS + 1)),
    ("priority", "'work', priority => %s", 1, 0),
    ("priority", "'work', priority => %s", 4, 5),
    ("max_attempts", "'work', max_attempts => %s", 1, 0),
    ("max_attempts", "'work', max_attempts => %s", SMALLINT_MAX, SMALLINT_MAX + 1),
    ("tags", "'work', tags => %s", ["t"] * MAX_TAGS, ["t"] * (MAX_TAGS + 1)),
    ("tags[1]", "'work', tags => %s", ["t", "t" * MAX_TAG_CHARACTERS], ["t", "t" * (MAX_TAG_CHARACTERS + 1)]),
    ("unique_key", "'work', unique_key => %s", "k" * MAX_UNIQUE_KEY_CHARACTERS, "k" * (MAX_UNIQUE_KEY_CHARACTERS + 1)),
    ("args", "'work', %s::text", '{"t":"%s"}' % ("x" * (MAX_ARGS_BYTES - 8)), '{"t":"%s"}' % ("x" * (MAX_ARGS_BYTES - 7))),
    ("metadata", "'work', metadata => %s", '{"t": "x"}', '{"t": "%s"}' % ("x" * MAX_ARGS_BYTES)),
    ("run_at", "'work', run_at => %s", "9999-12-30 00:00+00", "10000-01-01 00:00+00"),
    ("run_at", "'work', run_at => %s", "2000-01-01 00:00+00", "infinity"),
    ("args.a.b[0]", "'work', %s::text", '{"a":{"b":[18446744073709551615]}}', '{"a":{"b":[18446744073709551616]}}'),
    ("args.a", "'work', %s::text", '{"a":-9223372036854775808}', '{"a":-9223372036854775809}'),
    ("args", "'work', %s::text", '{"a":1e308}', '{"a":1e309}'),
    ("args", "'work', %s::text", '{"a":"\\\\u0000"}', '{"a":"\\u0000"}'),
    ("args", "'work', %s::text", '{"a":"\\ud83d\\ude00"}', '{"a":"\\ud83d"}'),
    ("args", "'work', %s::text", '{"\\\\u0000":1}', '{"\\u0000":1}'),
    ("args", "'work', %s::text", "{}", "[1]"),
    ("metadata", "'work', metadata => %s", "{}", '"text"'),
]


@pytest.mark.parametrize(("field", "call", "good", "bad"), LIMITS, ids=[f"{row[0]}-{n}" for n, row in enumerate(LIMITS)])
def test_a_limit_is_kept_and_named(conn: Connection, field: str, call: str, good: object, bad: object) -> None:
    assert enqueue(conn, call, good) > 0
    error = refused(conn, call, bad)
    assert error.field == field
    assert error.reason


def test_depth_is_the_client_s(conn: Connection, client: awa.Client) -> None:
    def nested(levels: int) -> dict[str, Any]:
        value: Any = {}
        for _ in range(levels - 2):
            value = [value]
        return {"a": value}

    client.enqueue("work", nested(MAX_DEPTH))
    assert enqueue(conn, "'work', %s::json", json.dumps(nested(MAX_DEPTH))) > 0
    with pytest.raises(InvalidJob, match=f"more than {MAX_DEPTH} levels") as by_client:
        client.enqueue("work", nested(MAX_DEPTH + 1))
    by_sql = refused(conn, "'work', %s::json", json.dumps(nested(MAX_DEPTH + 1)))
    assert str(by_sql) == str(by_client.value)


def why_not(ask: Callable[[], object]) -> InvalidJob | None:
    """The client's refusal."""
    try:
        ask()
    except InvalidJob as error:
        return error
    return None


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)


@given(name=texts)
def test_a_name_is_refused_if_the_client_refuses_it(conn: Connection, name: str) -> None:
    assume(not any(unicodedata.category(c) == "Cn" for c in name))  # which these are depends on Python's version
    by_client = why_not(lambda: check_name(name, "kind", MAX_KIND_CHARACTERS))
    if by_client is None:
        assert enqueue(conn, "%s", name) > 0
    else:
        assert str(refused(conn, "%s", name)) == str(by_client)


finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), texts
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@given(args=st.dictionaries(texts, values, max_size=4))
def test_arguments_are_refused_if_the_client_refuses_them_and_else_kept(
    conn: Connection, client: awa.Client, args: dict[str, Any]
) -> None:
    text = json.dumps(args, ensure_ascii=False)
    by_client = why_not(lambda: encode_object(args))
    if by_client is not None:
        assert refused(conn, "'work', %s::json", text).reason == by_client.reason
    else:
        job = client.get_job(enqueue(conn, "'work', %s::json", text))
        assert job is not None
        assert job.args == args


# -- lanes on first use -------------------------------------------------------------------------------------------------


@pytest.fixture
def transactions(dsn: str) -> Iterator[Any]:
    """Open transactions that wait for a lock no longer than half a second."""
    with ExitStack() as stack:

        def begin(**options: Any) -> Connection:
            conn: Connection = psycopg.connect(dsn, options="-c lock_timeout=500ms", **options)
            stack.callback(conn.close)
            return conn

        yield begin


def test_first_users_of_a_queue_do_not_wait_for_each_other(transactions: Any, client: awa.Client, dsn: str) -> None:
    open_ones = [transactions() for _ in range(16)]
    for conn in open_ones:
        for _ in range(2):
            enqueue(conn, "'work', queue => 'brand new'")
    client.enqueue("work", queue="brand new")  # nor does a client
    assert client.queue_counts("brand new").available == 1
    for number, conn in enumerate(open_ones):
        conn.rollback() if number % 3 == 0 else conn.commit()
    committed = 1 + 2 * sum(number % 3 != 0 for number in range(16))
    assert client.queue_counts("brand new").available == committed
    with connect(dsn, "awa test") as conn:
        claimed = 0
        while batch := claim(conn, 100, queue="brand new").jobs:
            claimed += len(batch)
        assert claimed == committed


def test_one_first_user_too_many_waits(transactions: Any, client: awa.Client) -> None:
    for _ in range(16):
        enqueue(transactions(), "'work', queue => 'brand new'")
    seventeenth, eighteenth = transactions(), transactions()
    enqueue(seventeenth, "'work', queue => 'brand new'")  # the lane that a client would make
    with pytest.raises(psycopg.errors.LockNotAvailable):
        enqueue(eighteenth, "'work', queue => 'brand new'")


def test_a_lane_that_is_there_is_used(conn: Connection, dsn: str, transactions: Any) -> None:
    conn.execute("SELECT awa.ensure_lane('q', 2::int2)")
    for _ in range(3):
        enqueue(transactions(), "'work', queue => 'q'")
    assert conn.execute("SELECT queue, enqueue_shard FROM awa.queue_lanes").fetchall() == [("q", 0)]


def test_a_spare_that_is_committed_serves_all_until_a_client_makes_the_lane(conn: Connection, client: awa.Client) -> None:
    for _ in range(3):
        enqueue(conn, "'work', queue => 'q'")
    lanes = "SELECT enqueue_shard FROM awa.queue_lanes WHERE queue = 'q' ORDER BY 1"
    assert conn.execute(lanes).fetchall() == [(32767,)]
    client.enqueue("work", queue="q")
    enqueue(conn, "'work', queue => 'q'")
    assert conn.execute(lanes).fetchall() == [(0,), (32767,)]
    used = conn.execute(
        "SELECT l.enqueue_shard, count(*) FROM awa.ready_entries r JOIN awa.queue_lanes l USING (lane_id) GROUP BY 1"
    )
    assert sorted(used.fetchall()) == [(0, 2), (32767, 3)]


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_an_older_snapshot_does_not_see_the_lane_and_makes_another(
    transactions: Any, conn: Connection, client: awa.Client, level: psycopg.IsolationLevel
) -> None:
    old = transactions()
    old.isolation_level = level
    old.execute("SELECT 1 FROM awa.queue_lanes")
    enqueue(conn, "'work', queue => 'q'")
    enqueue(old, "'work', queue => 'q'")
    old.commit()
    assert client.queue_counts("q").available == 2


def test_many_first_users_at_once_lose_nothing(dsn: str, client: awa.Client) -> None:
    def first_use(number: int) -> None:
        with psycopg.connect(dsn) as conn:
            for queue in range(5):
                enqueue(conn, "'work', queue => %s", f"q{queue}")
                conn.commit()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(first_use, range(24)))
    assert [client.queue_counts(f"q{queue}").available for queue in range(5)] == [24] * 5


def test_a_role_with_the_documented_rights_may_enqueue_and_no_other(dsn: str, conn: Connection, client: awa.Client) -> None:
    role = f"enqueuer_{conn.info.backend_pid}"
    conn.execute(f"CREATE ROLE {role}".encode())
    try:
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute(f"SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                enqueue(other, "'work', queue => 'q'")
            conn.execute(
                f"GRANT USAGE ON SCHEMA awa TO {role}; GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA awa TO {role};"
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA awa TO {role}".encode()
            )
            enqueue(other, "'work', queue => 'q'")
            enqueue(other, "'work', queue => 'q', run_at => now() + '1 day'")
    finally:
        conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
    assert client.queue_counts("q").available == 1
