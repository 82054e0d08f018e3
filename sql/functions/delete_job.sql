-- delete_job: removes a job in whatever state it is, as if it had never been: a waiting one does not run, a running one is told to stop
-- and its ending refused, an ended one is taken out of history and counts. Returns 'deleted', 'unknown' or 'busy'; see end_job.
-- Reads:  what end_job reads
-- Writes: what end_job writes
-- Locks:  those of end_job
-- Model:  DeleteJob
CREATE OR REPLACE FUNCTION awa.delete_job(p_job_id int8) RETURNS text
LANGUAGE sql VOLATILE AS $$
    SELECT awa.end_job(p_job_id, 'deleted')
$$;
