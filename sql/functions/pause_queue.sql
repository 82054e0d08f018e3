-- pause_queue: claims of the queue return nothing until resume_queue; enqueues and running jobs go on.
-- Reads:  nothing
-- Writes: queue_controls
-- Locks:  none
-- Model:  PauseQueue
CREATE OR REPLACE FUNCTION awa.pause_queue(p_queue text) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO awa.queue_controls (queue, paused_at) VALUES (p_queue, now())
    ON CONFLICT (queue) DO UPDATE SET paused_at = coalesce(awa.queue_controls.paused_at, now())
$$;
