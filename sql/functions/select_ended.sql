-- select_ended: the ids of up to p_limit jobs in one of the states failed, cancelled and dead_lettered, after p_after_job_id in the order
-- of ids; of a queue, a kind and ended before an instant where those are given. What to retry, move or discard.
-- Reads:  done_entries, dlq_entries, queue_lanes
-- Writes: nothing
-- Locks:  none
-- Model:  SelectEnded
CREATE OR REPLACE FUNCTION awa.select_ended(
    p_state text, p_queue text, p_kind text, p_before timestamptz, p_after_job_id int8, p_limit int4
) RETURNS int8[]
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off AS $$
BEGIN
    IF p_state IN ('failed', 'cancelled') THEN
        RETURN ARRAY(
            SELECT e.job_id FROM awa.done_entries e
            WHERE e.job_id > p_after_job_id AND e.state = p_state AND (p_kind IS NULL OR e.kind = p_kind)
              AND (p_before IS NULL OR e.finalized_at < p_before)
              AND (p_queue IS NULL OR e.lane_id IN (SELECT l.lane_id FROM awa.queue_lanes l WHERE l.queue = p_queue))
            ORDER BY e.job_id LIMIT p_limit);
    ELSIF p_state = 'dead_lettered' THEN
        RETURN ARRAY(
            SELECT e.job_id FROM awa.dlq_entries e
            WHERE e.job_id > p_after_job_id AND (p_kind IS NULL OR e.kind = p_kind)
              AND (p_before IS NULL OR e.finalized_at < p_before)
              AND (p_queue IS NULL OR e.lane_id IN (SELECT l.lane_id FROM awa.queue_lanes l WHERE l.queue = p_queue))
            ORDER BY e.job_id LIMIT p_limit);
    END IF;
    RAISE EXCEPTION 'awa.select_ended: p_state is failed, cancelled or dead_lettered, not %', p_state USING ERRCODE = 'AWA02';
END
$$;
