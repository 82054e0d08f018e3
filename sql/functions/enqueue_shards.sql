-- enqueue_shards: into how many lanes of one priority a queue's jobs are spread; 1 where nobody has said otherwise.
-- Reads:  queue_controls
-- Writes: nothing
-- Locks:  none
-- Model:  EnqueueShards
CREATE OR REPLACE FUNCTION awa.enqueue_shards(p_queue text) RETURNS int2
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT q.enqueue_shards FROM awa.queue_controls q WHERE q.queue = p_queue), 1::int2)
$$;
