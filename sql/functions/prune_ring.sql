-- prune_ring: prunes at most one of a ring's sealed slots, the oldest that may be, and says of each slot it looked at what became of it:
-- 'pruned', or why it is held, which ring_slots keeps with the time since when. A slot that is held stops no other.
-- p_skip: slots not to look at, because they were held a moment ago. p_wait: seconds that a prune may wait for table locks in all.
-- Only a lock that is not to be had (55P03) means held; every other error is raised.
-- Reads:  what slot_is_empty and slot_hold_reason read
-- Writes: ring_slots and what close_claim_slot and prune_slot write
-- Locks:  those of close_claim_slot and prune_slot
-- Model:  PruneRing
CREATE OR REPLACE FUNCTION awa.prune_ring(
    p_ring text, p_skip int2[] DEFAULT '{}', p_now timestamptz DEFAULT clock_timestamp(), p_wait float8 DEFAULT 0.01
) RETURNS TABLE (slot int2, verdict text)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10ms' AS $$  -- nobody waits for whom this waits for, whatever table that is
#variable_conflict use_column
DECLARE
    v_slot int2;
    v_newest int8;
    v_reason text;
BEGIN
    FOR v_slot IN
        SELECT s.slot FROM awa.ring_slots s
        WHERE s.ring = p_ring AND s.slot <> ALL (p_skip) AND s.slot <> (SELECT c.slot FROM awa.current_slot(p_ring) c)
        ORDER BY s.generation NULLS FIRST, s.slot
    LOOP
        BEGIN
            -- Leases that have ended leave their rows' places behind, which only a truncation gives back.
            CONTINUE WHEN awa.slot_is_empty(p_ring, v_slot)
                      AND (p_ring <> 'lease' OR pg_relation_size(format('awa.leases_%s', v_slot)::regclass) = 0);
            SELECT q.last_value INTO v_newest FROM awa.claim_id_seq q;
            IF p_ring = 'claim' AND EXISTS (SELECT 1 FROM awa.ring_slots s
                                            WHERE s.ring = 'claim' AND s.slot = v_slot AND s.closed_at IS NULL) THEN
                PERFORM awa.close_claim_slot(v_slot, p_now);
            END IF;
            v_reason := awa.slot_hold_reason(p_ring, v_slot, 0, p_now);
        EXCEPTION WHEN lock_not_available THEN
            v_reason := 'locked';
        END;
        IF v_reason IS NULL THEN
            BEGIN
                PERFORM awa.prune_slot(p_ring, v_slot, v_newest, p_now, p_wait);
                RETURN QUERY SELECT v_slot, 'pruned';
                RETURN;
            EXCEPTION
                WHEN lock_not_available THEN
                    v_reason := 'locked';
                WHEN SQLSTATE 'AWA04' THEN
                    v_reason := SQLERRM;
            END;
        END IF;
        BEGIN
            UPDATE awa.ring_slots s SET held_reason = v_reason, held_since = p_now
            WHERE s.ring = p_ring AND s.slot = v_slot AND s.held_reason IS DISTINCT FROM v_reason;
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- somebody else is about to say something of it
        END;
        RETURN QUERY SELECT v_slot, v_reason;
    END LOOP;
END
$$;
