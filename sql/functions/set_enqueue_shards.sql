-- set_enqueue_shards: spreads what is enqueued to a queue from now on over p_shards lanes of each priority, 1 to 64. Jobs that
-- are there stay in their lanes, which claims go on serving. Producers learn of it within the time for which they remember it.
-- Reads:  nothing
-- Writes: queue_controls
-- Locks:  none
-- Model:  SetEnqueueShards
CREATE OR REPLACE FUNCTION awa.set_enqueue_shards(p_queue text, p_shards int4) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_shards IS NULL OR p_shards NOT BETWEEN 1 AND 64 THEN
        RAISE EXCEPTION 'awa.set_enqueue_shards: p_shards must be between 1 and 64, not %', p_shards USING ERRCODE = 'AWA02';
    END IF;
    INSERT INTO awa.queue_controls AS q (queue, enqueue_shards) VALUES (p_queue, p_shards)
    ON CONFLICT (queue) DO UPDATE SET enqueue_shards = excluded.enqueue_shards
    WHERE q.enqueue_shards IS DISTINCT FROM excluded.enqueue_shards;
END
$$;
