-- ensure_lane: the id of a lane, made on its first use.
-- Hazard: to be committed at once, on a connection of its own. Inside a caller's long transaction the unique key would make
-- every other first user of the lane wait for that transaction's end.
-- Reads:  queue_lanes
-- Writes: queue_lanes
-- Locks:  none
-- Model:  EnsureLane
CREATE OR REPLACE FUNCTION awa.ensure_lane(p_queue text, p_priority int2, p_enqueue_shard int2 DEFAULT 0) RETURNS int4
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lane_id int4;
BEGIN
    LOOP
        SELECT l.lane_id INTO v_lane_id FROM awa.queue_lanes l
        WHERE l.queue = p_queue AND l.priority = p_priority AND l.enqueue_shard = p_enqueue_shard;
        IF FOUND THEN
            RETURN v_lane_id;
        END IF;
        INSERT INTO awa.queue_lanes (queue, priority, enqueue_shard)
        VALUES (p_queue, p_priority, p_enqueue_shard)
        ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;
