-- discard_jobs: removes jobs that have failed, were cancelled or lie in the dead-letter queue; how many. Nothing else is touched.
-- Reads:  nothing
-- Writes: done_entries, dlq_entries
-- Locks:  rows of done_entries and dlq_entries, sorted by job id
-- Model:  DiscardJobs
CREATE OR REPLACE FUNCTION awa.discard_jobs(p_job_ids int8[]) RETURNS int4
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
    WITH done_locked AS MATERIALIZED (
        SELECT e.job_id FROM awa.done_entries e
        WHERE e.job_id = ANY (p_job_ids) AND e.state IN ('failed', 'cancelled') ORDER BY e.job_id FOR UPDATE
    ), dead_locked AS MATERIALIZED (
        SELECT e.job_id FROM awa.dlq_entries e WHERE e.job_id = ANY (p_job_ids) ORDER BY e.job_id FOR UPDATE
    ), done AS (
        DELETE FROM awa.done_entries e USING done_locked l WHERE e.job_id = l.job_id RETURNING 1
    ), dead AS (
        DELETE FROM awa.dlq_entries e USING dead_locked l WHERE e.job_id = l.job_id RETURNING 1
    )
    SELECT ((SELECT count(*) FROM done) + (SELECT count(*) FROM dead))::int4
$$;
