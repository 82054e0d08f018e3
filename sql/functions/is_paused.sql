-- is_paused: whether nothing of a queue is claimed for the time being; of one that has no jobs yet, too.
-- Reads:  queue_controls
-- Writes: nothing
-- Locks:  none
-- Model:  IsPaused
CREATE OR REPLACE FUNCTION awa.is_paused(p_queue text) RETURNS bool
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT 1 FROM awa.queue_controls q WHERE q.queue = p_queue AND q.paused_at IS NOT NULL)
$$;
