-- has_work: whether any of these queues, unless it is paused, has a job to hand out or one that is due. Running and later jobs
-- do not count.
-- Reads:  queue_lanes, queue_controls, deferred_jobs and what lane_backlog reads
-- Writes: nothing
-- Locks:  none
-- Model:  HasWork
CREATE OR REPLACE FUNCTION awa.has_work(p_queues text[]) RETURNS bool
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT 1 FROM awa.queue_lanes l
        LEFT JOIN awa.queue_controls q ON q.queue = l.queue
        WHERE l.queue = ANY (p_queues) AND q.paused_at IS NULL
          AND ((awa.lane_backlog(l.lane_id, 1)).n > 0
               OR EXISTS (SELECT 1 FROM awa.deferred_jobs d
                          WHERE d.lane_id = l.lane_id AND d.run_at <= clock_timestamp()))
    )
$$;
