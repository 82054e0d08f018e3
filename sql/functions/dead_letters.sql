-- dead_letters: whether a job of this lane and kind that will not be tried again goes to the dead-letter queue: as its kind
-- says, else its queue, else yes. Asked by every path that ends a job for good.
-- Reads:  kind_controls, queue_controls, queue_lanes
-- Writes: nothing
-- Locks:  none
-- Model:  DeadLetters
CREATE OR REPLACE FUNCTION awa.dead_letters(p_lane_id int4, p_kind text) RETURNS bool
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT k.dead_letter FROM awa.kind_controls k WHERE k.kind = p_kind),
        (SELECT q.dead_letter FROM awa.queue_controls q JOIN awa.queue_lanes l ON l.queue = q.queue
         WHERE l.lane_id = p_lane_id),
        true)
$$;
