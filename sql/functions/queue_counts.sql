-- queue_counts: how many jobs of a queue are in each state; of all queues when p_queue is NULL. Both kinds agree, but for a backlog of
-- more than p_available_limit jobs in a lane. The exact one counts what it finds, and keeps slots from being pruned while it does; the
-- fast one costs about the same however much history is kept, and looks again when a slot was pruned or folded meanwhile. Neither waits
-- for a table longer than a second: whoever publishes metrics says what it knew rather than nothing.
-- Reads:  ring_slots and what count_jobs reads
-- Writes: nothing
-- Locks:  prune advisory (shared) when exact
-- Model:  QueueCounts
CREATE OR REPLACE FUNCTION awa.queue_counts(
    p_queue text DEFAULT NULL, p_exact bool DEFAULT true, p_available_limit int4 DEFAULT NULL
) RETURNS TABLE (
    queue text, paused bool, available int8, running int8, scheduled int8, retryable int8, waiting int8, completed int8, failed int8,
    cancelled int8, dead_lettered int8)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '1s' AS $$
DECLARE
    v_epoch int8;
    v_counts jsonb;
BEGIN
    IF p_exact THEN
        PERFORM awa.share_prune_lock();
        -- A new statement after the lock: no slot is emptied under it.
        RETURN QUERY SELECT c.* FROM awa.count_jobs(p_queue, true, p_available_limit) c;
        RETURN;
    END IF;
    LOOP
        v_epoch := awa.prune_epoch();
        SELECT jsonb_agg(to_jsonb(c)) INTO v_counts FROM awa.count_jobs(p_queue, false, p_available_limit) c;
        EXIT WHEN awa.prune_epoch() = v_epoch;
    END LOOP;
    RETURN QUERY
    SELECT c.* FROM jsonb_to_recordset(v_counts) AS c (
        queue text, paused bool, available int8, running int8, scheduled int8, retryable int8, waiting int8, completed int8,
        failed int8, cancelled int8, dead_lettered int8);
END
$$;
