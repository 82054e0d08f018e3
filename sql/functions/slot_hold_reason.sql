-- slot_hold_reason: why a slot must not be pruned now, NULL when it may. Asked twice, without locks and again under them in a new
-- statement; p_after_claim_id bounds the second look for claims to those that came since the first, whose claims are known.
--   queue     an unconsumed job lies in it; or a claim that is kept took jobs out of it (their bodies are history, or still needed)
--   claim     an item is open; or its completions are to be kept (by time, and by size all together)
--   lease     more live leases than are moved at once: each is locked by its claim, and the server's lock table is not endless
--   terminal  its endings are to be kept
-- Reads:  ring_slots, storage_settings, leases, done_entries and what slot_has_unconsumed and slot_is_named read
-- Writes: nothing
-- Locks:  none
-- Model:  SlotHoldReason
CREATE OR REPLACE FUNCTION awa.slot_hold_reason(p_ring text, p_slot int2, p_after_claim_id int8, p_now timestamptz) RETURNS text
LANGUAGE plpgsql VOLATILE
SET jit = off AS $$
DECLARE
    v_leases_at_once CONSTANT int4 := 1000;
    v_closed_at timestamptz;
    v_settings awa.storage_settings;
    v_lane_id int4 := -1;
    v_finalized_at timestamptz;
BEGIN
    SELECT * INTO v_settings FROM awa.storage_settings;
    IF p_ring = 'queue' THEN
        IF awa.slot_has_unconsumed(p_slot) THEN
            RETURN 'jobs wait in it';
        ELSIF awa.slot_is_named(p_slot, p_after_claim_id) THEN
            RETURN 'its jobs'' claims are kept';
        END IF;
    ELSIF p_ring = 'claim' THEN
        SELECT s.closed_at INTO v_closed_at FROM awa.ring_slots s WHERE s.ring = 'claim' AND s.slot = p_slot;
        IF v_closed_at IS NULL THEN
            RETURN 'attempts are open';
        ELSIF p_now < v_closed_at + make_interval(secs => v_settings.completed_retention)
              AND awa.history_bytes() <= v_settings.history_max_bytes THEN
            RETURN 'retention';
        END IF;
    ELSIF p_ring = 'lease' THEN
        IF (SELECT count(*) FROM (SELECT 1 FROM awa.leases x WHERE x.lease_slot = p_slot LIMIT v_leases_at_once + 1) x)
           > v_leases_at_once THEN
            RETURN 'many attempts live in it';
        END IF;
    ELSIF p_ring = 'terminal' THEN
        LOOP
            SELECT e.lane_id, e.finalized_at INTO v_lane_id, v_finalized_at FROM awa.done_entries e
            WHERE e.terminal_slot = p_slot AND e.lane_id = (
                SELECT n.lane_id FROM awa.done_entries n
                WHERE n.terminal_slot = p_slot AND n.lane_id > v_lane_id ORDER BY n.lane_id LIMIT 1)
            ORDER BY e.finalized_at DESC LIMIT 1;
            EXIT WHEN NOT FOUND;
            IF p_now < v_finalized_at + make_interval(secs => v_settings.terminal_retention) THEN
                RETURN 'retention';
            END IF;
        END LOOP;
    END IF;
    RETURN NULL;
END
$$;
