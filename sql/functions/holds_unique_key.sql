-- holds_unique_key: whether a key still belongs to its job: not expired, and the job is in one of the states that hold it. A job
-- that is gone is in none. The only text that decides it.
-- Above READ COMMITTED a transaction does not see a lane that was made for it after its snapshot, nor, through get_job, the jobs it
-- has enqueued there: rows without a lane are its own, and wait.
-- Reads:  ready_entries, deferred_jobs, queue_lanes and what get_job reads
-- Writes: nothing
-- Locks:  none
-- Model:  HoldsUniqueKey
CREATE OR REPLACE FUNCTION awa.holds_unique_key(p_job_id int8, p_expires_at timestamptz, p_states text[], p_now timestamptz)
RETURNS bool
LANGUAGE sql VOLATILE AS $$
    SELECT p_expires_at > p_now
       AND (EXISTS (SELECT 1 FROM awa.get_job(p_job_id) j WHERE j.state = ANY (p_states))
            OR current_setting('transaction_isolation') <> 'read committed'
               AND (EXISTS (SELECT 1 FROM awa.ready_entries r
                            WHERE r.job_id = p_job_id
                              AND NOT EXISTS (SELECT 1 FROM awa.queue_lanes l WHERE l.lane_id = r.lane_id))
                    OR EXISTS (SELECT 1 FROM awa.deferred_jobs d
                               WHERE d.job_id = p_job_id
                                 AND NOT EXISTS (SELECT 1 FROM awa.queue_lanes l WHERE l.lane_id = d.lane_id))))
$$;
