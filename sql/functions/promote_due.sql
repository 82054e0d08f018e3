-- promote_due: moves up to p_limit due jobs from the backlog to their lanes, in due order, and wakes their queues; those of
-- paused queues stay. Returns how many. Several may call it at once: each takes rows no other has locked.
-- Reads:  deferred_jobs, queue_lanes, queue_controls, ring_rotations
-- Writes: deferred_jobs, ready_entries
-- Locks:  deferred_jobs rows (SKIP LOCKED)
-- Model:  PromoteDue
CREATE OR REPLACE FUNCTION awa.promote_due(p_limit int4, p_now timestamptz DEFAULT clock_timestamp()) RETURNS int4
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    v_lanes int4[];
    v_count int4;
BEGIN
    -- Nearly every call ends here.
    IF NOT EXISTS (SELECT 1 FROM awa.deferred_jobs d WHERE d.run_at <= p_now ORDER BY d.run_at LIMIT 1) THEN
        RETURN 0;
    END IF;
    WITH due AS MATERIALIZED (
        SELECT d.job_id
        FROM awa.queue_lanes l
        LEFT JOIN awa.queue_controls q ON q.queue = l.queue
        -- Each lane from its own index, so that a paused queue's million due jobs are not even looked at.
        CROSS JOIN LATERAL (
            SELECT x.job_id, x.run_at FROM awa.deferred_jobs x
            -- As in lane_cursor: only the lane's own index gives the order. By the index of all lanes an empty lane would read all that is
            -- due in the others.
            WHERE x.lane_id BETWEEN l.lane_id AND l.lane_id AND x.run_at <= p_now
            ORDER BY x.lane_id, x.run_at, x.job_id
            LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        ) d
        WHERE q.paused_at IS NULL
        ORDER BY d.run_at, d.job_id
        LIMIT p_limit
    ), gone AS (
        DELETE FROM awa.deferred_jobs d USING due WHERE d.job_id = due.job_id RETURNING d.*
    ), back AS (
        INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts,
                                       kind, args, unique_key, payload)
        SELECT s.slot, g.lane_id, g.job_id, g.run_at, g.created_at, g.run_lease, g.attempt,
               g.max_attempts, g.kind, g.args, g.unique_key, g.payload
        FROM gone g, awa.current_slot('queue') s
        ORDER BY g.run_at, g.job_id
        RETURNING lane_id
    )
    SELECT count(*), array_agg(DISTINCT b.lane_id) INTO v_count, v_lanes FROM back b;
    PERFORM pg_notify('awa', l.queue) FROM awa.queue_lanes l WHERE l.lane_id = ANY (v_lanes) GROUP BY l.queue;
    RETURN v_count;
END
$$;
