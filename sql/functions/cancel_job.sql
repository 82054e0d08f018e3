-- cancel_job: ends a job that has not ended, wherever it is; see end_job. Returns 'cancelled', 'ended', 'unknown' or 'busy'.
-- Reads:  what end_job reads
-- Writes: what end_job writes
-- Locks:  those of end_job
-- Model:  CancelJob
CREATE OR REPLACE FUNCTION awa.cancel_job(p_job_id int8) RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT awa.end_job(p_job_id, 'cancelled')
$$;
