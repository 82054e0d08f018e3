-- promote_own_jobs: moves the deferred jobs that the calling transaction has enqueued itself and that are due at p_now to their
-- lanes, in due order; those of paused queues stay. Returns how many. For tests that run the jobs of their own open transaction:
-- promote_due would take everybody's.
-- Reads:  deferred_jobs, queue_lanes, queue_controls, ring_rotations
-- Writes: deferred_jobs, ready_entries
-- Locks:  none: nobody else sees these rows
-- Model:  PromoteOwnJobs
CREATE OR REPLACE FUNCTION awa.promote_own_jobs(p_now timestamptz DEFAULT clock_timestamp()) RETURNS int4
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count int4;
BEGIN
    WITH gone AS (
        DELETE FROM awa.deferred_jobs d
        WHERE d.run_at <= p_now AND awa.is_own_row(d.xmin)
          AND NOT EXISTS (SELECT 1 FROM awa.queue_lanes l JOIN awa.queue_controls q ON q.queue = l.queue
                          WHERE l.lane_id = d.lane_id AND q.paused_at IS NOT NULL)
        RETURNING d.*
    )
    INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts,
                                   kind, args, unique_key, payload)
    SELECT s.slot, g.lane_id, g.job_id, g.run_at, g.created_at, g.run_lease, g.attempt,
           g.max_attempts, g.kind, g.args, g.unique_key, g.payload
    FROM gone g, awa.current_slot('queue') s
    ORDER BY g.run_at, g.job_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
