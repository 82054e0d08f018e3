-- select_jobs: the jobs in these states, of one kind or of all (NULL), as awa.jobs shows them, and whether each has a unique key;
-- in the order of their ids. Sees what its caller sees: the jobs of the caller's own open transaction too.
-- Hazard: reads all of awa.jobs; for tests, whose databases are small.
-- Reads:  job_unique_claims and what jobs reads
-- Writes: nothing
-- Locks:  none
-- Model:  SelectJobs
CREATE OR REPLACE FUNCTION awa.select_jobs(p_states text[], p_kind text DEFAULT NULL) RETURNS TABLE (
    job_id int8, queue text, priority int2, kind text, args json, state text, attempt int2, max_attempts int2,
    run_lease int4, run_at timestamptz, created_at timestamptz, claimed_at timestamptz, finalized_at timestamptz,
    runtime_id int8, payload jsonb, has_key bool
)
LANGUAGE plpgsql STABLE
SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT j.job_id, j.queue, j.priority, j.kind, j.args, j.state, j.attempt, j.max_attempts, j.run_lease, j.run_at,
           j.created_at, j.claimed_at, j.finalized_at, j.runtime_id, j.payload,
           EXISTS (SELECT 1 FROM awa.job_unique_claims u WHERE u.job_id = j.job_id)
    FROM awa.jobs j
    WHERE j.state = ANY (p_states) AND (p_kind IS NULL OR j.kind = p_kind)
    ORDER BY j.job_id;
END
$$;
