-- resume_queue: undoes pause_queue and wakes the queue's workers.
-- Reads:  nothing
-- Writes: queue_controls
-- Locks:  none
-- Model:  ResumeQueue
CREATE OR REPLACE FUNCTION awa.resume_queue(p_queue text) RETURNS void
LANGUAGE sql VOLATILE AS $$
    UPDATE awa.queue_controls SET paused_at = NULL WHERE queue = p_queue;
    SELECT pg_notify('awa', p_queue)
$$;
