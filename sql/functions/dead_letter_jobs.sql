-- dead_letter_jobs: moves jobs that were kept as failed to the dead-letter queue; how many.
-- Reads:  nothing
-- Writes: done_entries, dlq_entries
-- Locks:  rows of done_entries, sorted by job id
-- Model:  DeadLetterJobs
CREATE OR REPLACE FUNCTION awa.dead_letter_jobs(p_job_ids int8[]) RETURNS int4
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
    WITH locked AS MATERIALIZED (
        SELECT e.job_id FROM awa.done_entries e
        WHERE e.job_id = ANY (p_job_ids) AND e.state = 'failed' ORDER BY e.job_id FOR UPDATE
    ), gone AS (
        DELETE FROM awa.done_entries e USING locked WHERE e.job_id = locked.job_id RETURNING e.*
    ), moved AS (
        INSERT INTO awa.dlq_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease, attempt, max_attempts,
                                     kind, args, unique_key, payload)
        SELECT g.job_id, g.run_at, g.created_at, g.claimed_at, g.finalized_at, g.lane_id, g.run_lease, g.attempt, g.max_attempts,
               g.kind, g.args, g.unique_key, g.payload
        FROM gone g
        RETURNING 1
    )
    SELECT count(*)::int4 FROM moved
$$;
