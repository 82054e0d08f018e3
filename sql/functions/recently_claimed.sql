-- recently_claimed: the ids of the jobs that were claimed last, newest claims first, at most p_limit; of all queues when p_queue is NULL.
-- For lists of what has just run: it reads no more claims than it needs, whatever history is kept. Jobs that were put back are among them.
-- Reads:  lease_claim_batches, queue_lanes
-- Writes: nothing
-- Locks:  none
-- Model:  RecentlyClaimed
CREATE OR REPLACE FUNCTION awa.recently_claimed(p_queue text, p_limit int4) RETURNS SETOF int8
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off AS $$
    SELECT u.job_id
    FROM (
        SELECT b.claim_id, b.job_ids
        FROM awa.lease_claim_batches b
        WHERE p_queue IS NULL OR b.lane_id IN (SELECT l.lane_id FROM awa.queue_lanes l WHERE l.queue = p_queue)
        ORDER BY b.claim_id DESC
        LIMIT p_limit
    ) c
    CROSS JOIN LATERAL unnest(c.job_ids) AS u (job_id)
    ORDER BY c.claim_id DESC
    LIMIT p_limit
$$;
