-- slot_has_unconsumed: whether a committed body in a ready slot has still to be handed out, a late row of a sealed slot included.
-- Of each lane in the slot: the rest of its window, and whatever has committed since the window was taken. What window_ranges gives
-- need not be filtered: a row in it is either unconsumed or not yet visible in the window, which is unconsumed as well.
-- Reads:  ready_entries and what lane_cursor and window_ranges read
-- Writes: nothing
-- Locks:  none
-- Model:  SlotHasUnconsumed
CREATE OR REPLACE FUNCTION awa.slot_has_unconsumed(p_slot int2) RETURNS bool
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_lane_id int4 := -1;
    v_cursor record;
    v_window record;
BEGIN
    LOOP
        -- From lane to lane along the index, however many rows a lane has.
        SELECT r.lane_id INTO v_lane_id FROM awa.ready_entries r
        WHERE r.ready_slot = p_slot AND r.lane_id > v_lane_id ORDER BY r.lane_id, r.enq_xid, r.lane_seq LIMIT 1;
        EXIT WHEN NOT FOUND;
        SELECT * INTO v_cursor FROM awa.lane_cursor(v_lane_id);
        FOR v_pass IN 1..2 LOOP
            IF v_pass = 1 THEN
                v_window := awa.window_ranges(v_lane_id, v_cursor.s_prev, v_cursor.s_cur, v_cursor.pos_xid, v_cursor.pos_seq);
            ELSE
                v_window := awa.window_ranges(v_lane_id, v_cursor.s_cur, awa.settled_snapshot(), '0', 0);
            END IF;
            PERFORM 1
            FROM unnest(v_window.from_xids, v_window.from_seqs, v_window.to_xids) AS w (from_xid, from_seq, to_xid)
            CROSS JOIN LATERAL (
                SELECT 1 FROM awa.ready_entries e
                WHERE e.ready_slot = p_slot AND e.lane_id = v_lane_id
                  AND (e.enq_xid, e.lane_seq) > (w.from_xid, w.from_seq) AND e.enq_xid <= w.to_xid
                ORDER BY e.enq_xid, e.lane_seq
                LIMIT 1
            ) AS found
            LIMIT 1;
            IF FOUND THEN
                RETURN true;
            END IF;
        END LOOP;
    END LOOP;
    RETURN false;
END
$$;
