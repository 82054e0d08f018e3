-- queue_counts: how many jobs of a queue are in each state, counted from the truth; all queues when p_queue is NULL.
-- Pending jobs are counted along the lane index from the cursor on; claims are counted whole, not job by job.
-- Reads:  queue_lanes, queue_controls, lease_claim_batches, queue_claim_heads, ready_entries, ready_tombstones,
--         receipt_completion_batches, lease_claim_closures, leases, deferred_jobs, done_entries, dlq_entries
-- Writes: nothing
-- Locks:  none
-- Model:  QueueCounts
CREATE OR REPLACE FUNCTION awa.queue_counts(p_queue text DEFAULT NULL)
RETURNS TABLE (
    queue text, paused bool, available int8, running int8, scheduled int8, retryable int8, waiting int8, completed int8, failed int8,
    cancelled int8, dead_lettered int8)
LANGUAGE sql STABLE
SET jit = off AS $$
    WITH lanes AS MATERIALIZED (
        SELECT l.lane_id, l.queue, l.has_tombstones FROM awa.queue_lanes l WHERE p_queue IS NULL OR l.queue = p_queue
    ), claimed AS (
        SELECT b.lane_id, sum(b.n) AS n FROM awa.lease_claim_batches b JOIN lanes USING (lane_id) GROUP BY b.lane_id
    ), completed AS (
        SELECT b.lane_id, sum(c.n) AS n
        FROM awa.receipt_completion_batches c
        JOIN awa.lease_claim_batches b ON b.claim_slot = c.claim_slot AND b.claim_id = c.claim_id
        JOIN lanes ON lanes.lane_id = b.lane_id
        GROUP BY b.lane_id
    ), closed AS (
        SELECT b.lane_id, count(*) AS n, count(*) FILTER (WHERE x.outcome = 'completed') AS completed
        FROM awa.lease_claim_closures x
        JOIN awa.lease_claim_batches b ON b.claim_slot = x.claim_slot AND b.claim_id = x.claim_id
        JOIN lanes ON lanes.lane_id = b.lane_id
        GROUP BY b.lane_id
    ), deferred AS (
        SELECT d.lane_id, count(*) FILTER (WHERE d.state = 'scheduled') AS scheduled,
               count(*) FILTER (WHERE d.state = 'retryable') AS retryable
        FROM awa.deferred_jobs d JOIN lanes USING (lane_id) GROUP BY d.lane_id
    ), leased AS (
        SELECT s.lane_id, count(*) FILTER (WHERE s.state = 'running') AS running,
               count(*) FILTER (WHERE s.state = 'waiting') AS waiting
        FROM awa.leases s JOIN lanes USING (lane_id) GROUP BY s.lane_id
    ), done AS (
        SELECT e.lane_id, count(*) FILTER (WHERE e.state = 'failed') AS failed,
               count(*) FILTER (WHERE e.state = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE e.state = 'completed') AS completed
        FROM awa.done_entries e JOIN lanes USING (lane_id) GROUP BY e.lane_id
    ), dead AS (
        SELECT e.lane_id, count(*) AS n FROM awa.dlq_entries e JOIN lanes USING (lane_id) GROUP BY e.lane_id
    )
    SELECT l.queue, coalesce(bool_or(q.paused_at IS NOT NULL), false),
           coalesce(sum((awa.lane_backlog(l.lane_id, NULL)).n
                        - CASE WHEN l.has_tombstones THEN awa.lane_tombstones(l.lane_id) ELSE 0 END), 0)::int8,
           (coalesce(sum(claimed.n), 0) - coalesce(sum(completed.n), 0) - coalesce(sum(closed.n), 0)
            + coalesce(sum(leased.running), 0))::int8,
           coalesce(sum(d.scheduled), 0)::int8, coalesce(sum(d.retryable), 0)::int8, coalesce(sum(leased.waiting), 0)::int8,
           (coalesce(sum(completed.n), 0) + coalesce(sum(closed.completed), 0) + coalesce(sum(done.completed), 0))::int8,
           coalesce(sum(done.failed), 0)::int8, coalesce(sum(done.cancelled), 0)::int8, coalesce(sum(dead.n), 0)::int8
    FROM lanes l
    LEFT JOIN awa.queue_controls q ON q.queue = l.queue
    LEFT JOIN claimed ON claimed.lane_id = l.lane_id
    LEFT JOIN completed ON completed.lane_id = l.lane_id
    LEFT JOIN closed ON closed.lane_id = l.lane_id
    LEFT JOIN leased ON leased.lane_id = l.lane_id
    LEFT JOIN deferred d ON d.lane_id = l.lane_id
    LEFT JOIN done ON done.lane_id = l.lane_id
    LEFT JOIN dead ON dead.lane_id = l.lane_id
    GROUP BY l.queue
    ORDER BY l.queue
$$;
