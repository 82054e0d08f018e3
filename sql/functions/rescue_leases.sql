-- rescue_leases: ends the running attempts with a lease of a dead runtime (p_runtime_id), or those past their deadline (NULL), at most
-- p_limit of them. stuck: could not be ended. busy: is being ended by somebody else. more: there may be more that can be ended.
-- When none of p_limit could be, it looks once more, somewhere behind them: in time they hide nothing, and a call stays bounded.
-- Reads:  leases and what end_leases reads
-- Writes: what end_leases writes
-- Locks:  claim advisory (by TRY)
-- Model:  RescueLeases
CREATE OR REPLACE FUNCTION awa.rescue_leases(
    p_runtime_id int8, p_outcome text, p_limit int4, p_now timestamptz,
    OUT ended int4, OUT stuck int4, OUT busy int4, OUT more bool, OUT lanes int4[]
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_skipped int8 := 0;
    v_count int8;
    v_leases awa.leases[];
    v_done record;
BEGIN
    ended := 0;
    stuck := 0;
    busy := 0;
    more := false;
    lanes := '{}';
    FOR v_look IN 1..2 LOOP
        -- Each by its own index: what is not due is not read.
        IF p_runtime_id IS NULL THEN
            v_leases := ARRAY(SELECT l FROM awa.leases l WHERE l.deadline_at <= p_now
                              ORDER BY l.deadline_at OFFSET v_skipped LIMIT p_limit);
        ELSE
            v_leases := ARRAY(SELECT l FROM awa.leases l WHERE l.runtime_id = p_runtime_id AND l.state = 'running'
                              OFFSET v_skipped LIMIT p_limit);
        END IF;
        EXIT WHEN cardinality(v_leases) = 0;
        SELECT * INTO v_done FROM awa.end_leases(v_leases, p_outcome);
        ended := ended + v_done.ended;
        stuck := stuck + v_done.stuck;
        busy := busy + v_done.busy;
        lanes := lanes || ARRAY(SELECT DISTINCT u.lane_id FROM unnest(v_leases) u);
        EXIT WHEN cardinality(v_leases) < p_limit;
        IF v_done.ended > 0 THEN
            more := true;
            EXIT;
        END IF;
        IF p_runtime_id IS NULL THEN
            SELECT count(*) INTO v_count FROM awa.leases l WHERE l.deadline_at <= p_now;
        ELSE
            SELECT count(*) INTO v_count FROM awa.leases l WHERE l.runtime_id = p_runtime_id AND l.state = 'running';
        END IF;
        v_skipped := p_limit + floor(random() * (v_count - p_limit))::int8;
    END LOOP;
END
$$;
