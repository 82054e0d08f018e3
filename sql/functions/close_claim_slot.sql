-- close_claim_slot: proves that every item of every claim in a sealed claim slot has ended, and counts its completions by queue. Proved
-- once: closures only grow, and no claim can come to the slot any more. That is what the lanes are waited for: a claim reads the
-- current slot under its lane's lock, so a claim on a lane that was free once after the seal goes elsewhere.
-- Returns false when an item is open, or a lane was busy.
-- Reads:  ring_rotations, lease_claim_batches, receipt_completion_batches, lease_claim_closures
-- Writes: ring_slots and what add_claim_counts writes
-- Locks:  those of await_lanes and add_claim_counts
-- Model:  CloseClaimSlot
CREATE OR REPLACE FUNCTION awa.close_claim_slot(p_slot int2, p_now timestamptz DEFAULT clock_timestamp()) RETURNS bool
LANGUAGE plpgsql VOLATILE
SET jit = off AS $$
DECLARE
    v_closed bool;
BEGIN
    FOR v_pass IN 1..2 LOOP
        EXECUTE format($sql$
            SELECT (SELECT coalesce(sum(b.n), 0) FROM awa.%I b)
                   = (SELECT coalesce(sum(c.n), 0) FROM awa.%I c) + (SELECT count(*) FROM awa.%I)
            $sql$, 'lease_claim_batches_' || p_slot, 'receipt_completion_batches_' || p_slot, 'lease_claim_closures_' || p_slot)
        INTO v_closed;
        IF NOT v_closed OR p_slot = (SELECT s.slot FROM awa.current_slot('claim') s) THEN
            RETURN false;
        END IF;
        EXIT WHEN v_pass = 2;
        IF NOT awa.await_lanes() THEN
            RETURN false;
        END IF;
    END LOOP;
    EXECUTE format($sql$
        UPDATE awa.ring_slots s SET closed_at = $1, ready_slots = (SELECT coalesce(bit_or(b.ready_slots), 0) FROM awa.%I b)
        WHERE s.ring = 'claim' AND s.slot = %s
        $sql$, 'lease_claim_batches_' || p_slot, p_slot) USING p_now;
    PERFORM awa.add_claim_counts(p_slot, 9223372036854775807);
    RETURN true;
END
$$;
