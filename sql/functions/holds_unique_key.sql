-- holds_unique_key: whether a key still belongs to its job: not expired, and the job is in one of the states that hold it. A job
-- that is gone is in none. The only text that decides it.
-- Reads:  what get_job reads
-- Writes: nothing
-- Locks:  none
-- Model:  HoldsUniqueKey
CREATE OR REPLACE FUNCTION awa.holds_unique_key(p_job_id int8, p_expires_at timestamptz, p_states text[], p_now timestamptz)
RETURNS bool
LANGUAGE sql VOLATILE AS $$
    SELECT p_expires_at > p_now AND EXISTS (SELECT 1 FROM awa.get_job(p_job_id) j WHERE j.state = ANY (p_states))
$$;
