-- enqueue: one job from SQL: a trigger, another language, psql. In the caller's transaction, with which it commits or rolls back, and
-- workers are woken as it commits (unless notify is false). Returns the job's id, or with unique_key that of the unfinished job of
-- this kind that has the key already. Public: names, order and meaning of the parameters stay; NULL is a default.
-- Limits and defaults are those of the client; what breaks one is refused by refuse_job (SQLSTATE AWA02). args may be json, jsonb
-- or text. docs/how-to/sql.md.
-- Reads:  what lane_in_transaction and enqueue_jobs and enqueue_unique read
-- Writes: what lane_in_transaction and enqueue_jobs and enqueue_unique write
-- Locks:  those of lane_in_transaction on first use of a lane; with unique_key those of enqueue_unique
-- Model:  Enqueue
CREATE OR REPLACE FUNCTION awa.enqueue(
    kind text,
    args json DEFAULT '{}',
    queue text DEFAULT NULL,
    priority int4 DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    max_attempts int4 DEFAULT NULL,
    tags text[] DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    unique_key text DEFAULT NULL,
    notify bool DEFAULT true
) RETURNS int8
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_queue        CONSTANT text := coalesce(queue, 'default');
    v_priority     CONSTANT int4 := coalesce(priority, 2);
    v_max_attempts CONSTANT int4 := coalesce(max_attempts, 25);
    v_args         CONSTANT json := coalesce(args, '{}');
    v_tags         CONSTANT text[] := coalesce(tags, '{}');
    v_is_deferred  CONSTANT bool := coalesce(run_at > clock_timestamp(), false);
    v_payload      jsonb;
    v_job          json;
    v_woken        text[];
BEGIN
    PERFORM awa.check_name(kind, 'kind', 200);
    PERFORM awa.check_name(v_queue, 'queue', 200);
    IF v_priority NOT BETWEEN 1 AND 4 THEN
        PERFORM awa.refuse_job('priority', format('must be between 1 and 4, not %s', v_priority));
    ELSIF v_max_attempts NOT BETWEEN 1 AND 32767 THEN
        PERFORM awa.refuse_job('max_attempts', format('must be between 1 and 32767, not %s', v_max_attempts));
    ELSIF run_at NOT BETWEEN '0001-01-02 00:00+00' AND '9999-12-31 00:00+00' THEN
        PERFORM awa.refuse_job('run_at', format('%s is not between the years 1 and 9999', run_at));
    ELSIF array_ndims(v_tags) > 1 OR cardinality(v_tags) > 32 THEN
        PERFORM awa.refuse_job('tags', format('%s tags, the limit is 32', cardinality(v_tags)));
    END IF;
    PERFORM awa.check_name(t.tag, format('tags[%s]', t.ord - 1), 100) FROM unnest(v_tags) WITH ORDINALITY AS t (tag, ord);
    PERFORM awa.check_object(v_args, 'args');
    IF metadata IS NOT NULL THEN
        PERFORM awa.check_object(metadata::json, 'metadata');
    END IF;
    IF unique_key IS NOT NULL AND char_length(unique_key) NOT BETWEEN 1 AND 1000 THEN
        PERFORM awa.refuse_job('unique_key', format('%s characters: must have 1 to 1000', char_length(unique_key)));
    END IF;

    v_payload := CASE WHEN cardinality(v_tags) > 0 THEN jsonb_build_object('tags', v_tags) ELSE '{}' END
              || CASE WHEN metadata <> '{}' THEN jsonb_build_object('metadata', metadata) ELSE '{}' END;
    v_job := json_build_array(json_build_object(
        'lane_id', awa.lane_in_transaction(v_queue, v_priority::int2), 'kind', kind, 'max_attempts', v_max_attempts,
        'args', v_args, 'run_at', run_at, 'payload', nullif(v_payload, '{}'), 'deferred', v_is_deferred,
        -- A key of its own space: the client's keys are digests of another kind.
        'unique_key', encode(substring(sha256(convert_to(json_build_array('sql', kind, unique_key)::text, 'UTF8')), 1, 16), 'hex'),
        'states', ARRAY['available', 'scheduled', 'retryable', 'running', 'waiting'], 'replace', false));
    v_woken := CASE WHEN coalesce(notify, true) AND NOT v_is_deferred THEN ARRAY[v_queue] END;
    IF unique_key IS NOT NULL THEN
        RETURN (SELECT u.job_id FROM awa.enqueue_unique(v_job, v_woken) u);
    ELSIF v_is_deferred THEN
        RETURN (SELECT * FROM awa.enqueue_jobs(NULL, v_job, v_woken));
    ELSE
        RETURN (SELECT * FROM awa.enqueue_jobs(v_job, NULL, v_woken));
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION awa.enqueue(
    kind text,
    args jsonb,
    queue text DEFAULT NULL,
    priority int4 DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    max_attempts int4 DEFAULT NULL,
    tags text[] DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    unique_key text DEFAULT NULL,
    notify bool DEFAULT true
) RETURNS int8
LANGUAGE sql VOLATILE AS $$
    SELECT awa.enqueue(kind, args::json, queue, priority, run_at, max_attempts, tags, metadata, unique_key, notify)
$$;

CREATE OR REPLACE FUNCTION awa.enqueue(
    kind text,
    args text,
    queue text DEFAULT NULL,
    priority int4 DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    max_attempts int4 DEFAULT NULL,
    tags text[] DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    unique_key text DEFAULT NULL,
    notify bool DEFAULT true
) RETURNS int8
LANGUAGE sql VOLATILE AS $$
    SELECT awa.enqueue(kind, args::json, queue, priority, run_at, max_attempts, tags, metadata, unique_key, notify)
$$;
