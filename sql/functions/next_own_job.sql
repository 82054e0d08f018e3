-- next_own_job: the next job to run of those that the calling transaction has enqueued itself, most urgent lane first and in their
-- order, of these queues or of all (NULL), but for those of paused queues and those in p_passed. Attempt and lease are those of the
-- try to come. Nothing is written: nobody else can take a job that nobody else sees. No row: there is none. For tests; a claim
-- never hands out a job of its own uncommitted transaction, and must not.
-- Reads:  ready_entries, ready_tombstones, queue_lanes, queue_controls
-- Writes: nothing
-- Locks:  none
-- Model:  NextOwnJob
CREATE OR REPLACE FUNCTION awa.next_own_job(p_queues text[] DEFAULT NULL, p_passed int8[] DEFAULT '{}')
RETURNS TABLE (
    job_id int8, queue text, priority int2, kind text, args json, attempt int2, max_attempts int2, run_lease int4,
    run_at timestamptz, created_at timestamptz, payload jsonb
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_own xid8 := pg_current_xact_id_if_assigned();
BEGIN
    RETURN QUERY
    SELECT r.job_id, l.queue, l.priority, r.kind, r.args, (r.attempt + 1)::int2, r.max_attempts, r.run_lease + 1,
           r.run_at, r.created_at, r.payload
    FROM awa.queue_lanes l
    LEFT JOIN awa.queue_controls q ON q.queue = l.queue
    CROSS JOIN LATERAL (
        SELECT x.* FROM awa.ready_entries x
        WHERE x.lane_id = l.lane_id AND x.enq_xid = v_own AND x.job_id <> ALL (p_passed)
          AND NOT EXISTS (SELECT 1 FROM awa.ready_tombstones t
                          WHERE t.lane_id = x.lane_id AND t.enq_xid = x.enq_xid AND t.lane_seq = x.lane_seq)
        ORDER BY x.lane_seq
        LIMIT 1
    ) r
    WHERE (p_queues IS NULL OR l.queue = ANY (p_queues)) AND q.paused_at IS NULL
    ORDER BY l.priority, r.lane_seq
    LIMIT 1;
END
$$;
